//! Room: how much memory the stage's tables take, and how much of what is not needed is kept for reuse.

use std::cmp::Reverse;

use super::{
    Exchange,
    flow::Flow,
    heads::{BYTES_OF_KNOWN_HEAD, DEFAULT_KNOWN_HEADS},
    resting::{MAX_WARM, State},
    telling::Open,
};
use crate::{
    capture::KernelInstant,
    reassembly::{
        ConnectionToken,
        config::{churned, table},
    },
};

/// Empty queues kept for reuse: one for each connection that is busy at the same time would do no more.
pub(super) const MAX_SPARE_QUEUES: usize = 256;

/// Largest queue that is kept for reuse: what a `VecDeque` of large entries begins with.
pub(super) const SPARE_CAPACITY: usize = 4;

/// Exchanges kept for reuse: mostly no more are open at once.
pub(super) const MAX_SPARE_EXCHANGES: usize = 256;

/// Timers that `connections` may have, stale ones among them.
pub(super) const fn max_timers(connections: usize) -> usize {
    connections + connections / 2 + 1024
}

/// Bytes of a connection that is in the midst of messages, beside what is open of it.
pub const BYTES_OF_BUSY: usize = size_of::<Flow>() + 16;

/// Most bytes of the tables for so many connections, [`Config::reserve`]d; those in the midst of messages take
/// [`BYTES_OF_BUSY`] beside.
pub fn bytes_of_tables(connections: u64) -> u64 {
    let flows = table(churned(connections as usize) as u64, size_of::<(ConnectionToken, State)>() as u64);
    let timer = size_of::<Reverse<(KernelInstant, ConnectionToken)>>();
    let queues = MAX_SPARE_QUEUES * SPARE_CAPACITY * size_of::<Open>();
    let spare = queues + MAX_SPARE_EXCHANGES * size_of::<Exchange>() + 2 * MAX_WARM * BYTES_OF_BUSY;
    let known = DEFAULT_KNOWN_HEADS * BYTES_OF_KNOWN_HEAD;
    flows + (max_timers(connections as usize) * timer + spare + known) as u64
}
