//! Reassembly: Segments in, Chunks out: in-order bytes of one direction, each byte once, or a Gap.

pub mod chunk;

pub use chunk::{Chunk, CloseCause, Connection, ConnectionToken, Content, GapCause, Side, Start};
