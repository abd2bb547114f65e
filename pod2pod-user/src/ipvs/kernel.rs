//! What the kernel was told to do with a SYN that meets an old entry, how long entries live, and which kernel it is. Reads nothing.

use super::state::State;

/// Settings below `net.ipv4.vs`; absent is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: Option<String>,
    /// 0: never expire an old entry for a SYN.
    pub conn_reuse_mode: Option<u32>,
    /// Not 0: expire entries of a real server that is gone, and (Linux 5.16) of one with weight 0.
    pub expire_nodest_conn: Option<u32>,
    /// Not 0: netfilter's connection tracking is used.
    pub conntrack: Option<u32>,
    /// Not 0: entries are made by packets that are no SYN, too.
    pub sloppy_tcp: Option<u32>,
    /// Those that can be set.
    pub timeouts: Timeouts,
}

/// Seconds that a packet gives an entry, of the states for which `ipvsadm --set` changes it; absent is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// ESTABLISHED.
    pub tcp: Option<u32>,
    /// FIN_WAIT.
    pub tcp_fin: Option<u32>,
    /// UDP.
    pub udp: Option<u32>,
}

impl Timeouts {
    /// Seconds that a packet gives an entry in `state`: as it was set, if that is known, or the kernel's own.
    pub fn of(self, state: State) -> Option<u32> {
        self.set(state).flatten().or(state.timeout())
    }

    /// The same, but absent if it might have been set otherwise.
    pub(super) fn known(self, state: State) -> Option<u32> {
        self.set(state).unwrap_or(state.timeout())
    }

    /// Absent of a state whose time-out cannot be set.
    const fn set(self, state: State) -> Option<Option<u32>> {
        if matches!(state, State::Established) {
            Some(self.tcp)
        } else if matches!(state, State::FinWait) {
            Some(self.tcp_fin)
        } else if matches!(state, State::Udp) {
            Some(self.udp)
        } else {
            None
        }
    }
}

/// A setting: its name, and where it is put.
pub type Setting = (&'static str, fn(&mut Kernel) -> &mut Option<u32>);

impl Kernel {
    /// The settings, by the names of their files below `/proc/sys/net/ipv4/vs`.
    pub const SETTINGS: [Setting; 4] = [
        ("conn_reuse_mode", |kernel| &mut kernel.conn_reuse_mode),
        ("expire_nodest_conn", |kernel| &mut kernel.expire_nodest_conn),
        ("conntrack", |kernel| &mut kernel.conntrack),
        ("sloppy_tcp", |kernel| &mut kernel.sloppy_tcp),
    ];

    /// Major and minor number of the release.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_deref()?.split(|byte: char| !byte.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// Whether the release is older than `version`; distributions port changes back, so this is what to expect, not a proof.
    pub(super) fn is_older(&self, version: (u32, u32)) -> Option<bool> {
        self.version().map(|own| own < version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_as_set_or_the_kernels_own() {
        let set = Timeouts { tcp: Some(20), ..Timeouts::default() };
        for (state, of, known) in [
            (State::Established, Some(20), Some(20)),
            (State::FinWait, Some(120), None),
            (State::Udp, Some(300), None),
            (State::TimeWait, Some(120), Some(120)),
            (State::Assured, None, None),
        ] {
            assert_eq!((set.of(state), set.known(state)), (of, known), "{state:?}");
        }
    }

    #[test]
    fn versions() {
        for (release, version) in [
            ("6.1.0-56-cloud-amd64", Some((6, 1))),
            ("5.10.0", Some((5, 10))),
            ("7.2-rc1", Some((7, 2))),
            ("linux", None),
            ("6", None),
        ] {
            let kernel = Kernel { release: Some(release.to_owned()), ..Kernel::default() };
            assert_eq!(kernel.version(), version, "{release}");
        }
        let kernel = Kernel { release: Some("5.8.1".to_owned()), ..Kernel::default() };
        assert_eq!((kernel.is_older((5, 9)), kernel.is_older((5, 8))), (Some(true), Some(false)));
    }
}
