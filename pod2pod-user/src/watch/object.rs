//! The JSON objects of one look: services and totals, which are no records. Writes to memory only.

use std::net::IpAddr;

use crate::{
    ipvs::{
        End,
        kernel::{Kernel, Timeouts},
        parse::Protocol,
    },
    record::{
        number::{Clock, push_address, push_integer},
        text::push_string,
    },
};

/// Writes one JSON object, key by key.
pub(super) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    /// Begins it, with its time in nanoseconds since 1970 and its kind.
    pub(super) fn new(out: &'a mut Vec<u8>, time: u64, kind: &str) -> Self {
        out.extend_from_slice(b"{\"time\":\"");
        Clock::default().push_time(out, time);
        out.push(b'"');
        let mut object = Self(out);
        object.text("kind", kind);
        object
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.0.push(b',');
        push_string(self.0, key.as_bytes());
        self.0.push(b':');
        self.0
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        push_string(self.key(key), text.as_bytes());
    }

    pub(super) fn integer(&mut self, key: &str, value: u64) {
        push_integer(self.key(key), value);
    }

    pub(super) fn setting(&mut self, key: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.integer(key, value.into());
        }
    }

    pub(super) fn mark(&mut self, key: &str, is_set: bool) {
        if is_set {
            self.key(key).extend_from_slice(b"true");
        }
    }

    pub(super) fn end(&mut self, key: &str, (address, port): End) {
        self.address(key, address);
        self.integer(&format!("{key}.port"), port.into());
    }

    fn address(&mut self, key: &str, address: IpAddr) {
        let out = self.key(&format!("{key}.address"));
        out.push(b'"');
        push_address(out, address);
        out.push(b'"');
    }

    /// Whose, and which virtual address.
    pub(super) fn protocol(&mut self, protocol: Protocol) {
        self.text("network.transport", &transport(protocol));
    }

    pub(super) fn finish(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

/// A protocol as OpenTelemetry has it: in lower case.
pub(super) fn transport(protocol: Protocol) -> String {
    protocol.to_string().to_ascii_lowercase()
}

/// What the kernel is set to.
pub(super) fn push_kernel(object: &mut Object<'_>, kernel: &Kernel) {
    if let Some(release) = &kernel.release {
        object.text("os.version", release);
    }
    object.setting("ipvs.conn_reuse_mode", kernel.conn_reuse_mode);
    object.setting("ipvs.expire_nodest_conn", kernel.expire_nodest_conn);
    object.setting("ipvs.conntrack", kernel.conntrack);
    let Timeouts { tcp, tcp_fin, udp } = kernel.timeouts;
    object.setting("ipvs.timeout.tcp", tcp);
    object.setting("ipvs.timeout.tcp_fin", tcp_fin);
    object.setting("ipvs.timeout.udp", udp);
}

/// An end for people.
pub(super) fn shown((address, port): End) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
