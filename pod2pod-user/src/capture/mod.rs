//! Capture: packets in, [`Segment`]s out, from the kernel's ring buffer or from a capture file.
//!
//! Knows packets and their headers; never looks at payload and never keeps a connection.

mod cgroup;
pub mod decode;
pub mod file;
pub mod loader;
mod object;
mod open_error;
pub mod own_sockets;
pub mod packet;
mod preflight;
pub mod segment;

pub use segment::{Direction, KernelInstant, Scope, Segment, TcpFlags};
