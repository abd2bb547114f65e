//! Filter expressions of pcap-filter(7): compiled and evaluated by libpcap, on packets that stand for a connection.
//!
//! A connection is judged once, so an expression may ask only for what all its packets have in common: addresses, ports,
//! protocol and IP version. [`walk`] refuses what reads more, for it would be silently wrong.

mod library;
mod packet;
mod value;
mod walk;

use std::sync::Arc;

pub use library::{IS_BUILT, Instruction};
pub use walk::{MAX_STATES, Refusal};

use crate::reassembly::{Connection, Side};

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// libpcap does not take it; its own message.
    #[error("{0}")]
    Refused(String),
    /// It asks for more than a connection's packets have in common.
    #[error(
        "it depends on {0}, and a connection is judged once; only addresses, ports, protocol and IP version can be asked for"
    )]
    Unanswerable(#[from] Refusal),
    /// There is no libpcap in this program.
    #[error("this pod2pod was built without pcap expressions; `cargo xtask build` builds one with them")]
    NotBuilt,
}

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    program: Arc<[Instruction]>,
    matches_nothing: bool,
}

impl Expression {
    /// Compiles `text`. Names of hosts and services in it are looked up by libpcap, now and never again.
    ///
    /// # Errors
    /// libpcap refuses it, or it cannot be answered for a connection.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let program = library::compile(text)?;
        let matches_nothing = !walk::may_match(&program)?;
        Ok(Self { program: program.into(), matches_nothing })
    }

    /// Whether no TCP connection can match.
    pub const fn matches_nothing(&self) -> bool {
        self.matches_nothing
    }

    /// Whether a packet of either direction of the connection matches.
    pub fn matches(&self, connection: &Connection) -> bool {
        [Side::Originator, Side::Responder].into_iter().any(|sender| {
            let packet = packet::of(connection.address(sender), connection.address(sender.other()));
            library::matches(&self.program, &packet)
        })
    }
}

#[cfg(pcap)]
#[cfg(test)]
mod tests;
