//! Who talks to whom: exchanges by the workloads of both ends, or by their addresses where there are no workloads. Who they are is
//! known before; what is counted is made visible once a second.
//!
//! Both ends of an exchange may be seen, each at its own socket: `reporter` says whose view a number is of, so that nobody adds the
//! two up. Exchanges of which both views met are counted once, without it. Workloads are as few as their owners make them, and
//! bounded all the same.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use hashbrown::HashMap;
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    core::Collector,
    local::{LocalCounter, LocalHistogram, LocalIntCounter},
};

use super::http::DURATION_BUCKETS;
use crate::record::{Kind, ObservedAt, Party, PartyKind, Record};

/// Pairs that are told apart by all workers; those past it are `_OTHER`. A node with 110 pods, each with four peers at both ends,
/// has fewer.
pub const MAX_PAIRS: usize = 500;
/// The same where there are no workloads: a machine's own services and whom they ask.
pub const MAX_ADDRESS_PAIRS: usize = 50;
/// What a pair costs: 3 KB kept, and 5.2 KB in each of two pages. Bytes.
pub const PAIR_BYTES: u64 = 14 * 1024;
/// Views of a worker that are found by who its ends are, before their names are looked at: parties stay the same for long.
const RECENT: usize = 256;

const LABELS: [&str; 5] =
    ["client_namespace", "client_workload", "server_namespace", "server_workload", "reporter"];
const OTHER: &str = "_OTHER";

/// Namespace and name; of what has none, a word for what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Workload {
    namespace: Arc<str>,
    name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Workload,
    server: Workload,
    reporter: &'static str,
}

/// By what pairs are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The workloads of their ends.
    Workloads,
    /// The addresses of their ends: of clients only those of private networks, for others are as many as they like.
    Addresses,
}

/// An end's view of a pair of addresses; a client without one is outside.
type AddressKey = (Option<IpAddr>, (IpAddr, u16), &'static str);

#[derive(Clone, Debug)]
struct Families {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    joined: IntCounterVec,
    client_time: CounterVec,
    network_time: CounterVec,
}

#[derive(Debug)]
struct Set {
    requests: LocalIntCounter,
    errors: LocalIntCounter,
    duration: LocalHistogram,
    /// Made with the first.
    joined: Option<Joined>,
}

/// Of exchanges of which both views met.
#[derive(Debug)]
struct Joined {
    requests: LocalIntCounter,
    client_time: LocalCounter,
    network_time: LocalCounter,
}

/// Parties of whom it is known where they are counted.
#[derive(Debug)]
struct Recent {
    client: Option<Arc<Party>>,
    server: Option<Arc<Party>>,
    reporter: &'static str,
    place: usize,
}

/// Counts exchanges by the workloads of their ends. Owned by the worker; the registry reads.
#[derive(Debug)]
pub struct PairMetrics {
    families: Families,
    by: By,
    sets: Vec<Set>,
    keys: Vec<Key>,
    places: HashMap<Key, usize>,
    addresses: HashMap<AddressKey, usize>,
    recent: Vec<Option<Recent>>,
    /// Pairs that all workers may still tell apart.
    room: Arc<AtomicUsize>,
    overflowed: u64,
}

impl Families {
    /// With the registries to render, in the order of their names.
    fn register() -> Result<(Self, Vec<Registry>), prometheus::Error> {
        let options = |what: &str, help: &str| Opts::new(format!("pod2pod_workload_{what}"), help);
        let errors =
            "HTTP exchanges between workloads that failed: status 500 and above, timeout, reset or closed.";
        let duration = "Duration of HTTP exchanges between workloads.";
        let duration = HistogramOpts::from(options("request_duration_seconds", duration));
        let joined = "HTTP exchanges between workloads of which both ends were seen on this node, and found to be one.";
        let client_time = "Duration of these at the client.";
        let network_time =
            "Of it, what the duration at the server does not have: time in the network and the stacks.";
        let joint = &LABELS[..4];
        let families = Self {
            errors: IntCounterVec::new(options("errors_total", errors), &LABELS)?,
            client_time: CounterVec::new(options("joined_client_seconds_total", client_time), joint)?,
            network_time: CounterVec::new(options("joined_network_seconds_total", network_time), joint)?,
            joined: IntCounterVec::new(options("joined_requests_total", joined), joint)?,
            duration: HistogramVec::new(duration.buckets(DURATION_BUCKETS.to_vec()), &LABELS)?,
            requests: IntCounterVec::new(
                options("requests_total", "HTTP exchanges between workloads."),
                &LABELS,
            )?,
        };
        let Self { requests, errors, duration, joined, client_time, network_time } = families.clone();
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(errors),
            Box::new(client_time),
            Box::new(network_time),
            Box::new(joined),
            Box::new(duration),
            Box::new(requests),
        ];
        let registries = collectors.into_iter().map(|collector| {
            let registry = Registry::new();
            registry.register(collector).map(|()| registry)
        });
        Ok((families, registries.collect::<Result<_, _>>()?))
    }

    fn set(&self, key: &Key) -> Set {
        let labels = key.labels();
        Set {
            requests: self.requests.with_label_values(&labels).local(),
            errors: self.errors.with_label_values(&labels).local(),
            duration: self.duration.with_label_values(&labels).local(),
            joined: None,
        }
    }

    fn joined(&self, key: &Key) -> Joined {
        let labels = &key.labels()[..4];
        Joined {
            requests: self.joined.with_label_values(labels).local(),
            client_time: self.client_time.with_label_values(labels).local(),
            network_time: self.network_time.with_label_values(labels).local(),
        }
    }
}

impl Key {
    fn labels(&self) -> [&str; 5] {
        let Self { client, server, reporter } = self;
        [&client.namespace, &client.name, &server.namespace, &server.name, reporter]
    }
}

impl PairMetrics {
    /// With the registries to render, in the order of their names. `most` pairs are told apart.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub(super) fn register(by: By, most: usize) -> Result<(Self, Vec<Registry>), prometheus::Error> {
        let (families, registries) = Families::register()?;
        let most = most.min(match by {
            By::Workloads => MAX_PAIRS,
            By::Addresses => MAX_ADDRESS_PAIRS,
        });
        Ok((Self::with(families, by, Arc::new(AtomicUsize::new(most))), registries))
    }

    fn with(families: Families, by: By, room: Arc<AtomicUsize>) -> Self {
        Self {
            families,
            by,
            sets: Vec::new(),
            keys: Vec::new(),
            places: HashMap::new(),
            addresses: HashMap::new(),
            recent: Vec::new(),
            room,
            overflowed: 0,
        }
    }

    /// The same for another worker to count in.
    pub fn for_worker(&self) -> Self {
        Self::with(self.families.clone(), self.by, Arc::clone(&self.room))
    }

    /// Counts `record`, unless it is a progress report, a second telling, or has no request.
    pub fn observe(&mut self, record: &Record) {
        if record.kind != Kind::Http || record.method.is_none() || record.late || record.in_progress {
            return;
        }
        let place = match self.by {
            By::Workloads => self.place(record),
            By::Addresses => self.place_of_addresses(record),
        };
        let Self { families, sets, keys, .. } = self;
        let (Some(set), Some(key)) = (sets.get_mut(place), keys.get(place)) else { return };
        set.requests.inc();
        if record.error_type().is_some() {
            set.errors.inc();
        }
        let duration = record.duration as f64 / 1e9;
        set.duration.observe(duration);
        if let Some(network) = record.network_duration {
            let network = network as f64 / 1e9;
            let joined = set.joined.get_or_insert_with(|| families.joined(key));
            joined.requests.inc();
            joined.network_time.inc_by(network);
            // Told by the second view, whichever that is.
            let is_server = record.observed_at == ObservedAt::Server;
            joined.client_time.inc_by(if is_server { duration + network } else { duration });
        }
    }

    /// Makes what was counted visible to readers.
    pub fn publish(&mut self) {
        for set in &mut self.sets {
            set.requests.flush();
            set.errors.flush();
            set.duration.flush();
            if let Some(joined) = &mut set.joined {
                joined.requests.flush();
                joined.client_time.flush();
                joined.network_time.flush();
            }
        }
    }

    /// Exchanges counted under `_OTHER` because there were too many pairs.
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn place(&mut self, record: &Record) -> usize {
        let reporter = reporter(record);
        let (client, server) = (&record.client_party, &record.server_party);
        let at = slot(client, server, record.observed_at);
        if let Some(Some(recent)) = self.recent.get(at)
            && recent.reporter == reporter
            && is_same(&recent.client, client)
            && is_same(&recent.server, server)
        {
            return recent.place;
        }
        let (client_name, server_name) = (workload(client.as_deref()), workload(server.as_deref()));
        let (place, is_own) = self.place_of(Key { client: client_name, server: server_name, reporter });
        // One that is counted under another's name is to be counted as such each time.
        if is_own {
            self.recent.resize_with(RECENT, || None);
            if let Some(recent) = self.recent.get_mut(at) {
                *recent = Some(Recent { client: client.clone(), server: server.clone(), reporter, place });
            }
        }
        place
    }

    fn place_of_addresses(&mut self, record: &Record) -> usize {
        let reporter = reporter(record);
        let (address, port) = record.server;
        let client = Some(record.client.0).filter(|address| is_private(*address));
        let key = (client, (address, port), reporter);
        if let Some(place) = self.addresses.get(&key) {
            return *place;
        }
        let (place, is_own) = if self.room.load(Relaxed) == 0 {
            self.place_of_others(reporter)
        } else {
            let client = client.map_or_else(|| "outside".to_owned(), |address| address.to_string());
            let server = SocketAddr::new(address, port).to_string();
            self.place_of(Key {
                client: Workload::nowhere(&client),
                server: Workload::nowhere(&server),
                reporter,
            })
        };
        if is_own {
            self.addresses.insert(key, place);
        }
        place
    }

    /// Where `key` is counted, and whether that is its own place, not that of those for whom there was no room.
    fn place_of(&mut self, key: Key) -> (usize, bool) {
        if let Some(place) = self.places.get(&key) {
            return (*place, true);
        }
        if self.room.try_update(Relaxed, Relaxed, |room| room.checked_sub(1)).is_err() {
            return self.place_of_others(key.reporter);
        }
        (self.add(key), true)
    }

    fn place_of_others(&mut self, reporter: &'static str) -> (usize, bool) {
        self.overflowed += 1;
        let is_theirs = |key: &&Key| key.reporter == reporter && &*key.client.name == OTHER;
        // They come last: for nothing else there is room behind them.
        let known = self.keys.iter().rposition(|key| is_theirs(&key));
        let other = || Workload { namespace: OTHER.into(), name: OTHER.into() };
        (known.unwrap_or_else(|| self.add(Key { client: other(), server: other(), reporter })), false)
    }

    fn add(&mut self, key: Key) -> usize {
        self.sets.push(self.families.set(&key));
        self.keys.push(key.clone());
        self.places.insert(key, self.sets.len() - 1);
        self.sets.len() - 1
    }
}

impl Workload {
    fn nowhere(name: &str) -> Self {
        Self { namespace: "".into(), name: name.into() }
    }
}

fn reporter(record: &Record) -> &'static str {
    match record.observed_at {
        ObservedAt::Client => "client",
        ObservedAt::Server => "server",
        ObservedAt::Path => "path",
    }
}

/// Of this machine or of a network of its operator, so that nobody else can choose it.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

fn is_same(one: &Option<Arc<Party>>, other: &Option<Arc<Party>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// The views of both ends have the same parties, and places of their own.
fn slot(client: &Option<Arc<Party>>, server: &Option<Arc<Party>>, view: ObservedAt) -> usize {
    let number =
        |party: &Option<Arc<Party>>| party.as_ref().map_or(0, |party| Arc::as_ptr(party) as usize / 64);
    (number(client).wrapping_mul(31).wrapping_add(number(server)) ^ view as usize) % RECENT
}

fn workload(party: Option<&Party>) -> Workload {
    let Some(party) = party else { return Workload::nowhere("unknown") };
    match (&party.identity.pod, &party.identity.service) {
        (Some(pod), _) => {
            let owner = pod.workload.as_ref().map(|workload| &workload.name);
            Workload { namespace: pod.namespace.clone(), name: owner.unwrap_or(&pod.name).clone() }
        }
        (None, Some(service)) => Workload {
            namespace: service.namespace.clone(),
            name: format!("service/{}", service.name).into(),
        },
        (None, None) => Workload::nowhere(if party.kind == PartyKind::Node { "node" } else { "outside" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::identity::Identity;

    #[test]
    fn each_view_of_a_pair_is_found_at_once() {
        let (mut pairs, _) = PairMetrics::register(By::Workloads, 10).unwrap();
        let party = || Some(Arc::new(Party::new(Identity::default(), false, |_, _| false)));
        let [client, server] = [party(), party()];
        let view = |observed_at| Record {
            method: Some("GET".into()),
            client_party: client.clone(),
            server_party: server.clone(),
            observed_at,
            ..Record::blank()
        };
        let views = [ObservedAt::Client, ObservedAt::Server, ObservedAt::Path];
        for view in views.map(view) {
            pairs.observe(&view);
        }
        for (place, observed_at) in views.into_iter().enumerate() {
            let recent = pairs.recent[slot(&client, &server, observed_at)].as_ref().unwrap();
            assert_eq!((recent.place, recent.reporter), (place, reporter(&view(observed_at))));
        }
    }
}
