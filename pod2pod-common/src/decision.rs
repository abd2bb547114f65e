//! What IPVS decided on a SYN: the record of one decision, what the kernel side reads of IPVS's own structures, and which
//! outcome a record is. Both sides judge by [`outcome`]. Reads nothing.

use core::mem::size_of;

use crate::counters::counters;

/// The look-up found an entry.
pub const SEEN_MET: u16 = 1 << 0;
/// That entry was expired for the SYN.
pub const SEEN_EXPIRED: u16 = 1 << 1;
/// An entry was made.
pub const SEEN_MADE: u16 = 1 << 2;
/// There was no real server to schedule to.
pub const SEEN_NO_SERVER: u16 = 1 << 3;
/// The look-up's end was seen; of a record always so.
pub const SEEN_LOOKED: u16 = 1 << 4;
/// The entry found has a real server that IPVS knows.
pub const SEEN_MET_SERVER: u16 = 1 << 5;
/// The entry made has one.
pub const SEEN_MADE_SERVER: u16 = 1 << 6;
/// The SYN before this one of the same client and service was the same: it is sent again.
pub const SEEN_REPEATED: u16 = 1 << 7;
/// The SYN before this one is remembered; without it [`SEEN_REPEATED`] says nothing.
pub const SEEN_LAST_KNOWN: u16 = 1 << 8;
/// The entry found is controlled by another (a persistent service's template, FTP).
pub const SEEN_CONTROLLED: u16 = 1 << 9;

/// netfilter's verdict that drops a packet, in the bits of [`VERDICT_MASK`] (include/uapi/linux/netfilter.h).
pub const VERDICT_DROP: u32 = 0;
/// netfilter's verdict that lets a packet go on: into this machine, where IPVS wants nothing of it.
pub const VERDICT_ACCEPT: u32 = 1;
/// The verdict itself; what is above is an error number or a queue's.
pub const VERDICT_MASK: u32 = 0xff;

/// The real server takes packets: it was not removed (`IP_VS_DEST_F_AVAILABLE`, `IP_VS_DEST_CF_AVAILABLE`).
pub const SERVER_AVAILABLE: u32 = 1;
/// The entry waits for a client whose port it does not know: a helper (FTP) made it for the connection that is to come
/// (`IP_VS_CONN_F_NO_CPORT`).
pub const ENTRY_AWAITS: u32 = 0x0800;
/// The entry is a template (`IP_VS_CONN_F_TEMPLATE`).
pub const ENTRY_TEMPLATE: u32 = 0x1000;
/// netfilter tracks the entry's connection (`IP_VS_CONN_F_NFCT`).
pub const ENTRY_TRACKED: u32 = 1 << 16;

/// One decision. Written by the kernel side, whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DecisionRecord {
    /// CLOCK_MONOTONIC at the look-up, ns.
    pub time_ns: u64,
    /// Time that a packet gives the entry found, in ticks.
    pub timeout: u64,
    /// Time that it had left, in ticks; past its time two's complement.
    pub left: u64,
    /// Time that the entry that took the SYN, found or made, has left after it, in the same way.
    pub left_after: u64,
    /// The client.
    pub client: [u8; 16],
    /// The virtual address.
    pub service: [u8; 16],
    /// Real server of the entry found.
    pub met_server: [u8; 16],
    /// Real server of the entry made.
    pub made_server: [u8; 16],
    /// Initial sequence number of the SYN.
    pub isn: u32,
    /// Inode of the network namespace.
    pub namespace: u32,
    /// The hook's verdict, as netfilter has it.
    pub verdict: u32,
    /// Flags of the entry found (`IP_VS_CONN_F_*`).
    pub entry_flags: u32,
    /// Weight of the real server of the entry found.
    pub met_weight: i32,
    /// Flags of that server (`IP_VS_DEST_F_*`, `IP_VS_DEST_CF_*`): the lower half, if there are more.
    pub met_flags: u32,
    /// Weight of the real server of the entry made.
    pub made_weight: i32,
    /// The client's port.
    pub client_port: u16,
    /// The virtual port.
    pub service_port: u16,
    /// Port of the real server of the entry found.
    pub met_port: u16,
    /// Port of the real server of the entry made.
    pub made_port: u16,
    /// State of the entry found, before the SYN (`IP_VS_TCP_S_*`).
    pub state: u16,
    /// State of the entry that took the SYN, after it.
    pub state_after: u16,
    /// What was seen, `SEEN_*`.
    pub seen: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<DecisionRecord>() == 144);

/// What became of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Neither entry nor service: none of IPVS's packets.
    NotOurs,
    /// There was no entry, and one was made.
    New,
    /// The entry of an old connection took it.
    Reused,
    /// The entry of an old connection was expired, and the connection scheduled anew.
    Rescheduled,
    /// IPVS dropped it.
    Dropped,
    /// The entry was expired and none made: the packet went to this machine itself.
    PassedOn,
    /// The SYN of the entry's own connection, sent again.
    Repeated,
    /// What was seen contradicts the verdict: the making of an entry was missed.
    Unseen,
}

/// States in which an entry may be that of the SYN's own connection, sent again: none, and those before the connection's end
/// (`IP_VS_TCP_S_NONE`, `ESTABLISHED`, `SYN_SENT`, `SYN_RECV`, `LISTEN`, `SYNACK`; include/net/ip_vs.h).
const STATES_OF_OWN: u16 = 1 << 0 | STATES_OF_HANDSHAKE | 1 << 1;
/// States from which nothing but a SYN or its answer led.
const STATES_OF_HANDSHAKE: u16 = 1 << 2 | 1 << 3 | 1 << 9 | 1 << 10;

/// What became of a SYN, by what was seen of it and the hook's verdict.
#[inline(always)]
pub fn outcome(record: &DecisionRecord) -> Outcome {
    let has = |bit: u16| record.seen & bit != 0;
    let in_one_of = |states: u16| record.state < 16 && states >> record.state & 1 != 0;
    let verdict = record.verdict & VERDICT_MASK;
    if !has(SEEN_LOOKED) {
        // Whether there was an entry is not known.
        Outcome::Unseen
    } else if verdict == VERDICT_DROP {
        Outcome::Dropped
    } else if has(SEEN_MADE) {
        if has(SEEN_MET) { Outcome::Rescheduled } else { Outcome::New }
    } else if (!has(SEEN_MET) || has(SEEN_EXPIRED)) && verdict != VERDICT_ACCEPT {
        // IPVS sent it somewhere (`ip_vs_nat_xmit` and its like give NF_STOLEN), and there was no entry for that.
        Outcome::Unseen
    } else if !has(SEEN_MET) {
        Outcome::NotOurs
    } else if has(SEEN_EXPIRED) {
        Outcome::PassedOn
    } else if record.entry_flags & ENTRY_AWAITS != 0 {
        Outcome::New
    } else if has(SEEN_REPEATED) && in_one_of(STATES_OF_OWN)
        // Of a SYN that is not remembered: rather its own entry than a reuse that was none.
        || !has(SEEN_LAST_KNOWN) && in_one_of(STATES_OF_HANDSHAKE | 1)
    {
        Outcome::Repeated
    } else {
        // A copy of a SYN that was dropped, too: the entry is still in the state of the connection that it is of.
        Outcome::Reused
    }
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $structure:literal, $($path:literal, $size:literal)|+;)+) => {
        /// A field of a kernel structure that the programs read; the discriminant is its index in [`Layout`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Field {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Field {
            /// Every field, in index order.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)+];

            /// Its structure, and the paths to it from there that kernels have, each with the field's size in bytes; the
            /// newest first.
            pub const fn place(self) -> (&'static str, &'static [(&'static str, u32)]) {
                match self {
                    $(Field::$variant => ($structure, &[$(($path, $size)),+]),)+
                }
            }
        }
    };
}

fields! {
    /// First byte of a packet, from the network header on in IPVS's hooks.
    PacketData = "sk_buff", "data", 8;
    /// Bytes of a packet.
    PacketLength = "sk_buff", "len", 4;
    /// Those of them that are not in one piece with its beginning.
    PacketDataLength = "sk_buff", "data_len", 4;
    /// Whether the packet is quoted in an ICMP message.
    HeaderFlags = "ip_vs_iphdr", "hdr_flags", 4;
    /// Offset of the transport header.
    HeaderLength = "ip_vs_iphdr", "len", 4;
    /// Not 0: a fragment without the transport header.
    HeaderFragment = "ip_vs_iphdr", "fragoffs", 2;
    /// Transport protocol.
    HeaderProtocol = "ip_vs_iphdr", "protocol", 2;
    /// Source address.
    HeaderSource = "ip_vs_iphdr", "saddr", 16;
    /// Destination address.
    HeaderDestination = "ip_vs_iphdr", "daddr", 16;
    /// The network namespace of an instance of IPVS.
    InstanceNamespace = "netns_ipvs", "net", 8;
    /// Its inode.
    NamespaceInode = "net", "ns.inum", 4;
    /// The client of an entry.
    EntryClient = "ip_vs_conn", "caddr", 16;
    /// Its port.
    EntryClientPort = "ip_vs_conn", "cport", 2;
    /// The virtual port of an entry.
    EntryServicePort = "ip_vs_conn", "vport", 2;
    /// Real server of an entry.
    EntryServer = "ip_vs_conn", "daddr", 16;
    /// Its port.
    EntryServerPort = "ip_vs_conn", "dport", 2;
    /// Its address family.
    EntryServerFamily = "ip_vs_conn", "daf", 2;
    /// Flags of an entry.
    EntryFlags = "ip_vs_conn", "flags", 4;
    /// State of an entry.
    EntryState = "ip_vs_conn", "state", 2;
    /// Ticks that a packet gives it.
    EntryTimeout = "ip_vs_conn", "timeout", 8;
    /// The tick at which its time is up.
    EntryExpires = "ip_vs_conn", "timer.expires", 8;
    /// The real server as its service has it.
    EntryDestination = "ip_vs_conn", "dest", 8;
    /// The entry that controls it.
    EntryControl = "ip_vs_conn", "control", 8;
    /// Weight of a real server.
    ServerWeight = "ip_vs_dest", "weight.counter", 4;
    /// Flags of a real server, among them whether it is available: kernels of 2026 have those that are changed bit by bit apart.
    ServerFlags = "ip_vs_dest", "cflags", 8 | "flags", 4;
}

/// Fields that the programs read.
pub const FIELDS: usize = Field::ALL.len();

/// Offset of each [`Field`] in its structure, bytes: as this kernel's BTF has it. Set before load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Layout(pub [u32; FIELDS]);

counters! {
    /// A count of decisions; the discriminant is its index in the per-CPU array. SYNs = not ours + new + reused + re-scheduled +
    /// dropped + passed on + repeated + lost + those that a program is at.
    pub enum DecisionCounter, DECISION_COUNTERS, DecisionCounterValues {
        /// SYNs that IPVS looked up, of the network namespace watched.
        Syns = "syns",
        /// SYNs that were none of IPVS's.
        NotOurs = "not_ours",
        /// SYNs for which an entry was made, with no entry before.
        New = "new",
        /// SYNs that the entry of an old connection took.
        Reused = "reused",
        /// SYNs that met the entry of an old connection and were scheduled anew.
        Rescheduled = "rescheduled",
        /// SYNs that IPVS dropped.
        Dropped = "dropped",
        /// SYNs whose entry was expired and that went to this machine itself.
        PassedOn = "passed_on",
        /// SYNs sent again that met the entry of their own connection.
        Repeated = "repeated",
        /// SYNs whose outcome was not seen: a probe was missed, which also shows where what was seen contradicts the verdict, or there was no
        /// room to note one.
        Lost = "lost",
        /// Decisions that were counted and could not be told, because the ring was full.
        RingFull = "ring_full",
        /// TCP packets whose header was not in one piece with their beginning.
        Unreadable = "unreadable",
    }
}

/// SYNs whose way through IPVS is being followed, at most: one for each stack that a packet may be on.
pub const MAX_PENDING: u32 = 4096;
/// Last SYNs that are remembered, to know one that is sent again. A power of two; 8 bytes each.
pub const MAX_LAST_SYNS: u32 = 65_536;
/// Ring of decisions: 1,700 of them, as many as a busy director has in a tenth of a second. Bytes.
pub const DECISION_RING_BYTES: u32 = 256 * 1024;
const _: () = assert!(MAX_LAST_SYNS.is_power_of_two() && DECISION_RING_BYTES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: u32 = VERDICT_ACCEPT;
    const STOLEN: u32 = 2;
    const TIME_WAIT: u16 = 5;
    const SYN_RECV: u16 = 3;

    #[test]
    fn outcomes() {
        for verdict in [ACCEPT, STOLEN, VERDICT_DROP] {
            let record = DecisionRecord { seen: SEEN_MADE, verdict, ..DecisionRecord::default() };
            assert_eq!(outcome(&record), Outcome::Unseen, "nobody saw whether there was an entry");
        }
        for (seen, verdict, expected) in [
            (0, ACCEPT, Outcome::NotOurs),
            (0, STOLEN, Outcome::Unseen),
            (SEEN_MET | SEEN_EXPIRED, STOLEN, Outcome::Unseen),
            (0, VERDICT_DROP, Outcome::Dropped),
            (SEEN_NO_SERVER, VERDICT_DROP, Outcome::Dropped),
            (SEEN_MADE, STOLEN, Outcome::New),
            (SEEN_MADE | SEEN_REPEATED, STOLEN, Outcome::New),
            (SEEN_MADE | SEEN_MET | SEEN_EXPIRED, STOLEN, Outcome::Rescheduled),
            (SEEN_MADE | SEEN_MET, ACCEPT, Outcome::Rescheduled),
            (SEEN_MET, STOLEN, Outcome::Reused),
            (SEEN_MET, ACCEPT, Outcome::Reused),
            (SEEN_MET | SEEN_EXPIRED, ACCEPT, Outcome::PassedOn),
            (SEEN_MET | SEEN_EXPIRED, VERDICT_DROP, Outcome::Dropped),
            (SEEN_MET, VERDICT_DROP, Outcome::Dropped),
            (SEEN_MADE, VERDICT_DROP, Outcome::Dropped),
            // The error number of a drop is above the verdict.
            (SEEN_MET, 113 << 16, Outcome::Dropped),
        ] {
            let seen = seen | SEEN_LOOKED | SEEN_LAST_KNOWN;
            let record = DecisionRecord { seen, verdict, state: TIME_WAIT, ..DecisionRecord::default() };
            assert_eq!(outcome(&record), expected, "{seen:#x} {verdict:#x}");
        }
    }

    #[test]
    fn an_entry_is_a_syns_own_by_its_state_and_by_the_syn_before() {
        let met = |state: u16, seen: u16| {
            let seen = seen | SEEN_LOOKED | SEEN_MET;
            outcome(&DecisionRecord { seen, verdict: STOLEN, state, ..DecisionRecord::default() })
        };
        let again = SEEN_LAST_KNOWN | SEEN_REPEATED;
        // By state: NONE, ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, SYNACK.
        let of_again = [true, true, true, true, false, false, false, false, false, true, true];
        let of_unknown = [true, false, true, true, false, false, false, false, false, true, true];
        for state in 0..11 {
            let name = |own: bool| if own { Outcome::Repeated } else { Outcome::Reused };
            assert_eq!(met(state, again), name(of_again[usize::from(state)]), "{state}, sent again");
            assert_eq!(met(state, 0), name(of_unknown[usize::from(state)]), "{state}, nothing remembered");
            assert_eq!(met(state, SEEN_LAST_KNOWN), Outcome::Reused, "{state}, another SYN");
        }
        assert_eq!(met(u16::MAX, again), Outcome::Reused, "a state that nobody knows");
    }

    #[test]
    fn an_entry_that_awaits_its_client_is_no_old_one() {
        let seen = SEEN_LOOKED | SEEN_MET;
        let state = SYN_RECV;
        let record = DecisionRecord {
            seen,
            verdict: STOLEN,
            state,
            entry_flags: ENTRY_AWAITS,
            ..DecisionRecord::default()
        };
        assert_eq!(outcome(&record), Outcome::New);
        assert_eq!(outcome(&DecisionRecord { verdict: VERDICT_DROP, ..record }), Outcome::Dropped);
    }

    #[test]
    fn fields_have_their_places() {
        for (index, field) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, index);
        }
    }
}
