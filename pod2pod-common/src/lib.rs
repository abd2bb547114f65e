//! The contract between the kernel side and user space: record layout, map keys, counters, names, limits.
//!
//! Rules of the contract:
//!
//! * Every type is `repr(C)`, has no implicit padding, and its size is asserted at compile time.
//! * Addresses are network-order bytes, IPv4 as IPv4-mapped IPv6 (RFC 4291 2.5.5.2), so map keys compare as memory.
//!   Everything else (ports, sequence numbers, times, lengths) is a native-endian integer: both sides run on one CPU.
//! * A map has one writer. State is written by the kernel only, verdicts by user space only.
//! * [`segment::LAYOUT_VERSION`] is in every record; a reader refuses a version that it does not know.
//!
//! What both sides must agree on to the byte is here too, as pure functions: what first bytes begin ([`heads`]), what
//! the kernel makes of a connection ([`gate`]), and how much of a segment it sends ([`portion`]), with what makes them cheap to
//! verify ([`blur`]). Nothing here reads packets or memory, allocates, or parses HTTP.

#![no_std]

pub mod blur;
pub mod control;
pub mod counters;
pub mod decision;
pub mod flow;
pub mod gate;
pub mod heads;
pub mod limits;
pub mod names;
pub mod portion;
pub mod segment;
pub mod verdict;

#[cfg(feature = "user")]
mod pod;
