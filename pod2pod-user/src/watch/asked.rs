//! The kernel asked about IPVS over netlink: what it does not write into files, or not all of it. Changes nothing, and needs
//! CAP_NET_ADMIN; without it nothing is known by this way.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::net::netlink;

use crate::{
    ipvs::{kernel::Timeouts, netlink as ipvs, services::Services},
    netlink::Questions,
};

/// The network namespace of this thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// A list of services that changed while it was told is asked for again this often at most.
const DUMP_TRIES: u32 = 3;

/// The kernel, and the number by which it knows IPVS.
#[derive(Debug)]
pub(super) struct Asked {
    questions: Questions,
    family: u16,
}

impl Asked {
    /// Of the table at `path`: only that of the own network namespace can be asked about, and only if it is there: the kernel
    /// loads IPVS for who asks about it (`MODULE_ALIAS_GENL_FAMILY`, net/netfilter/ipvs/ip_vs_ctl.c).
    pub(super) fn about(path: &Path) -> Option<Self> {
        if !is_own(path) || fs::metadata(path).is_err() {
            return None;
        }
        let mut questions = Questions::open(Some(netlink::GENERIC)).ok()?;
        let mut family = None;
        let asked = questions.ask(ipvs::family_request(), |message| family = ipvs::family(message.body));
        asked.ok().and(family).map(|family| Self { questions, family })
    }

    /// The time-outs that were set.
    pub(super) fn timeouts(&mut self) -> io::Result<Timeouts> {
        let mut timeouts = Timeouts::default();
        self.questions
            .ask(ipvs::timeouts_request(self.family), |message| timeouts = ipvs::timeouts(message.body))?;
        Ok(timeouts)
    }

    /// Adds the services that the file left out, with their real servers.
    pub(super) fn complete(&mut self, services: &mut Services) -> io::Result<()> {
        let Self { questions, family } = self;
        let mut missing = Vec::new();
        let mut tries = 0;
        loop {
            missing.clear();
            let told = questions.ask(ipvs::services_request(*family), |message| {
                // One more than there is room for: it is counted.
                if missing.len() <= services.room() {
                    missing.extend(ipvs::service(message.body).filter(|told| !services.has(&told.matches)));
                }
            });
            match told {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < DUMP_TRIES => tries += 1,
                // A list with holes is better than none: what it has is so.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => break,
            }
        }
        for service in missing {
            let mut servers = Vec::new();
            let told = questions.ask(ipvs::servers_request(*family, &service), |message| {
                servers.extend(ipvs::server(message.body, &service));
            });
            // It may have been removed since.
            if told.is_ok() {
                services.add(service.matches, service.scheduler, service.flags, servers);
            }
        }
        Ok(())
    }
}

/// Whether `path` is a file of `/proc/…/net` of the own network namespace.
fn is_own(path: &Path) -> bool {
    let own = || {
        // `/proc/net` is a link to that of a process.
        let net = fs::canonicalize(path.parent()?).ok()?;
        let theirs = fs::metadata(net.parent()?.join("ns/net")).ok()?;
        let own = fs::metadata(OWN_NAMESPACE).ok()?;
        Some((own.dev(), own.ino()) == (theirs.dev(), theirs.ino()))
    };
    own().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_table_nobody_is_asked() {
        let path = Path::new("/proc/self/net/ip_vs_of_no_kernel");
        assert!(is_own(path) && Asked::about(path).is_none());
    }

    #[test]
    fn only_tables_of_the_own_namespace_are_asked_about() {
        for (path, expected) in [
            ("/proc/net/ip_vs_conn", true),
            ("/proc/self/net/ip_vs_conn", true),
            ("/proc/thread-self/net/ip_vs_conn", true),
            ("/tmp/ip_vs_conn", false),
            ("ip_vs_conn", false),
            ("/", false),
        ] {
            assert_eq!(is_own(Path::new(path)), expected, "{path}");
        }
    }
}
