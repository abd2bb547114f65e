//! Reassembly: Segments in, Chunks out: in-order bytes of one direction, each byte once, or a Gap.
//!
//! * Bytes that come in order are borrowed from where the segment lies, not copied: so Chunks are handed to a callback
//!   while the segment is there, and not queued for a `pop`. Only what comes before its turn is stored.
//! * Of several copies of a byte the first wins, whatever became of the others.
//! * A SYN opens nothing until it is answered; a RST ends a connection only where its sender's stream stands.
//! * What became of a SYN that opened nothing, or was answered late, is told as an Attempt: queued for
//!   [`Reassembler::pop_attempt`], since it borrows nothing.
//!   On a path a RST is void if its sender goes on all the same: its receiver checks what a path does not.
//! * Where a connection is joined on a path, what was captured in disorder before its first segment is still taken.
//! * Delivery is causal: what a segment acknowledged goes out before the segment's own bytes.
//! * A hole is a Gap once the receiver acknowledged it and it did not come shortly after, once it is old, once a limit
//!   is hit, once our capture says that it lost something, or at the end of the connection. Nothing is dropped for it.
//! * Where the capture leaves out what nobody wants, what comes next shows how much that was: a cut, told at once.
//!
//! Memory is bounded by [`Config`]: what is done at each limit is said beside its default, and [`Stats`] counts it.
//! Knows nothing of what the bytes mean, and no clock: the caller's `now` decides what is old.

mod accept;
mod aged;
mod attempts;
mod ended;
mod flow;
mod half;
mod handshakes;
mod index;
mod key;
mod opening;
mod reassembler;
mod stats;
mod steering;

pub mod attempt;
pub mod chunk;
pub mod config;

pub use attempt::{Attempt, Fate};
pub use chunk::{Chunk, CloseCause, Connection, ConnectionToken, Content, GapCause, Side, Start};
pub use config::Config;
pub use reassembler::Reassembler;
pub use stats::Stats;
pub use steering::{Activity, Course, SKIP_LOOK, SKIP_SILENCE, Steering, Wanted};
