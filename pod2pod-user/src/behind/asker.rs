//! Asks conntrack of this network namespace: one question at a time, answered within the system call.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use rustix::net::netlink;

use super::{
    Translations,
    conntrack::{request, server},
};
use crate::netlink::Questions;

/// It is there where conntrack is loaded. Asking where it is not would load it.
const LOADED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// An answer is some hundred bytes (ctnetlink_nlmsg_size of net/netfilter/nf_conntrack_netlink.c).
const ANSWER_BYTES: usize = 4096;
/// The answer is there when the question is sent; without memory for it the kernel sends none.
const PATIENCE: Duration = Duration::from_millis(10);

/// Whether there is conntrack in this network namespace.
pub fn has_conntrack() -> bool {
    Path::new(LOADED).exists()
}

/// Conntrack.
#[derive(Debug, Default)]
pub struct Conntrack(Option<Questions>);

impl Translations for Conntrack {
    /// # Errors
    /// The thread may not ask (`PermissionDenied`: it needs `CAP_NET_ADMIN`), or there is no conntrack.
    fn ask(&mut self, client: SocketAddr, service: SocketAddr) -> io::Result<Option<SocketAddr>> {
        if self.0.is_none() {
            if !has_conntrack() {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.0 = Some(Questions::with_room(Some(netlink::NETFILTER), ANSWER_BYTES, PATIENCE)?);
        }
        let Some(questions) = &mut self.0 else { return Ok(None) };
        let mut real = None;
        let asked = questions.ask(request(client, service), |message| real = server(message).or(real));
        match asked {
            Ok(()) => Ok(real.filter(|real| *real != service)),
            // It knows no such connection.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => {
                // What comes late would be read as the answer to another question.
                self.0 = None;
                Err(error)
            }
        }
    }
}
