//! Sockets to the kernel's rtnetlink: questions with their answers, and news of interfaces. Of the network namespace of
//! the thread that opens one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::SocketAddrNetlink,
    recv, send, socket_with,
    sockopt::{self, Timeout},
};

use super::{
    interfaces::Interface,
    interfaces_message::{
        Message, Request, all_links, error_number, link, messages, route_interface, way_out,
    },
};

/// Most bytes of one datagram: the kernel fills at most 32 KiB of a dump (net/netlink/af_netlink.c).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// The kernel answers within the system call, but for the lock that all changes to the network take.
const PATIENCE: Duration = Duration::from_secs(10);
/// News that wait to be read: some thousand interfaces at once. Beyond, everything is asked for again.
const NEWS_BYTES: usize = 1024 * 1024;
/// A list that changed while it was told is asked for again this often at most.
const DUMP_TRIES: u32 = 8;

/// Asks one question at a time.
pub(super) struct Questions {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Questions {
    pub(super) fn open() -> io::Result<Self> {
        let socket = open(0)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// Sends `request` and hands on what answers it. A request that is no dump must ask for an acknowledgement.
    ///
    /// # Errors
    /// The kernel refuses, or a dump is not consistent (`Interrupted`).
    pub(super) fn ask(&mut self, request: Request, mut answer: impl FnMut(Message<'_>)) -> io::Result<()> {
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

    /// Every interface, with who is an uplink.
    pub(super) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut tries = 0;
        let mut found = loop {
            let mut found = Vec::new();
            match self.ask(all_links(), |message| found.extend(link(message.body))) {
                Ok(()) => break found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < DUMP_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        };
        let uplinks = self.uplinks();
        for interface in &mut found {
            interface.uplink = uplinks.contains(&Some(interface.index));
        }
        Ok(found)
    }

    /// Interfaces of the default routes of both IP versions.
    pub(super) fn uplinks(&mut self) -> [Option<u32>; 2] {
        [libc::AF_INET, libc::AF_INET6].map(|family| {
            let mut through = None;
            // Refused where there is no route.
            let _ = self.ask(way_out(family), |message| through = through.or(route_interface(message.body)));
            through
        })
    }
}

/// What became of interfaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is there, new or changed.
    There(Interface),
    /// It is gone from this network namespace.
    Gone(Interface),
}

/// Hears of interfaces as they come and go.
pub(super) struct NewsSocket {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl NewsSocket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = open(libc::RTMGRP_LINK as u32)?;
        // Beyond what the system allows by default only with CAP_NET_ADMIN, which attaching needs too.
        let forced = sockopt::set_socket_recv_buffer_size_force(&socket, NEWS_BYTES);
        forced.or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, NEWS_BYTES))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// What has come; never waits. False if news were lost: everything has to be asked for again.
    pub(super) fn read(&mut self, mut hear: impl FnMut(News)) -> bool {
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                        let Some(interface) = link(message.body) else { continue };
                        match message.kind {
                            libc::RTM_NEWLINK => hear(News::There(interface)),
                            libc::RTM_DELLINK => hear(News::Gone(interface)),
                            _ => {}
                        }
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for NewsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    // No protocol is NETLINK_ROUTE, number 0 (linux/netlink.h).
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found() {
        let found = Questions::open().unwrap().interfaces().unwrap();
        let loopback = found.iter().find(|interface| interface.hardware == libc::ARPHRD_LOOPBACK).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.index), ("lo", 1));
    }

    #[test]
    fn without_news_nothing_is_heard() {
        let mut heard = Vec::new();
        assert!(NewsSocket::open().unwrap().read(|news| heard.push(news)));
        assert_eq!(heard, []);
    }
}
