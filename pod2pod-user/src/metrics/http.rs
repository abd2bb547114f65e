//! HTTP metrics by OpenTelemetry's semantic conventions, as Prometheus names them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use hashbrown::HashMap;
use prometheus::{HistogramOpts, HistogramVec, Registry, local::LocalHistogram};

use super::routes::{self, RouteId, Routes};
use crate::record::{ErrorType, Kind, ObservedAt, Outcome, Record};

/// Buckets of `http.server.request.duration`, s (OpenTelemetry semantic conventions, HTTP metrics).
pub(super) const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets of body sizes, bytes: the conventions name none; powers of four from a small answer to a download.
const SIZE_BUCKETS: &[f64] =
    &[0.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 16_777_216.0, 268_435_456.0];
/// Methods that are labels; others are `_OTHER` (RFC 9110 9, RFC 5789, and QUERY).
const METHODS: &[&str] =
    &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];
const OTHER: &str = "_OTHER";
/// Label sets remembered without routes, and at least, by all workers: the usual methods with the usual statuses, of both
/// ends and versions. Beyond, method, status, error and route are `_OTHER`.
pub const DEFAULT_LABEL_SETS: usize = 200;
/// Label sets with routes, where `limits.memory` has room for so many: a page of them is 18 MB.
pub const MAX_LABEL_SETS: usize = 2000;
/// What a label set costs: 4.7 KB kept, 9.2 KB in each of two pages, and a part of what makes a page. Measured. Bytes.
pub const LABEL_SET_BYTES: u64 = 26 * 1024;
/// The last is there only if routes are wanted.
const LABELS: [&str; 5] = [
    "http_request_method",
    "http_response_status_code",
    "error_type",
    "network_protocol_version",
    "http_route",
];

/// Histograms of one end's view.
#[derive(Clone, Debug)]
struct View {
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
}

/// What one exchange is counted in, without an atomic operation, until [`HttpMetrics::publish`].
#[derive(Debug)]
struct Set {
    duration: LocalHistogram,
    request_size: LocalHistogram,
    response_size: LocalHistogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: bool,
    method: &'static str,
    status: Option<u16>,
    outcome: Option<Outcome>,
    version: &'static str,
    route: Option<RouteId>,
}

/// Counts exchanges. Owned by the worker; the registry reads the histograms.
#[derive(Debug)]
pub struct HttpMetrics {
    server: View,
    client: View,
    sets: Vec<Set>,
    /// Which of `sets` is whose.
    places: HashMap<Key, usize>,
    /// The same for what was counted last at the servers' and at the clients' ends: mostly it is the next one's too.
    last: [Option<(Key, usize)>; 2],
    routes: Routes,
    /// Label sets that all workers may still make.
    room: Arc<AtomicUsize>,
    overflowed: u64,
}

impl HttpMetrics {
    /// With the registries to render, in the order of their names: one for each histogram, so that not all of them are
    /// gathered at once.
    pub(super) fn register(
        routes: &routes::Config,
        label_sets: usize,
    ) -> Result<(Self, Vec<Registry>), prometheus::Error> {
        let labels = if routes.mode == routes::Mode::Off { LABELS.len() - 1 } else { LABELS.len() };
        let mut registries = Vec::new();
        let client = View::register(&mut registries, "client", &LABELS[..labels])?;
        let server = View::register(&mut registries, "server", &LABELS[..labels])?;
        let room = Arc::new(AtomicUsize::new(label_sets.clamp(DEFAULT_LABEL_SETS, MAX_LABEL_SETS)));
        let routes = Routes::new(routes.clone());
        let (sets, places, last) = (Vec::new(), HashMap::new(), [None; 2]);
        Ok((Self { server, client, sets, places, last, routes, room, overflowed: 0 }, registries))
    }

    /// The same histograms for another worker to count in.
    pub fn for_worker(&self) -> Self {
        Self {
            server: self.server.clone(),
            client: self.client.clone(),
            sets: Vec::new(),
            places: HashMap::new(),
            last: [None; 2],
            routes: self.routes.fresh(),
            room: Arc::clone(&self.room),
            overflowed: 0,
        }
    }

    /// Counts `record`, unless it is a progress report, a second telling, or has no request.
    pub fn observe(&mut self, record: &Record) {
        let Some(method) = record.method.as_deref().filter(|_| record.kind == Kind::Http) else { return };
        if record.late || record.in_progress {
            return;
        }
        let key = Key {
            client: record.observed_at == ObservedAt::Client,
            method: METHODS.iter().find(|known| known.as_bytes() == method).copied().unwrap_or(OTHER),
            status: record.status,
            outcome: failure(record),
            version: record.protocol_version.unwrap_or_default(),
            route: self.routes.of(record.path.as_deref()),
        };
        let Some(set) = self.set(key) else { return };
        set.duration.observe(record.duration as f64 / 1e9);
        if let Some(size) = record.request.body_size {
            set.request_size.observe(size as f64);
        }
        if let Some(size) = record.response.body_size {
            set.response_size.observe(size as f64);
        }
    }

    /// Makes what was counted visible to readers.
    pub fn publish(&self) {
        for set in &self.sets {
            set.duration.flush();
            set.request_size.flush();
            set.response_size.flush();
        }
    }

    /// Exchanges counted under `_OTHER` because there were too many label sets.
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// What the finding of routes counted.
    pub const fn route_stats(&self) -> routes::Stats {
        self.routes.stats()
    }

    /// Takes the place of one more label set, if there is one.
    fn take_room(&self) -> bool {
        self.room.try_update(Relaxed, Relaxed, |room| room.checked_sub(1)).is_ok()
    }

    fn set(&mut self, key: Key) -> Option<&Set> {
        let [server, client] = &self.last;
        let place = match if key.client { client } else { server } {
            Some((last, place)) if *last == key => *place,
            _ => self.place(key),
        };
        self.sets.get(place)
    }

    /// Which of the sets is for `key`; made if there is none and room for it.
    fn place(&mut self, key: Key) -> usize {
        if let Some(&place) = self.places.get(&key) {
            let [server, client] = &mut self.last;
            *(if key.client { client } else { server }) = Some((key, place));
            return place;
        }
        let is_full = !self.take_room();
        self.overflowed += u64::from(is_full);
        let rest = Key { method: OTHER, status: Some(0), outcome: None, route: None, ..key };
        let Self { server, client, sets, places, routes, .. } = self;
        let view = if key.client { client } else { server };
        *places.entry(if is_full { rest } else { key }).or_insert_with(|| {
            let route = key.route.map(|route| if is_full { OTHER } else { routes.name(route) });
            let status = key.status.map_or_else(String::new, |status| status.to_string());
            let error = match (key.status.filter(|status| (500..=599).contains(status)), key.outcome) {
                (Some(_), _) => status.clone(),
                (None, Some(outcome)) => outcome.as_str().to_owned(),
                (None, None) => String::new(),
            };
            let labels = [key.method, &status, &error, key.version];
            sets.push(view.set(if is_full { [OTHER, OTHER, OTHER, key.version] } else { labels }, route));
            sets.len() - 1
        })
    }
}

impl View {
    fn register(
        registries: &mut Vec<Registry>,
        end: &str,
        labels: &[&str],
    ) -> Result<Self, prometheus::Error> {
        let mut histogram = |what: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(format!("http_{end}_{what}"), help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            let registry = Registry::new();
            registry.register(Box::new(histogram.clone()))?;
            registries.push(registry);
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            request_size: histogram("request_body_size_bytes", "Size of HTTP request bodies.", SIZE_BUCKETS)?,
            duration: histogram("request_duration_seconds", "Duration of HTTP exchanges.", DURATION_BUCKETS)?,
            response_size: histogram(
                "response_body_size_bytes",
                "Size of HTTP response bodies.",
                SIZE_BUCKETS,
            )?,
        })
    }

    fn set(&self, labels: [&str; 4], route: Option<&str>) -> Set {
        let labels: Vec<&str> = labels.into_iter().chain(route).collect();
        Set {
            duration: self.duration.with_label_values(&labels).local(),
            request_size: self.request_size.with_label_values(&labels).local(),
            response_size: self.response_size.with_label_values(&labels).local(),
        }
    }
}

fn failure(record: &Record) -> Option<Outcome> {
    match record.error_type()? {
        ErrorType::Status(_) => None,
        ErrorType::Outcome(outcome) => Some(outcome),
    }
}
