//! Metrics: HTTP as OpenTelemetry names it, and what every stage counted. Stages count for themselves; this renders.
//!
//! No label has values that an outsider can multiply: methods are the known ones, statuses are bounded, routes are few;
//! there are no paths and no addresses.

pub mod counters;
pub mod http;
pub mod ledger;
pub mod process;
pub mod routes;
pub mod stages;

use std::sync::{Mutex, PoisonError};

pub use http::HttpMetrics;
pub use ledger::Ledger;
use prometheus::{Encoder as _, Registry, TextEncoder};
pub use stages::{Counted, Kind};

/// Everything that is rendered.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    counted: Mutex<Vec<Counted>>,
}

impl Metrics {
    /// Metrics without any traffic yet.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub fn new(routes: &routes::Config) -> Result<(Self, HttpMetrics), prometheus::Error> {
        let registry = Registry::new();
        let http = HttpMetrics::register(&registry, routes)?;
        Ok((Self { registry, counted: Mutex::default() }, http))
    }

    /// Replaces what the stages counted.
    pub fn publish(&self, counted: Vec<Counted>) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Encoding fails only on a family without metrics, and gathering leaves those out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        stages::render(&mut out, &counted);
        stages::render(&mut out, &process::figures());
        out
    }
}
