//! Metrics: HTTP as OpenTelemetry names it, and what every stage counted. Stages count for themselves; this renders.
//!
//! No label has values that an outsider can multiply: methods are the known ones, statuses are bounded, routes and services of IPVS
//! are few; there are no paths, and no addresses but those of such services, of servers and of private networks, and few of these.

pub mod counters;
pub mod http;
pub mod ipvs;
pub mod kubernetes;
pub mod ledger;
pub mod pairs;
pub mod process;
pub mod routes;
pub mod stages;

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
pub use http::HttpMetrics;
pub use ledger::Ledger;
pub use pairs::PairMetrics;
use prometheus::{Encoder as _, Registry, TextEncoder};
pub use stages::{Counted, Kind};

/// Pages that may be on their way to slow readers at once; further readers get the newest of these.
pub const MAX_PAGES: usize = 2;

/// A page may be longer than the last one by this share of it, one of so many, without being copied.
const GROWTH_SHARE: usize = 16;

/// Everything that is rendered.
#[derive(Debug)]
pub struct Metrics {
    /// One for each histogram of HTTP, in the order of their names; then those of pairs.
    registries: Vec<Registry>,
    counted: Mutex<Vec<Counted>>,
    /// The newest is the last.
    pages: Mutex<Vec<Weak<Vec<u8>>>>,
    /// Length of the last page: a buffer that grows is twice as large as what is in it.
    last_length: AtomicUsize,
}

/// A page that somebody reads.
struct Page(Arc<Vec<u8>>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Metrics {
    /// Metrics without any traffic yet, of at most `label_sets` sets of labels.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub fn new(routes: &routes::Config, label_sets: usize) -> Result<(Self, HttpMetrics), prometheus::Error> {
        let (http, registries) = HttpMetrics::register(routes, label_sets)?;
        Ok((
            Self {
                registries,
                counted: Mutex::default(),
                pages: Mutex::default(),
                last_length: AtomicUsize::new(0),
            },
            http,
        ))
    }

    /// Also counts pairs, told apart by this, at most so many. To be called before the first page.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub fn with_pairs(&mut self, by: pairs::By, most: usize) -> Result<PairMetrics, prometheus::Error> {
        let (pairs, registries) = PairMetrics::register(by, most)?;
        self.registries.extend(registries);
        Ok(pairs)
    }

    /// Replaces what the stages counted.
    pub fn publish(&self, counted: Vec<Counted>) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    /// What [`Self::render`] gives, as a page that may take its time to be read: [`MAX_PAGES`] at most are kept.
    pub fn page(&self) -> Bytes {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|page| page.strong_count() > 0);
        let newest = pages.last().filter(|_| pages.len() >= MAX_PAGES).and_then(Weak::upgrade);
        let page = newest.unwrap_or_else(|| {
            let page = Arc::new(self.render());
            pages.push(Arc::downgrade(&page));
            page
        });
        Bytes::from_owner(Page(page))
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let expected = self.last_length.load(Relaxed);
        let mut out = Vec::with_capacity(expected + expected / GROWTH_SHARE);
        for registry in &self.registries {
            // Encoding fails only on a family without metrics, and gathering leaves those out.
            let _ = TextEncoder::new().encode(&registry.gather(), &mut out);
        }
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        stages::render(&mut out, &counted);
        stages::render(&mut out, &process::figures());
        self.last_length.store(out.len(), Relaxed);
        out
    }
}
