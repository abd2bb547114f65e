//! Both views of a connection through the whole pipeline: which records say how long the network took, and what is counted.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use pod2pod_user::{
    config::Config,
    delivery::Overflow,
    enrich::OwnTraffic,
    pipeline::{self, Pipeline, SharedSinks},
    shutdown::Shutdown,
    sinks::OwnConnections,
    views::{Stats, Views},
};
use serde_json::Value;
use support::{
    conversation::{Conversation, OwnedSegment, START_NS},
    process::PATIENCE,
};

/// From one segment to the next at the client and at the server: a response is that long after its request.
const AT_CLIENT: Duration = Duration::from_micros(1000);
const AT_SERVER: Duration = Duration::from_micros(800);
/// What is left of the first without the second, as records have it.
const NETWORK: f64 = 0.0002;

const REQUEST: &str = "GET /cart HTTP/1.1\r\nHost: cart\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The client's view: it asks the address of a Service.
fn at_client(conversation: &Conversation) -> Vec<OwnedSegment> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (client, service) = (address("10.0.0.1:40000"), address("10.96.0.1:80"));
    let view = conversation.clone().seen_by_client().scope(1).addresses(client, service);
    view.step(AT_CLIENT).segments()
}

/// The server's, behind NAT.
fn at_server(conversation: &Conversation) -> Vec<OwnedSegment> {
    conversation.clone().seen_by_server().scope(2).start_at(START_NS + 50_000).step(AT_SERVER).segments()
}

/// A worker, and its sinks' file.
struct Worker {
    pipeline: Pipeline,
    sinks: SharedSinks,
    folder: tempfile::TempDir,
}

impl Worker {
    fn new(views: Views, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.enrich.own_traffic = OwnTraffic::Told;
        config.output.file = Some(folder.path().join("records"));
        change(&mut config);
        let (shutdown, own) = (Shutdown::without_signals().unwrap(), OwnConnections::default().into());
        let sinks =
            pipeline::open_sinks(&config, Overflow::Wait, &own, &Default::default(), &shutdown).unwrap();
        let mut pipeline = Pipeline::new(&config, sinks.clone(), None);
        pipeline.share_views(views);
        Self { pipeline, sinks, folder }
    }

    /// What was counted, and the records.
    fn end(mut self) -> (Stats, Vec<Value>) {
        self.pipeline.finish(pod2pod_user::capture::KernelInstant::from_nanos(START_NS + 1_000_000_000));
        let stats = self.pipeline.stats().views;
        drop(self.pipeline);
        pipeline::finish_sinks(self.sinks, std::time::Instant::now() + PATIENCE);
        let text = fs::read_to_string(self.folder.path().join("records")).unwrap();
        (stats, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

/// What one worker makes of these, in the order of time.
fn told(mut segments: Vec<OwnedSegment>, change: impl FnOnce(&mut Config)) -> (Stats, Vec<Value>) {
    segments.sort_by_key(|segment| segment.time);
    let mut worker = Worker::new(Views::default(), change);
    segments.iter().for_each(|segment| worker.pipeline.push(&segment.borrow()));
    worker.end()
}

/// Of each exchange, by its offset: who told it, in order, and how long the network took as the record has it.
fn by_exchange(records: &[Value]) -> BTreeMap<u64, Vec<(String, Option<f64>)>> {
    let mut exchanges = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        let at = record["observed_at"].as_str().unwrap().to_owned();
        let network = record.get("network.duration").map(|value| value.as_f64().unwrap());
        exchanges.entry(record["exchange.offset"].as_u64().unwrap()).or_default().push((at, network));
    }
    exchanges
}

fn both() -> Vec<(String, Option<f64>)> {
    vec![("server".to_owned(), None), ("client".to_owned(), Some(NETWORK))]
}

/// So many exchanges, one after the other.
fn exchanges(count: usize) -> Conversation {
    let talk = (0..count).fold(Conversation::new(), |talk, _| talk.client(REQUEST).server(RESPONSE));
    talk.close()
}

#[test]
fn the_second_record_says_how_long_the_network_took() {
    let talk = exchanges(5);
    let (stats, records) = told([at_client(&talk), at_server(&talk)].concat(), |_| ());
    let exchanges = by_exchange(&records);
    assert_eq!(exchanges.len(), 5);
    assert!(exchanges.values().all(|told| *told == both()), "{exchanges:#?}");
    assert_eq!(stats, Stats { seen: 10, joined: 5, ..Stats::default() });
}

#[test]
fn requests_of_a_pipeline_are_told_apart() {
    let talk = Conversation::new().client(REQUEST.repeat(3)).server(RESPONSE).server(RESPONSE.repeat(2));
    let talk = talk.client(REQUEST).server(RESPONSE).close();
    let (stats, records) = told([at_client(&talk), at_server(&talk)].concat(), |_| ());
    let network: Vec<_> = by_exchange(&records).values().map(|told| told[1].1.unwrap()).collect();
    // The second and the third response come one segment later.
    let expected = [NETWORK, 2.0 * NETWORK, 2.0 * NETWORK, NETWORK];
    let is_near = |(is, expected): (&f64, f64)| (is - expected).abs() < 1e-9;
    assert!(network.iter().zip(expected).all(is_near) && network.len() == 4, "{network:?}");
    assert_eq!((stats.joined, stats.negative), (4, 0));
}

#[test]
fn what_one_end_lost_is_not_joined_and_the_rest_is() {
    let talk = exchanges(4);
    for (end, other) in [("client", "server"), ("server", "client")] {
        let view = |name| if name == "client" { at_client(&talk) } else { at_server(&talk) };
        let mut damaged = view(end);
        // The second exchange: handshake, one exchange, then its two segments.
        let gone: Vec<_> =
            damaged.iter().enumerate().filter(|(_, one)| one.payload_length > 0).map(|(at, _)| at).collect();
        damaged.drain(gone[2]..=gone[3]);
        damaged[gone[2]].lost_before = true;
        let (stats, mut records) = told([damaged, view(other)].concat(), |_| ());
        // What is known of one end only in part is not compared.
        records
            .retain(|record| record["outcome"] == "complete" && record.get("http.request.method").is_some());
        let told = by_exchange(&records);
        let joined: Vec<_> = told.values().filter(|told| **told == both()).collect();
        let rest: Vec<_> = told.values().filter(|told| **told != both()).collect();
        assert!(rest.iter().all(|told| **told == [(other.to_owned(), None)]), "{end}: {told:#?}");
        assert_eq!(
            (joined.len() as u64, stats.joined, stats.negative),
            (stats.joined, 2, 0),
            "{end}: {told:#?}"
        );
        let ends = [told.first_key_value(), told.last_key_value()].map(|told| told.unwrap().1.clone());
        assert_eq!(ends, [both(), both()], "before the loss, and behind it");
    }
}

#[test]
fn one_view_is_joined_with_none() {
    let talk = exchanges(3);
    for segments in [at_client(&talk), at_server(&talk)] {
        let (stats, records) = told(segments, |_| ());
        assert_eq!(stats, Stats { seen: 3, ..Stats::default() });
        assert!(records.iter().all(|record| record.get("network.duration").is_none()), "{records:#?}");
    }
    // A view that is not wanted is none.
    let servers = |config: &mut Config| config.filter.roles.client = false;
    let (stats, records) = told([at_client(&talk), at_server(&talk)].concat(), servers);
    assert_eq!((stats, records.len()), (Stats { seen: 3, ..Stats::default() }, 3));
    // On a path nobody's end was seen.
    let (stats, _) = told(talk.segments(), |_| ());
    assert_eq!(stats, Stats::default());
}

#[test]
fn two_workers_meet() {
    let talk = exchanges(5);
    let views = Views::default();
    let mut workers = [views.for_worker(), views.for_worker()].map(|views| Worker::new(views, |_| ()));
    for (worker, segments) in workers.iter_mut().zip([at_server(&talk), at_client(&talk)]) {
        segments.iter().for_each(|segment| worker.pipeline.push(&segment.borrow()));
    }
    let [(server, _), (client, records)] = workers.map(Worker::end);
    assert_eq!(server, Stats { seen: 5, ..Stats::default() });
    assert_eq!(client, Stats { seen: 5, joined: 5, ..Stats::default() });
    assert!(records.iter().all(|record| record["network.duration"] == NETWORK), "{records:#?}");
}
