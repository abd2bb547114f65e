//! Every limit of reassembly, with its reason. What is done when one bites is said here; [`super::Stats`] counts it.

use std::time::Duration;

use super::{Attempt, ended::Ended, flow::Flow, handshakes::Pending, index::Index, key::FlowKey};

/// Connections at once, as many as the kernel side remembers. One past it: the least recently active is closed as
/// evicted.
pub const DEFAULT_MAX_CONNECTIONS: usize = 65_536;

/// Handshakes at once that nothing has answered. A flood of SYNs costs this much and no connection; one past it: the
/// oldest is forgotten (its connection, if it comes, is joined in the middle).
pub const DEFAULT_MAX_HANDSHAKES: usize = 8_192;

/// Ended connections whose late copies are still recognised. One past it: the one that ended first is forgotten.
pub const DEFAULT_MAX_LINGERING: usize = 16_384;

/// Out-of-order bytes held per direction, bookkeeping included: a few windows of a fast path. One past it: the first
/// hole of the connection becomes a gap.
pub const DEFAULT_MAX_HELD_BYTES: usize = 1 << 20;

/// Out-of-order pieces held per direction: one-byte pieces must not cost a search each. As with the bytes.
pub const DEFAULT_MAX_HELD_PIECES: usize = 1_024;

/// Out-of-order bytes held by all connections, bookkeeping included. One past it: the connection that has waited
/// longest pays.
pub const DEFAULT_MAX_TOTAL_HELD_BYTES: usize = 16 << 20;

/// How long a hole may wait once the receiver has acknowledged it. Captures of several queues are out of order by
/// milliseconds; a retransmission is not to be expected any more.
pub const DEFAULT_ACKNOWLEDGED_HOLE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a hole may wait that nobody acknowledged: a retransmission may take as long as the largest retransmission
/// time-out, 120 s on Linux (net/ipv4/tcp.c, TCP_RTO_MAX); what is held meanwhile is bounded by bytes.
pub const DEFAULT_HOLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a reset seen on a path may be contradicted: a sender that goes on with its stream has not reset it, so the
/// reset was forged, or broken and dropped by its receiver, which checks what a path does not. Until then the end of
/// the connection is not told; its time is the reset's all the same. A socket end needs none of this: the kernel has
/// checked the packet.
pub const RESET_GRACE: Duration = Duration::from_secs(5);

/// How long a SYN may wait for its answer before it is told that none came. Linux sends it again after 1, 3 and 7 s (RFC 6298
/// 2.1 and 5.5), so four copies went unanswered; it goes on until 63 s (net.ipv4.tcp_syn_retries 6) and gives up at 127 s, but
/// programs do much sooner. What is answered after this is told a second time, as late.
pub const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// An attempt that took so long is slow: the first retransmission of a SYN is due after a second (RFC 6298 2.1).
pub const DEFAULT_SLOW_ATTEMPT: Duration = Duration::from_secs(1);

/// How long a SYN is remembered after it was last seen: copies are at most 32 s apart (the sixth of Linux, doubled from 1 s),
/// and a later one must not look like another attempt.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(35);

/// SYNs remembered that were waited for long enough, of those that are waited for: one of so many. One past it: the one that
/// has been there longest is forgotten; if its client tries on, that is told as another attempt.
pub const OVERDUE_SHARE: usize = 8;

/// Attempts that came to their end and wait to be taken; the rest is ended once they were.
pub const MAX_ATTEMPTS_QUEUED: usize = 256;

/// How long an ended connection's late copies are recognised: TIME-WAIT of Linux.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(60);

/// Silence after which a connection is taken for dead: keep-alive probes begin after two hours (RFC 9293 3.8.4), so
/// one that is alive has spoken.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// How much more of a direction is read before the capture is told so: often enough that its credit never runs dry while
/// its records are read, and never for a small exchange. Bytes.
pub const DEFAULT_CREDIT_STEP: u64 = pod2pod_common::limits::CREDIT_STEP_BYTES as u64;

/// Two sightings of one packet on a path (interface and bridge of one host) are at most this far apart. No sender
/// repeats itself so soon: the least retransmission time-out of Linux is 200 ms, a fast one needs a round trip.
pub const SIGHTING_WINDOW: Duration = Duration::from_micros(200);

/// Two sightings of one SYN, of which a queue of the host may lie between: no sender repeats it so soon. RFC 6298 2.1 has it wait
/// for a second, and Linux for 200 ms at least, whatever it is set to (TCP_RTO_MIN).
pub const SYN_SIGHTING_WINDOW: Duration = Duration::from_millis(100);

/// Where a connection is joined on a path, what lies this far before the first segment seen is still taken: captures of
/// several queues have small disorder. bytes.
pub const JOIN_REACH: u32 = 64 << 10;

/// How long it is waited for.
pub const JOIN_GRACE: Duration = Duration::from_millis(50);

/// Largest distance of a sequence or acknowledgement number from the expected one that is believed: the largest
/// window that can be offered (RFC 7323 2.3).
pub const MAX_WINDOW: u32 = 1 << 30;

/// A segment that is this near to where a connection ended belongs to it, not to a new one whose SYN was not seen.
pub const LINGER_REACH: u32 = 4 << 20;

/// Without an answer seen, data this far after a SYN belongs to it: what a sender has in flight at first.
pub const HANDSHAKE_REACH: u32 = 1 << 20;

/// Unanswered SYNs remembered per tuple, so that forged ones do not push out the true one at once.
pub const MAX_HANDSHAKES_PER_TUPLE: usize = 4;

/// What holding a piece costs beside its bytes: its tree entry, of nodes that are half full, and allocation.
pub const PIECE_OVERHEAD: usize = 128;

/// What holding anything of a direction costs beside: the tree's first node is as large for one piece as for eleven.
pub const HELD_OVERHEAD: usize = 768;

/// What a reset costs that waits.
pub const RESET_OVERHEAD: usize = 64;

/// The limits of a [`super::Reassembler`].
#[derive(Clone, Debug)]
pub struct Config {
    /// [`DEFAULT_MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// Tables have room for all they may hold from the start: one that grows is there twice while it does.
    pub reserve: bool,
    /// [`DEFAULT_MAX_HANDSHAKES`].
    pub max_handshakes: usize,
    /// [`DEFAULT_MAX_LINGERING`].
    pub max_lingering: usize,
    /// [`DEFAULT_MAX_HELD_BYTES`].
    pub max_held_bytes: usize,
    /// [`DEFAULT_MAX_HELD_PIECES`].
    pub max_held_pieces: usize,
    /// [`DEFAULT_MAX_TOTAL_HELD_BYTES`].
    pub max_total_held_bytes: usize,
    /// [`DEFAULT_ACKNOWLEDGED_HOLE_TIMEOUT`].
    pub acknowledged_hole_timeout: Duration,
    /// [`DEFAULT_HOLE_TIMEOUT`].
    pub hole_timeout: Duration,
    /// [`DEFAULT_ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// [`DEFAULT_SLOW_ATTEMPT`].
    pub slow_attempt: Duration,
    /// Attempts that were answered at once are told too.
    pub tell_every_attempt: bool,
    /// Ends are seen at network interfaces, not at their sockets: what is received may come by another one.
    pub at_interfaces: bool,
    /// [`DEFAULT_HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// [`DEFAULT_LINGER`].
    pub linger: Duration,
    /// [`DEFAULT_IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// How much more of a direction is read before the capture is told so, bytes; absent where it cannot be told.
    pub credit_step: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            reserve: false,
            max_handshakes: DEFAULT_MAX_HANDSHAKES,
            max_lingering: DEFAULT_MAX_LINGERING,
            max_held_bytes: DEFAULT_MAX_HELD_BYTES,
            max_held_pieces: DEFAULT_MAX_HELD_PIECES,
            max_total_held_bytes: DEFAULT_MAX_TOTAL_HELD_BYTES,
            acknowledged_hole_timeout: DEFAULT_ACKNOWLEDGED_HOLE_TIMEOUT,
            hole_timeout: DEFAULT_HOLE_TIMEOUT,
            attempt_timeout: DEFAULT_ATTEMPT_TIMEOUT,
            slow_attempt: DEFAULT_SLOW_ATTEMPT,
            tell_every_attempt: false,
            at_interfaces: false,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            linger: DEFAULT_LINGER,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            credit_step: None,
        }
    }
}

impl Config {
    /// How long a SYN is remembered once it was waited for long enough.
    pub(super) fn overdue_patience(&self) -> Duration {
        self.handshake_timeout.saturating_sub(self.attempt_timeout)
    }
}

/// Keys of a connection at most: its own, and its child's where scopes are socket cookies.
const KEYS_PER_CONNECTION: u64 = 2;

/// Most bytes of all tables, [`Config::reserve`]d, with so many entries in them; what connections hold apart.
pub fn bytes_of_tables(connections: u64, handshakes: u64, lingering: u64) -> u64 {
    const LINKS: u64 = 16;
    let overdue = handshakes / OVERDUE_SHARE as u64;
    Index::bytes(KEYS_PER_CONNECTION * (connections + lingering))
        + Index::bytes(connections)
        + connections * (size_of::<Flow>() as u64 + LINKS)
        + (handshakes + overdue) * (size_of::<Pending>() as u64 + LINKS)
        + Index::bytes(handshakes)
        + Index::bytes(overdue)
        + MAX_ATTEMPTS_QUEUED as u64 * size_of::<Attempt>() as u64
        + lingering * (size_of::<Ended>() as u64 + size_of::<FlowKey>() as u64 + LINKS)
}

/// Bytes of a hash table for `entries` of `size` bytes: hashbrown has a power of two of buckets, seven eighths full at
/// most, and one byte beside each.
pub const fn table(entries: u64, size: u64) -> u64 {
    (entries * 8 / 7 + 1).next_power_of_two() * (size + 1)
}

/// Room that a table of `entries` is given whose entries come and go: what was removed takes room until the table is made
/// anew, in place if it is half empty, else of twice the size (hashbrown, `reserve_rehash`).
pub const fn churned(entries: usize) -> usize {
    2 * entries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most connections wait for nothing, most of the time.
    #[test]
    fn a_connection_is_small() {
        let sizes = [size_of::<Flow>(), size_of::<Pending>(), size_of::<Ended>()];
        assert!(sizes[0] <= 424 && sizes[1] <= 168 && sizes[2] <= 96, "{sizes:?}");
    }

    /// What the table costs when every limit is reached at once, in bytes: the bound that is promised.
    #[test]
    fn memory_is_bounded() {
        let tables = bytes_of_tables(
            DEFAULT_MAX_CONNECTIONS as u64,
            DEFAULT_MAX_HANDSHAKES as u64,
            DEFAULT_MAX_LINGERING as u64,
        );
        let most = tables + DEFAULT_MAX_TOTAL_HELD_BYTES as u64;
        assert!(most <= 128 << 20, "{most} bytes, {} a connection", size_of::<Flow>());
        const { assert!(DEFAULT_MAX_HELD_BYTES <= DEFAULT_MAX_TOTAL_HELD_BYTES) };
        const { assert!(DEFAULT_MAX_HELD_PIECES * PIECE_OVERHEAD <= DEFAULT_MAX_HELD_BYTES) };
        const { assert!(MAX_HANDSHAKES_PER_TUPLE < DEFAULT_MAX_HANDSHAKES) };
        const { assert!(size_of::<super::super::flow::PendingReset>() + 16 <= RESET_OVERHEAD) };
    }

    #[test]
    fn a_table_is_as_large_as_hashbrown_makes_it() {
        for entries in [1000_u64, 7168, 7169, 100_000] {
            let made: hashbrown::HashMap<u64, u64> = hashbrown::HashMap::with_capacity(entries as usize);
            let real = made.allocation_size() as u64;
            let told = table(entries, 16);
            assert!(real <= told + 64 && told <= 2 * real, "{entries}: {real} {told}");
        }
        assert!(table(KEYS_PER_CONNECTION, 1) >= 2 * KEYS_PER_CONNECTION);
    }

    #[test]
    fn a_table_whose_entries_come_and_go_stays_as_large_as_it_was_made() {
        for entries in [100, 1790, 7168] {
            let mut table = hashbrown::HashMap::<usize, u64>::with_capacity(churned(entries));
            let made = table.allocation_size();
            for number in 0..100 * entries {
                table.remove(&number.wrapping_sub(entries));
                table.insert(number, 0);
            }
            assert_eq!((table.len(), table.allocation_size()), (entries, made));
            assert!(made as u64 <= super::table(churned(entries) as u64, 16) + 64);
        }
    }

    #[test]
    fn what_is_waited_for_longer_is_less_likely_to_be_dead() {
        let times = [
            SIGHTING_WINDOW,
            JOIN_GRACE,
            SYN_SIGHTING_WINDOW,
            DEFAULT_ACKNOWLEDGED_HOLE_TIMEOUT,
            RESET_GRACE,
            DEFAULT_HANDSHAKE_TIMEOUT,
            DEFAULT_LINGER,
            DEFAULT_HOLE_TIMEOUT,
            DEFAULT_IDLE_TIMEOUT,
        ];
        assert!(times.is_sorted());
        const {
            assert!(
                JOIN_REACH < HANDSHAKE_REACH && HANDSHAKE_REACH < LINGER_REACH && LINGER_REACH < MAX_WINDOW
            )
        };
    }
}
