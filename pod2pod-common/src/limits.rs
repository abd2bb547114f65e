//! Sizes that both sides rely on, each with its reason.

/// Age of the heartbeat after which the programs return at once: a stopped agent must cost nothing, and a busy one
/// must survive a scheduling pause. ns.
pub const HEARTBEAT_TIMEOUT_NS: u64 = 2_000_000_000;

/// Payload that the kernel sends of a direction ahead of what user space says it has read: a verdict always comes later
/// than the first packets of a body, and one connection must not fill the ring. More than what a small exchange or
/// two of today's receive windows hold, a sixty-fourth of the default ring. Bytes.
pub const CREDIT_BYTES: u32 = 256 * 1024;

/// User space says what it has read when it is this much more: four verdicts a credit, so that it never runs dry while
/// the ring is read. Bytes.
pub const CREDIT_STEP_BYTES: u32 = CREDIT_BYTES / 4;

/// The credit while bodies are shed: the heads of some exchanges in a row, hardly any of a body. Bytes.
pub const SHED_CREDIT_BYTES: u32 = 16 * 1024;

/// As [`CREDIT_STEP_BYTES`], while bodies are shed. Bytes.
pub const SHED_CREDIT_STEP_BYTES: u32 = SHED_CREDIT_BYTES / 4;

/// Payload captured of a segment while headers are shed: what fits a record of 1 KiB, where most heads end. Bytes.
pub const SHED_SEGMENT_BYTES: u32 = 920;

/// How far ahead of a direction's last byte a skip may reach, half of what serial number arithmetic can tell (RFC 1982):
/// the rest of a longer body is skipped by later verdicts. Bytes.
pub const MAX_SKIP_BYTES: u32 = 1 << 30;

/// Rings at most: one for each worker.
pub const MAX_RINGS: u32 = 16;

/// Socket ends remembered by the kernel. 48 bytes of key and 64 of state each, with the kernel's overhead about 10 MiB.
/// The least recently used goes first; an idle connection that went resumes at its next message.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// Verdicts held; one per connection at most.
pub const MAX_VERDICTS: u32 = 65_536;

/// The agent's own sockets that the kernel refuses: sinks and accepted scrapes.
pub const MAX_OWN_SOCKETS: u32 = 4096;

/// Default size of a segment ring, bytes; a power of two and a multiple of the page size.
pub const DEFAULT_RING_BYTES: u32 = 16 * 1024 * 1024;

/// Default of the unread bytes at which a filling ring wakes its reader, at most a quarter of the ring: few wake-ups
/// under load (a wake-up a record would cost the observed server four fifths of its throughput), and the ring never
/// fills unseen between two drains by timer.
pub const DEFAULT_WAKE_THRESHOLD_BYTES: u32 = 1024 * 1024;

/// Client bytes that may overtake the first ones: segments up to here past an undecided beginning are sent undecided.
/// A receiver's first window (RFC 9293 3.8.6) is seldom larger.
pub const MAX_UNDECIDED_BYTES: u32 = 65_536;

/// First payload bytes that the gate looks at.
pub const GATE_BYTES: usize = 16;

/// Pieces that one packet is told in at most: BIG TCP packets reach 512 KiB (net/core/dev.h, GRO_MAX_SIZE).
pub const MAX_PIECES: usize = 9;

/// IPv6 extension headers walked in the kernel; packets with more are counted and left alone.
pub const MAX_EXTENSION_HEADERS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::MAX_RECORD_PAYLOAD;

    /// net/core/dev.h, GRO_MAX_SIZE: 8 times the largest IPv4 packet.
    const BIG_TCP: usize = 8 * 65_535;

    #[test]
    fn the_largest_packet_is_told_whole() {
        const { assert!(MAX_PIECES * MAX_RECORD_PAYLOAD >= BIG_TCP) };
        const { assert!((MAX_PIECES - 1) * MAX_RECORD_PAYLOAD < BIG_TCP, "one piece less would do") };
    }

    #[test]
    fn a_shed_segment_fills_its_record() {
        use crate::segment::{HEADER_LENGTH, LONG_ADDRESSES, SIZE_CLASSES};

        assert_eq!(SHED_SEGMENT_BYTES as usize + HEADER_LENGTH + LONG_ADDRESSES, SIZE_CLASSES[6]);
    }

    #[test]
    fn the_gate_sees_what_it_needs_to_tell_beginnings_apart() {
        assert_eq!(GATE_BYTES, b"PRI * HTTP/2.0\r\n".len());
    }
}
