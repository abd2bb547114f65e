//! Names in records: who waits for them and for how long, what the rules that ask for names do, what a record says, and what is
//! counted of pairs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pod2pod_user::{
    capture::KernelInstant,
    enrich::{
        Fate, Rate,
        naming::{Socket, Who},
    },
    filter::{
        Selection,
        selection::{Ends, OBSERVE, ObjectPattern},
    },
    kubernetes::{
        addresses::Found,
        cgroup::{ContainerId, Place, PodUid},
        identity::{Identity, Pod, Service, Workload, WorkloadKind},
    },
    metrics::{
        Metrics, PairMetrics,
        http::DEFAULT_LABEL_SETS,
        pairs::{By, MAX_ADDRESS_PAIRS, MAX_PAIRS},
        routes,
    },
    named::{
        Config, DEFAULT_MAX_WAITING, DEFAULT_MAX_WAITING_BYTES, LOOK_INTERVAL, Names, Rules, Stats,
        wishes::SAMPLE,
    },
    reassembly::Side,
    record::{Extra, ObservedAt, Record},
};
use serde_json::{Value, json};

use super::{START, exchange, line, record, schema::check};

/// Since the beginning of time.
fn instant(milliseconds: u64) -> KernelInstant {
    KernelInstant::from_nanos(START + milliseconds * 1_000_000)
}

fn duration(milliseconds: u64) -> Duration {
    Duration::from_nanos(instant(milliseconds).as_nanos())
}

/// What the client's address is; the server's socket is in the pod `cart`.
#[derive(Clone, Default)]
struct Fake {
    version: Arc<AtomicU64>,
    client: Identity,
    /// It is not known before.
    known: Option<Duration>,
    annotation: Option<(&'static str, &'static str)>,
}

impl Who for Fake {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn socket(&mut self, _cgroup_id: u64, _called: Option<SocketAddr>, _now: Duration) -> Socket {
        Socket::Of(Box::new(pod("cart", self.annotation)))
    }

    fn address(&mut self, _address: SocketAddr, _at: Duration, now: Duration) -> Found<Identity> {
        match self.known {
            // Something new came of it.
            Some(known) if now < known && self.version() == 0 => Found::Early(known, None),
            _ if self.client == Identity::default() => Found::Nobody,
            _ => Found::Held(self.client.clone()),
        }
    }

    fn is_outside(&self, _address: IpAddr) -> bool {
        true
    }

    fn shows(&self, what: Extra, key: &str) -> bool {
        (what, key) == (Extra::Label, "app")
    }
}

fn pod(name: &str, annotation: Option<(&str, &str)>) -> Identity {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
    };
    let pod = Pod {
        namespace: "shop".into(),
        name: format!("{name}-5c9-x").into(),
        uid: PodUid::parse("0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa").unwrap(),
        node: Some("node-a".into()),
        zone: Some("zone-1".into()),
        workload: Some(Workload { kind: WorkloadKind::Deployment, name: name.into() }),
        labels: pairs(&[("app", name), ("tier", "hidden")]),
        annotations: pairs(annotation.as_slice()),
    };
    Identity { pod: Some(Arc::new(pod)), ..Identity::default() }
}

/// Names the ends of one record at `now`.
fn name(names: &mut Names, record: &mut Record, now: u64) -> Option<Fate> {
    let connection = super::with(|e| e.connection.cgroup_id = 7).connection;
    names.name(record, (&connection, Side::Originator), Fate::Keep, instant(0), instant(now))
}

fn names_of(record: &Record) -> [Option<String>; 2] {
    [&record.client_party, &record.server_party].map(|party| party.as_ref().and_then(|party| party.name()))
}

/// What comes out at `now`.
fn pop(names: &mut Names, now: u64, is_end: bool) -> Vec<([Option<String>; 2], Fate)> {
    let mut told = Vec::new();
    names.pop(instant(now), is_end, &mut |record, _, fate| told.push((names_of(record), fate)));
    told
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn a_record_waits_for_a_name_and_no_longer() {
    let late = Fake { client: pod("web", None), known: Some(duration(3000)), ..Fake::default() };
    let both = [some("shop/web-5c9-x"), some("shop/cart-5c9-x")];
    let mut names = Names::new(Config::default(), Box::new(late.clone()));
    assert_eq!(name(&mut names, &mut record(exchange()), 0), None);
    assert_eq!((names.waiting(), names.is_due(instant(2999))), (1, false));
    assert!(names.is_due(instant(3000)));
    assert_eq!(pop(&mut names, 2999, false), []);
    assert_eq!(pop(&mut names, 3000, false), [(both.clone(), Fate::Keep)]);
    assert_eq!((names.waiting(), names.is_due(instant(9000))), (0, false));
    // Something new is heard, which is looked at in its time.
    let mut names = Names::new(Config::default(), Box::new(late.clone()));
    name(&mut names, &mut record(exchange()), 0);
    assert_eq!(pop(&mut names, 500, false), []);
    late.version.store(1, Ordering::Relaxed);
    let look = 500 + LOOK_INTERVAL.as_millis() as u64;
    assert!(!names.is_due(instant(look - 1)) && names.is_due(instant(look)));
    assert_eq!(pop(&mut names, look, false), [(both, Fate::Keep)]);
    // At the end what is certain is told.
    late.version.store(0, Ordering::Relaxed);
    let mut names = Names::new(Config::default(), Box::new(late));
    name(&mut names, &mut record(exchange()), 0);
    assert_eq!(pop(&mut names, 1, true), [([None, some("shop/cart-5c9-x")], Fate::Keep)]);
    let stats = Stats { records: 1, waited: 1, ends_named: 1, ends_unknown: 1, ..Stats::default() };
    assert_eq!(names.stats(), stats);
}

#[test]
fn so_many_records_wait() {
    let late = || Fake { client: pod("web", None), known: Some(duration(3000)), ..Fake::default() };
    let bytes = record(exchange()).held_bytes();
    for (max_waiting, max_waiting_bytes, fits) in
        [(5, usize::MAX, 5), (usize::MAX, 5 * bytes, 5), (usize::MAX, 5 * bytes - 1, 4)]
    {
        let config = Config { max_waiting, max_waiting_bytes, ..Config::default() };
        let mut names = Names::new(config, Box::new(late()));
        for number in 0..6 {
            let mut record = record(exchange());
            let told = name(&mut names, &mut record, 0);
            assert_eq!(told, (number >= fits).then_some(Fate::Keep), "{number} of {fits}");
            let expected = if number < fits { [None, None] } else { [None, some("shop/cart-5c9-x")] };
            assert_eq!(names_of(&record), expected);
        }
        assert_eq!(names.stats().waits_refused, 6 - fits);
        assert_eq!(pop(&mut names, 3000, false).len() as u64, fits);
        assert_eq!(names.waiting(), 0);
    }
    assert!(DEFAULT_MAX_WAITING * bytes >= DEFAULT_MAX_WAITING_BYTES, "bytes are what bounds it");
}

#[test]
fn rules_about_names_decide_once_names_are_known() {
    let of = |selection, client: &Identity, annotation, sample| {
        let rules = Rules { sample, ..Rules::default() };
        let config = Config { selection, rules, ..Config::default() };
        let who = Fake { client: client.clone(), annotation, ..Fake::default() };
        let mut names = Names::new(config, Box::new(who));
        let fate = name(&mut names, &mut record(exchange()), 0).unwrap();
        (fate, names.stats().refused, names.stats().sampled_away)
    };
    let workloads = |text: &str| Ends {
        workloads: vec![ObjectPattern::parse_workload(text).unwrap()],
        ..Ends::default()
    };
    let (web, outside) = (pod("web", None), Identity::default());
    let all = Selection::default;
    let only = |text| Selection { only: workloads(text), ..all() };
    let ignore = |text| Selection { ignore: workloads(text), ..all() };
    let obeying = || Selection { obeys_annotation: true, ..all() };
    for (selection, client, annotation, sample, expected) in [
        (all(), &web, None, false, (Fate::Keep, 0, 0)),
        (only("web"), &web, None, false, (Fate::Keep, 0, 0)),
        (only("web"), &outside, None, false, (Fate::Ignored, 1, 0)),
        (ignore("web"), &web, None, false, (Fate::Ignored, 1, 0)),
        (obeying(), &web, Some((OBSERVE, "false")), false, (Fate::Ignored, 1, 0)),
        (all(), &web, Some((OBSERVE, "false")), false, (Fate::Keep, 0, 0)),
        (all(), &web, Some((SAMPLE, "0")), true, (Fate::SampledAway, 0, 1)),
        (all(), &web, Some((SAMPLE, "1")), true, (Fate::Keep, 0, 0)),
        (all(), &web, Some((SAMPLE, "2")), true, (Fate::Keep, 0, 0)),
        (all(), &web, Some((SAMPLE, "none")), true, (Fate::Keep, 0, 0)),
        (all(), &web, Some((SAMPLE, "0")), false, (Fate::Keep, 0, 0)),
    ] {
        assert_eq!(of(selection, client, annotation, sample), expected, "{annotation:?}");
    }
}

#[test]
fn a_pod_may_ask_for_fewer_exchanges_and_not_for_more() {
    let half = Rate::from_millionths(500_000).unwrap();
    let kept = |rate, share: &'static str| {
        let rules = Rules { sample: true, ..Rules::default() };
        let config = Config { rules, rate, ..Config::default() };
        let who = Fake { annotation: Some((SAMPLE, share)), ..Fake::default() };
        let mut names = Names::new(config, Box::new(who));
        let mut kept = Vec::new();
        for id in 0..1000 {
            let mut record = Record { connection_id: id, ..record(exchange()) };
            if name(&mut names, &mut record, 0) == Some(Fate::Keep) {
                kept.push(record.sample_rate_millionths);
            }
        }
        kept
    };
    let tenth = kept(Rate::ALL, "0.1");
    assert!((60..140).contains(&tenth.len()), "{}", tenth.len());
    assert!(tenth.iter().all(|rate| *rate == Some(100_000)));
    assert_eq!(kept(half, "0.9").len(), 1000, "what is asked for is more than is given: decided before");
}

/// The record of an exchange between these, as its reader gets it.
fn told(client: Identity) -> Value {
    let mut names = Names::new(Config::default(), Box::new(Fake { client, ..Fake::default() }));
    let mut record = record(exchange());
    name(&mut names, &mut record, 0).unwrap();
    let first = line(&record);
    assert_eq!(first, line(&record), "the text that was made is the text that is made");
    let told = serde_json::from_str(&first).unwrap();
    check(&told, &pod2pod_user::record::schema::schema());
    told
}

#[test]
fn a_record_says_who_its_ends_are() {
    let service = Some(Arc::new(Service { namespace: "shop".into(), name: "web".into() }));
    let id = "3f5c0e9d6f0bd7a1f2a4b6c8e0d1f3a5b7c9e1f3a5b7c9e1f3a5b7c9e1f3a5b7";
    let uid = "0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa";
    let place = Place { pod: PodUid::parse(uid).unwrap(), container: ContainerId::parse(id) };
    let whole = Identity {
        service: service.clone(),
        container: Some("main".into()),
        place: Some(place),
        ..pod("web", None)
    };
    let own = |told: &Value| {
        let keys = told.as_object().unwrap().iter();
        let own = keys.filter(|(key, _)| key.starts_with("client.k8s") || key.starts_with("client.c"));
        own.map(|(key, value)| (key.clone(), value.clone())).collect::<Value>()
    };
    let expected = json!({
        "client.k8s.kind": "pod",
        "client.k8s.namespace.name": "shop",
        "client.k8s.pod.name": "web-5c9-x",
        "client.k8s.pod.uid": uid,
        "client.container.id": id,
        "client.k8s.container.name": "main",
        "client.k8s.deployment.name": "web",
        "client.k8s.service.name": "web",
        "client.k8s.node.name": "node-a",
        "client.cloud.availability_zone": "zone-1",
        "client.k8s.pod.label.app": "web",
    });
    let record = told(whole);
    assert_eq!(own(&record), expected);
    assert_eq!(record["server.k8s.deployment.name"], "cart");
    let keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let place = |key| keys.iter().position(|own| *own == key).unwrap();
    assert!(place("network.type") < place("client.k8s.kind"), "names come behind addresses");
    assert!(place("client.cloud.availability_zone") < place("server.k8s.kind"));
    // Without the API server.
    let bare = Identity {
        place: Some(Place { container: None, pod: PodUid::parse(uid).unwrap() }),
        ..Identity::default()
    };
    assert_eq!(own(&told(bare)), json!({"client.k8s.kind": "pod", "client.k8s.pod.uid": uid}));
    let expected = json!({
        "client.k8s.kind": "service",
        "client.k8s.namespace.name": "shop",
        "client.k8s.service.name": "web",
    });
    assert_eq!(own(&told(Identity { service, ..Identity::default() })), expected);
    let node = Identity { node: Some("node-b".into()), ..Identity::default() };
    assert_eq!(own(&told(node)), json!({"client.k8s.kind": "node", "client.k8s.node.name": "node-b"}));
    assert_eq!(own(&told(Identity::default())), json!({"client.k8s.kind": "outside"}));
}

/// What is counted of exchanges whose clients are these.
fn counted(
    clients: impl IntoIterator<Item = (Identity, fn(&mut Record))>,
    most: usize,
) -> (Vec<String>, u64) {
    let records = clients.into_iter().map(|(client, change)| {
        let who = Box::new(Fake { client, ..Fake::default() });
        let mut names = Names::new(Config::default(), who);
        let mut record = record(exchange());
        name(&mut names, &mut record, 0);
        change(&mut record);
        record
    });
    counted_by(By::Workloads, records, most)
}

/// What is counted of these, in the metrics' text, without buckets.
fn counted_by(by: By, records: impl Iterator<Item = Record>, most: usize) -> (Vec<String>, u64) {
    let (mut metrics, _) = Metrics::new(&routes::Config::default(), DEFAULT_LABEL_SETS).unwrap();
    let mut pairs: PairMetrics = metrics.with_pairs(by, most).unwrap();
    let mut other = pairs.for_worker();
    for record in records {
        // Two workers count in one.
        std::mem::swap(&mut pairs, &mut other);
        other.observe(&record);
    }
    let overflowed = pairs.overflowed() + other.overflowed();
    pairs.publish();
    other.publish();
    let text = String::from_utf8(metrics.render()).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("pod2pod_workload_") && !line.contains("_bucket"));
    (rows.map(str::to_owned).collect(), overflowed)
}

#[test]
fn pairs_of_workloads_are_counted() {
    let same: fn(&mut Record) = |_| ();
    let failed: fn(&mut Record) = |record| record.status = Some(503);
    let late: fn(&mut Record) = |record| record.late = true;
    let nobody: fn(&mut Record) = |record| record.client_party = None;
    let web = pod("web", None);
    let (rows, overflowed) = counted(
        [
            (web.clone(), same),
            (web.clone(), failed),
            (web.clone(), late),
            (web, nobody),
            (Identity::default(), same),
        ],
        10,
    );
    let labels = |namespace: &str, workload: &str| {
        format!(
            "{{client_namespace=\"{namespace}\",client_workload=\"{workload}\",reporter=\"server\",\
             server_namespace=\"shop\",server_workload=\"cart\"}}"
        )
    };
    let (web, outside, unknown) = (labels("shop", "web"), labels("", "outside"), labels("", "unknown"));
    for expected in [
        format!("pod2pod_workload_requests_total{web} 2"),
        format!("pod2pod_workload_errors_total{web} 1"),
        format!("pod2pod_workload_request_duration_seconds_count{web} 2"),
        format!("pod2pod_workload_request_duration_seconds_sum{web} 0.003668"),
        format!("pod2pod_workload_requests_total{outside} 1"),
        format!("pod2pod_workload_errors_total{outside} 0"),
        format!("pod2pod_workload_requests_total{unknown} 1"),
    ] {
        assert!(rows.contains(&expected), "{expected} in {rows:#?}");
    }
    assert_eq!((rows.len(), overflowed), (3 * 4, 0));
}

#[test]
fn so_many_pairs_are_told_apart() {
    let same: fn(&mut Record) = |_| ();
    for (most, count, overflows) in
        [(3, 3, 0), (3, 4, 1), (MAX_PAIRS, MAX_PAIRS, 0), (usize::MAX, MAX_PAIRS + 1, 1)]
    {
        let clients = (0..count).map(|number| (pod(&format!("web{number}"), None), same));
        let (rows, overflowed) = counted(clients.clone(), most);
        assert_eq!(overflowed, overflows, "{count} of {most}");
        let others = rows.iter().filter(|row| row.contains("client_workload=\"_OTHER\"")).count();
        assert_eq!(others, if overflows > 0 { 4 } else { 0 });
        assert_eq!(rows.len() as u64, 4 * (count as u64 - overflows) + others as u64);
    }
}

#[test]
fn exchanges_of_which_both_views_met_are_counted_once() {
    const SECOND: u64 = 1_000_000_000;
    let server: fn(&mut Record) =
        |record| (record.duration, record.network_duration) = (2 * SECOND, Some(SECOND));
    let client: fn(&mut Record) = |record| {
        record.observed_at = ObservedAt::Client;
        (record.duration, record.network_duration) = (4 * SECOND, Some(SECOND / 2));
    };
    let alone: fn(&mut Record) = |record| record.duration = 9 * SECOND;
    let late: fn(&mut Record) = |record| (record.late, record.network_duration) = (true, Some(SECOND));
    let web = pod("web", None);
    let clients = [server, client, alone, late].map(|change| (web.clone(), change));
    let (rows, _) = counted(clients, 10);
    let labels = "{client_namespace=\"shop\",client_workload=\"web\",server_namespace=\"shop\",server_workload=\"cart\"}";
    let joined: Vec<_> = rows.iter().filter(|row| row.contains("_joined_")).cloned().collect();
    // 2 s at the server and 1 s on the way; 4 s at the client.
    assert_eq!(
        joined,
        [("client_seconds", "7"), ("network_seconds", "1.5"), ("requests", "2")]
            .map(|(what, value)| format!("pod2pod_workload_joined_{what}_total{labels} {value}"))
    );
}

#[test]
fn without_workloads_pairs_are_of_addresses() {
    let of = |client: &str, server: &str| {
        let [client, server] = [client, server].map(super::address);
        let ends = |address: SocketAddr| (address.ip(), address.port());
        Record { client: ends(client), server: ends(server), ..record(exchange()) }
    };
    let (rows, overflowed) = counted_by(
        By::Addresses,
        [
            of("10.1.4.9:5000", "10.1.2.3:8080"),
            of("10.1.4.9:5001", "10.1.2.3:8080"),
            of("203.0.113.7:5001", "10.1.2.3:8080"),
            of("203.0.113.8:5001", "10.1.2.3:8080"),
            of("[fd00::1]:5001", "[2001:db8::7]:80"),
            of("127.0.0.1:5001", "127.0.0.1:81"),
        ]
        .into_iter(),
        10,
    );
    let requests = |row: &&String| row.starts_with("pod2pod_workload_requests_total");
    let requests: Vec<_> = rows.iter().filter(requests).cloned().collect();
    let row = |client: &str, server: &str, count: u32| {
        format!(
            "pod2pod_workload_requests_total{{client_namespace=\"\",client_workload=\"{client}\",\
             reporter=\"server\",server_namespace=\"\",server_workload=\"{server}\"}} {count}"
        )
    };
    let expected = [
        row("10.1.4.9", "10.1.2.3:8080", 2),
        row("127.0.0.1", "127.0.0.1:81", 1),
        row("fd00::1", "[2001:db8::7]:80", 1),
        row("outside", "10.1.2.3:8080", 2),
    ];
    assert_eq!((requests, overflowed), (expected.to_vec(), 0));
}

#[test]
fn so_many_pairs_of_addresses_are_told_apart() {
    for (count, overflows) in [(MAX_ADDRESS_PAIRS, 0), (MAX_ADDRESS_PAIRS + 2, 2)] {
        let servers = (0..count).map(|number| Record {
            server: (IpAddr::from([10, 1, 2, 3]), 1000 + number as u16),
            ..record(exchange())
        });
        let (rows, overflowed) = counted_by(By::Addresses, servers, usize::MAX);
        assert_eq!(overflowed, overflows);
        let others: Vec<_> = rows.iter().filter(|row| row.contains("client_workload=\"_OTHER\"")).collect();
        assert_eq!(others.len(), if overflows > 0 { 4 } else { 0 });
        assert!(
            others.iter().all(|row| !row.contains("requests_total") || row.ends_with(" 2")),
            "{others:?}"
        );
    }
}
