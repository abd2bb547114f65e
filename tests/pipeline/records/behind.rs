//! The pod behind a Service's address in the record of its client: who knows it, who is asked when, and what the record says.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use pod2pod_user::{
    behind::{self, Behind, Shared, Translations},
    capture::KernelInstant,
    enrich::{
        Fate,
        naming::{Socket, Who},
    },
    kubernetes::{
        addresses::Found,
        cgroup::PodUid,
        identity::{Identity, Pod, Service},
    },
    metrics::{
        Metrics,
        http::DEFAULT_LABEL_SETS,
        pairs::{By, MAX_PAIRS},
        routes,
    },
    named::{Config, Names},
    reassembly::{Connection, Side},
    record::{Extra, ObservedAt, Record},
};
use serde_json::Value;

use super::{START, address, connection, line, record, with};

const CLIENT: &str = "10.244.1.2:40001";
const SERVICE: &str = "10.96.0.10:80";
/// The pods behind it: of the Service that is called, of none, and nobody's address.
const CART: &str = "10.244.2.3:8080";
const OTHER: &str = "10.244.2.4:8080";
const NOBODY: &str = "10.244.2.5:8080";

fn instant(milliseconds: u64) -> KernelInstant {
    KernelInstant::from_nanos(START + milliseconds * 1_000_000)
}

/// Knows the addresses above; those of pods not before a moment, and the Service for certain not before another.
#[derive(Clone, Default)]
struct Fake {
    known: Duration,
    certain: Duration,
}

fn pod(name: &str, service: Option<&str>) -> Identity {
    let pod = Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: PodUid::parse("0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa").unwrap(),
        node: None,
        zone: None,
        workload: None,
        labels: Box::default(),
        annotations: Box::default(),
    };
    Identity { pod: Some(Arc::new(pod)), service: service.map(of_service), ..Identity::default() }
}

fn of_service(name: &str) -> Arc<Service> {
    Arc::new(Service { namespace: "shop".into(), name: name.into() })
}

impl Who for Fake {
    fn version(&self) -> u64 {
        0
    }

    fn socket(&mut self, cgroup_id: u64, _called: Option<SocketAddr>, _now: Duration) -> Socket {
        Socket::Of(Box::new(if cgroup_id == 1 { pod("web-1", None) } else { pod("cart-1", Some("cart")) }))
    }

    fn address(&mut self, asked: SocketAddr, _at: Duration, now: Duration) -> Found<Identity> {
        if asked == address(SERVICE) {
            let service = Identity { service: Some(of_service("cart")), ..Identity::default() };
            let is_certain = now >= self.certain;
            return if is_certain { Found::Held(service) } else { Found::Early(self.certain, Some(service)) };
        }
        let found = match asked {
            _ if asked == address(CART) => pod("cart-1", Some("cart")),
            _ if asked == address(OTHER) => pod("other-1", None),
            _ if asked.ip() == address(CLIENT).ip() => return Found::Held(pod("web-1", None)),
            _ => return Found::Nobody,
        };
        if now < self.known { Found::Early(self.known, None) } else { Found::Held(found) }
    }

    fn is_outside(&self, _address: IpAddr) -> bool {
        false
    }

    fn shows(&self, _what: Extra, _key: &str) -> bool {
        false
    }
}

/// Leads all connections there, and counts who asked.
#[derive(Clone, Default)]
struct Leads(Arc<Mutex<Led>>);

/// To where, and who asked about which connection.
type Led = (Option<SocketAddr>, Vec<(SocketAddr, SocketAddr)>);

impl Leads {
    fn to(server: &str) -> Self {
        let leads = Self::default();
        leads.0.lock().unwrap().0 = Some(address(server));
        leads
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

impl Translations for Leads {
    fn ask(&mut self, client: SocketAddr, service: SocketAddr) -> io::Result<Option<SocketAddr>> {
        let (server, asked) = &mut *self.0.lock().unwrap();
        asked.push((client, service));
        Ok(*server)
    }
}

struct Worker(Names);

impl Worker {
    fn new(shared: &Arc<Shared>, known: u64, leads: &Leads) -> Self {
        let who = Fake { known: Duration::from_nanos(instant(known).as_nanos()), ..Fake::default() };
        Self::asking(who, shared, leads)
    }

    fn asking(who: Fake, shared: &Arc<Shared>, leads: &Leads) -> Self {
        let mut names = Names::new(Config::default(), Box::new(who));
        names.look_behind(Behind::new(Arc::clone(shared), 1, Box::new(leads.clone())));
        Self(names)
    }

    /// What the server of the exchange's record is called, and what is asked of it; absent if it waits.
    fn name(&mut self, seen: &Seen, now: u64) -> Option<String> {
        let mut record = seen.record.clone();
        let fate =
            self.0.name(&mut record, (&seen.connection, seen.client), Fate::Keep, instant(0), instant(now));
        fate.map(|_| server(&record))
    }

    fn pop(&mut self, now: u64) -> Vec<String> {
        let mut told = Vec::new();
        self.0.pop(instant(now), false, &mut |record, _, _| told.push(server(record)));
        told
    }

    fn stats(&self) -> behind::Stats {
        self.0.behind_stats()
    }
}

fn server(record: &Record) -> String {
    let line: Value = serde_json::from_str(&line(record)).unwrap();
    let word = |key: &str| line[format!("server.k8s.{key}")].as_str().unwrap_or("-").to_owned();
    ["kind", "pod.name", "service.name"].map(word).join(" ")
}

/// A record, with the connection that it is of.
struct Seen {
    record: Record,
    connection: Connection,
    client: Side,
}

/// The exchange that came as `index`-th, as an end of the connection to `to` saw it.
fn seen(at: ObservedAt, to: &str, index: u32) -> Seen {
    let local = match at {
        ObservedAt::Client => Some(Side::Originator),
        ObservedAt::Server => Some(Side::Responder),
        ObservedAt::Path => None,
    };
    let cgroup_id = match at {
        ObservedAt::Client => 1,
        ObservedAt::Server => 2,
        ObservedAt::Path => 0,
    };
    let connection =
        Connection { originator: address(CLIENT), responder: address(to), local, cgroup_id, ..connection() };
    let record = record(with(|exchange| {
        exchange.connection = connection;
        exchange.index = Some(index);
    }));
    Seen { record, connection, client: Side::Originator }
}

const BARE: &str = "service - cart";
const FOUND: &str = "pod cart-1 cart";

#[test]
fn the_clients_record_has_the_pod_and_the_service_that_was_called() {
    for (server, expected) in [(CART, FOUND), (OTHER, "pod other-1 cart"), (NOBODY, BARE)] {
        for at in [ObservedAt::Client, ObservedAt::Path] {
            let leads = Leads::to(server);
            let mut worker = Worker::new(&Arc::new(Shared::new(false)), 0, &leads);
            for index in 0..3 {
                assert_eq!(
                    worker.name(&seen(at, SERVICE, index), 2).as_deref(),
                    Some(expected),
                    "{server} {at:?}"
                );
            }
            assert_eq!(
                *leads.0.lock().unwrap().1,
                [(address(CLIENT), address(SERVICE))],
                "once a connection"
            );
            assert_eq!(worker.stats().found_by_conntrack, 1);
        }
    }
    // Nobody knows.
    let leads = Leads::default();
    let mut worker = Worker::new(&Arc::new(Shared::new(false)), 0, &leads);
    assert_eq!(worker.name(&seen(ObservedAt::Client, SERVICE, 0), 2).as_deref(), Some(BARE));
    assert_eq!((worker.stats().unknown, leads.asked()), (1, 1));
}

#[test]
fn what_is_no_services_is_not_asked_about() {
    let leads = Leads::to(CART);
    let mut worker = Worker::new(&Arc::new(Shared::new(false)), 0, &leads);
    for (at, to, expected) in [
        (ObservedAt::Client, CART, FOUND),
        (ObservedAt::Path, OTHER, "pod other-1 -"),
        (ObservedAt::Client, NOBODY, "- - -"),
        // Whoever listens at a Service's address itself.
        (ObservedAt::Server, SERVICE, FOUND),
        (ObservedAt::Server, CART, FOUND),
    ] {
        assert_eq!(worker.name(&seen(at, to, 0), 2).as_deref(), Some(expected), "{at:?} {to}");
    }
    assert_eq!((leads.asked(), worker.stats()), (0, behind::Stats::default()));
}

#[test]
fn the_servers_own_end_tells_it_to_the_client_of_any_worker() {
    let shared = Arc::new(Shared::new(false));
    let leads = Leads::default();
    let [mut one, mut other] = [(); 2].map(|()| Worker::new(&shared, 0, &leads));
    // It is of the first exchange of its connection that the server tells.
    one.name(&seen(ObservedAt::Server, CART, 1), 2);
    assert_eq!(other.name(&seen(ObservedAt::Client, SERVICE, 0), 2).as_deref(), Some(BARE));
    one.name(&seen(ObservedAt::Server, CART, 0), 2);
    assert_eq!(other.name(&seen(ObservedAt::Client, SERVICE, 1), 2).as_deref(), Some(FOUND));
    assert_eq!((other.stats().found_by_connection, leads.asked()), (1, 1));
    // Another connection.
    let mut third = seen(ObservedAt::Client, SERVICE, 0);
    third.record.connection_id += 1;
    assert_eq!(other.name(&third, 2).as_deref(), Some(BARE));
}

#[test]
fn a_record_that_waits_for_the_pods_name_keeps_where_it_was_led() {
    let leads = Leads::to(CART);
    let shared = Arc::new(Shared::new(false));
    let mut worker = Worker::new(&shared, 3000, &leads);
    assert_eq!(worker.name(&seen(ObservedAt::Client, SERVICE, 0), 2), None);
    // Conntrack has forgotten it, or knows another with its ports.
    leads.0.lock().unwrap().0 = Some(address(OTHER));
    assert_eq!(worker.pop(2999), Vec::<String>::new());
    assert_eq!(worker.pop(3000), [FOUND]);
    assert_eq!(leads.asked(), 1);
    // Where there is no room to wait, the Service is known all the same.
    let config = Config { max_waiting: 0, ..Config::default() };
    let mut names = Names::new(
        config,
        Box::new(Fake { known: Duration::from_nanos(instant(3000).as_nanos()), ..Fake::default() }),
    );
    names.look_behind(Behind::new(shared, 1, Box::new(Leads::to(CART))));
    assert_eq!(Worker(names).name(&seen(ObservedAt::Client, SERVICE, 0), 2).as_deref(), Some(BARE));
}

#[test]
fn conntrack_is_asked_while_the_connection_is_there_and_not_after_a_wait() {
    let certain = Duration::from_nanos(instant(3000).as_nanos());
    for (leads, asked, expected) in [(Leads::to(CART), 1, FOUND), (Leads::default(), 1, BARE)] {
        let mut worker =
            Worker::asking(Fake { certain, ..Fake::default() }, &Arc::new(Shared::new(false)), &leads);
        assert_eq!(worker.name(&seen(ObservedAt::Client, SERVICE, 0), 2), None);
        assert_eq!(leads.asked(), asked);
        leads.0.lock().unwrap().0 = Some(address(OTHER));
        assert_eq!(worker.pop(3000), [expected]);
        assert_eq!(leads.asked(), asked);
    }
    // What the server's own end says is of this connection whenever it comes.
    let shared = Arc::new(Shared::new(false));
    let mut worker = Worker::asking(Fake { certain, ..Fake::default() }, &shared, &Leads::default());
    worker.name(&seen(ObservedAt::Client, SERVICE, 0), 2);
    Worker::new(&shared, 0, &Leads::default()).name(&seen(ObservedAt::Server, CART, 0), 2);
    assert_eq!(worker.pop(3000), [FOUND]);
}

/// An exchange through a Service is of one pair, whichever end tells it.
#[test]
fn both_views_of_a_call_through_a_service_are_of_one_pair() {
    let (mut metrics, _) = Metrics::new(&routes::Config::default(), DEFAULT_LABEL_SETS).unwrap();
    let mut pairs = metrics.with_pairs(By::Workloads, MAX_PAIRS).unwrap();
    let leads = Leads::to(CART);
    let mut worker = Worker::new(&Arc::new(Shared::new(false)), 0, &leads);
    for (at, to) in [(ObservedAt::Server, CART), (ObservedAt::Client, SERVICE)] {
        let mut seen = seen(at, to, 0);
        worker.0.name(&mut seen.record, (&seen.connection, seen.client), Fate::Keep, instant(0), instant(2));
        pairs.observe(&seen.record);
    }
    pairs.publish();
    let page = String::from_utf8(metrics.render()).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("pod2pod_workload_requests_total{"));
    let servers: std::collections::BTreeSet<_> = rows
        .map(|row| row.split("server_workload=\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(servers.len(), 1, "{page}");
}
