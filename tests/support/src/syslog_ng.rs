//! syslog-ng on loopback, over TCP, TLS and UDP, that keeps what it read of each message in a file.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    keeper,
    rsyslog::Message,
    server::{Server, free_port, installed, listens, tls_file},
};

const MESSAGES: &str = "messages";

/// A server, and where it listens.
#[derive(Debug)]
pub struct SyslogNg {
    /// Its process.
    pub server: Server,
    /// Of loopback, for TCP.
    pub tcp: u16,
    /// For TLS.
    pub tls: u16,
    /// For UDP.
    pub udp: u16,
}

/// Starts one with the settings of its folder, which say no version, and waits until all `ports` are listened to.
pub fn server(settings: impl Fn(&Path) -> String, ports: Vec<u16>) -> Server {
    let root = installed("syslog-ng").join("root");
    let libraries = root.join("usr/lib/syslog-ng");
    // Its modules are in a folder of its version.
    let version = fs::read_dir(&libraries).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
    let (modules, version) = (version.path(), version.file_name().into_string().unwrap());
    let prepare = move |folder: &Path| {
        let settings = format!("@version: {version}\n{}", settings(folder));
        fs::write(folder.join("syslog-ng.conf"), settings).unwrap();
    };
    let start = move |folder: &Path| {
        let mut command = keeper::command(&root.join("usr/sbin/syslog-ng"));
        let of_system = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
        let paths = std::env::join_paths([libraries.clone()].iter().chain(&of_system)).unwrap();
        command.env("LD_LIBRARY_PATH", paths).arg("--foreground").arg("--no-caps");
        command.arg("--module-path").arg(&modules).arg("--cfgfile").arg(folder.join("syslog-ng.conf"));
        for (option, file) in [("--persist-file", "persist"), ("--pidfile", "pid"), ("--control", "control")]
        {
            command.arg(option).arg(folder.join(file));
        }
        command
    };
    Server::start("syslog-ng", prepare, start, move || ports.iter().all(|port| listens(*port)))
}

impl SyslogNg {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        let [tcp, tls, udp] = std::array::from_fn(|_| free_port());
        let server = server(|folder| settings(folder, [tcp, tls, udp]), vec![tcp, tls]);
        Self { server, tcp, tls, udp }
    }

    /// How many messages it has read.
    pub fn lines(&self) -> usize {
        fs::read(self.file()).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }

    /// All messages, in order of arrival. A line that a kill cut off is none.
    pub fn messages(&self) -> Vec<Message> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
        // It says which offset that is.
        messages.map(|message| Message { time: message.time.replace("+00:00", "Z"), ..message }).collect()
    }

    fn file(&self) -> PathBuf {
        self.server.folder().join(MESSAGES)
    }
}

/// It reads as fast as its file takes: nothing is dropped in between. What a message does not have it would leave out.
fn settings(folder: &Path, [tcp, tls, udp]: [u16; 3]) -> String {
    let (certificate, key) = (tls_file("certificate.pem"), tls_file("key.pem"));
    let fields = [
        ("pri", "${FACILITY}.${LEVEL}"),
        ("time", "${S_ISODATE}"),
        ("hostname", "${HOST}"),
        ("app_name", "${PROGRAM}"),
        ("procid", "${PID:--}"),
        ("msgid", "${MSGID:--}"),
        ("data", "${SDATA:--}"),
        ("text", "${MSG}"),
    ]
    .map(|(field, value)| format!("{field}=\"{value}\""))
    .join(" ");
    format!(
        "options {{ keep-hostname(yes); use-dns(no); dns-cache(no); log-msg-size(131072); frac-digits(6); time-zone(\"UTC\"); stats-freq(0); }};\n\
         source s {{\n\
         syslog(ip(127.0.0.1) port({tcp}) transport(tcp) log-iw-size(1000));\n\
         syslog(ip(127.0.0.1) port({udp}) transport(udp));\n\
         syslog(ip(127.0.0.1) port({tls}) transport(tls) log-iw-size(1000)\n\
         tls(key-file(\"{key}\") cert-file(\"{certificate}\") peer-verify(optional-untrusted)));\n}};\n\
         destination d {{ file(\"{}\" template('$(format-json {fields})\n')); }};\n\
         log {{ source(s); destination(d); flags(flow-control); }};\n",
        folder.join(MESSAGES).display()
    )
}
