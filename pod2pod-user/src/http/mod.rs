//! HTTP: Chunks in, Exchanges out.

pub mod exchange;

pub use exchange::{Exchange, Header, Outcome, Protocol, Request, Response};
