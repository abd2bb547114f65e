//! A socket to the kernel, of the network namespace of the thread that opens it. Knows no protocol.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::SocketAddrNetlink,
    recv, send, socket_with,
    sockopt::{self, Timeout},
};

use super::{Message, Request, error_number, messages};

/// Most bytes of one datagram: the kernel fills at most 32 KiB of a dump (net/netlink/af_netlink.c).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// The kernel answers within the system call, but for the lock that all changes to the network take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one question at a time.
#[derive(Debug)]
pub struct Questions {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Questions {
    /// To a protocol (`NETLINK_*`); none is NETLINK_ROUTE, number 0.
    ///
    /// # Errors
    /// The kernel has no such protocol, or gives no socket.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        Self::with_room(protocol, DATAGRAM_BYTES, PATIENCE)
    }

    /// The same for datagrams of so many bytes, each of which is waited for so long.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_room(protocol: Option<Protocol>, bytes: usize, patience: Duration) -> io::Result<Self> {
        let socket = open(protocol, 0)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; bytes] })
    }

    /// Sends `request` and hands on what answers it. A request that is no dump must ask for an acknowledgement.
    ///
    /// # Errors
    /// The kernel refuses, or a dump is not consistent (`Interrupted`).
    pub fn ask(&mut self, request: Request, mut answer: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &request.finish(self.sequence), SendFlags::empty())?;
        let mut consistent = true;
        loop {
            let (length, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= libc::c_int::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return match error_number(message.body) {
                            0 if consistent => Ok(()),
                            0 => Err(io::ErrorKind::Interrupted.into()),
                            number => Err(io::Error::from_raw_os_error(number)),
                        };
                    }
                    _ => answer(message),
                }
            }
        }
    }
}

/// A socket that also hears news of `groups`.
///
/// # Errors
/// The kernel has no such protocol, or gives no socket.
pub fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}
