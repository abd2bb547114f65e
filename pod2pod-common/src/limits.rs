//! Sizes that both sides rely on, each with its reason.

/// Age of the heartbeat after which the programs return at once: a stopped agent must cost nothing, and a busy one
/// must survive a scheduling pause. ns.
pub const HEARTBEAT_TIMEOUT_NS: u64 = 2_000_000_000;

/// Socket ends remembered by the kernel. 72 bytes each plus kernel overhead: about 8 MiB when full.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// Verdicts held; one per connection at most.
pub const MAX_VERDICTS: u32 = 65_536;

/// The agent's own sockets that the kernel refuses: sinks and accepted scrapes.
pub const MAX_OWN_SOCKETS: u32 = 4096;

/// Default size of a segment ring, bytes; a power of two and a multiple of the page size.
pub const DEFAULT_RING_BYTES: u32 = 16 * 1024 * 1024;

/// First payload bytes that the gate looks at.
pub const GATE_BYTES: usize = 16;

/// Pieces that one packet is told in at most: BIG TCP packets reach 512 KiB (net/core/dev.h, GRO_MAX_SIZE).
pub const MAX_PIECES: usize = 9;

/// IPv6 extension headers walked in the kernel; packets with more are counted and left alone.
pub const MAX_EXTENSION_HEADERS: usize = 6;

/// Rings in use. Records of one connection are in one ring, so their order is its order.
pub const RINGS: u32 = 1;

/// Unread ring bytes from which the reader is woken instead of waiting for its timer: early enough that a burst at
/// 1 GB/s leaves it 15 ms in a ring of the default size. Bytes.
pub const DEFAULT_WAKE_THRESHOLD: u64 = 1024 * 1024;

/// Bytes after the client's initial sequence number in which a segment that overtook the first one is sent although
/// the gate has not seen the first: an initial window is at most ten segments (RFC 6928 2), GRO joins them.
pub const OVERTAKING_WINDOW: u32 = 65_536;
