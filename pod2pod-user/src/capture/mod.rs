//! Capture: packets in, [`Segment`]s out, from the kernel's ring buffer or from a capture file.
//!
//! Knows packets and their headers; never looks at payload and never keeps a connection.

pub mod decode;
pub mod file;
pub mod kernel;
pub mod packet;
pub mod segment;

pub use segment::{Direction, KernelInstant, Scope, Segment, TcpFlags, Unreachable};
