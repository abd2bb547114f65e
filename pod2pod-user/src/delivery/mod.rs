//! Delivery: encoded batches to targets, at their pace, in bounded memory, without losing any that somebody may still take. Knows
//! no protocol: what is sent and how an answer reads is a [`Target`]'s.
//!
//! A sink has a queue, bounded in bytes, and a thread of its own: one that is down, slow or lying delays no other. Between them
//! `received = delivered + dropped{reason} + in flight` at all times.
//!
//! Retries go on for ever unless limited, each after a random part of a wait that doubles up to half a minute; a server that says when
//! to come back is believed. After some failures in a row the circuit opens and one batch tries for all. What a target will never take is
//! put aside item by item, and the rest goes on.

mod backoff;
mod circuit;
mod concurrency;
pub mod dead;
mod job;
mod latency;
mod parcel;
mod patience;
pub mod queue;
mod runner;
pub mod spool;
mod stats;
mod target;

pub use self::{
    circuit::CircuitState,
    dead::{DeadLetters, DeadStats},
    latency::{BOUNDS as LATENCY_BOUNDS, Latency},
    parcel::Parcel,
    queue::{Batch, Overflow, Queue, Token},
    runner::{Limits, Runner},
    spool::{Loss, SpoolStats},
    stats::SinkStats,
    target::{Answer, Refusal, RefusalKind, Target, Trouble, TroubleKind, Verdict},
};
