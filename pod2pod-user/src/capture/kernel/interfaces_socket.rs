//! Sockets to the kernel's rtnetlink: questions with their answers, and news of interfaces. Of the network namespace of
//! the thread that opens one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{RecvFlags, recv, sockopt};

use super::{
    interfaces::Interface,
    interfaces_message::{all_links, link, route_interface, way_out},
};
use crate::netlink::{self, Message, Request, messages, open};

/// Most bytes of one datagram: the kernel fills at most 32 KiB of a dump (net/netlink/af_netlink.c).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// News that wait to be read: some thousand interfaces at once. Beyond, everything is asked for again.
const NEWS_BYTES: usize = 1024 * 1024;
/// A list that changed while it was told is asked for again this often at most.
const DUMP_TRIES: u32 = 8;

/// Asks one question at a time.
pub(super) struct Questions(netlink::Questions);

impl Questions {
    pub(super) fn open() -> io::Result<Self> {
        netlink::Questions::open(None).map(Self)
    }

    /// Sends `request` and hands on what answers it. A request that is no dump must ask for an acknowledgement.
    ///
    /// # Errors
    /// The kernel refuses, or a dump is not consistent (`Interrupted`).
    pub(super) fn ask(&mut self, request: Request, answer: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.0.ask(request, answer)
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
        let socket = open(None, libc::RTMGRP_LINK as u32)?;
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
