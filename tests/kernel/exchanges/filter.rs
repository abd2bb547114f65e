//! Filters: what is refused costs one look-up a packet from the verdict on, and what is kept is told exactly.

use support::{
    metrics::Metrics,
    scale,
    world::{CLIENT_POD, SERVER_POD},
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Body, Client, Server},
    seen::{End, Exchange, Seen, check, check_end, of},
    stage::{Place, Stage},
};

/// Exchanges on each connection, where the machine is fast enough for them.
const EXCHANGES: usize = 50;

fn exchanges() -> usize {
    scale::count(EXCHANGES, 1)
}

fn watch(stage: &Stage, settings: &[&str]) -> Agent {
    Agent::start(Some(stage.world.cgroup.path()), &[&[AMPLE_RING], settings].concat())
}

/// Exchanges on one connection; its number makes their targets different from those of others.
fn exchange(client: &mut Client, number: usize) {
    for index in 0..exchanges() {
        client.post(&format!("/{number}/{index}/length/3000"), Body::Length, 200);
    }
}

/// Holds one end against what was done; nothing may be told of the other.
fn check_only(end: End, records: &[Seen], done: &[Exchange]) {
    check_end(end, records, done);
    assert_eq!(of(end, records).len(), records.len(), "the other end is told too");
}

/// What was counted since `before`.
fn since(before: &Metrics, after: &Metrics, counter: &str) -> u64 {
    after.kernel(counter) - before.kernel(counter)
}

/// Two servers; connections to the first are refused by `settings`, of which `{}` is its port.
fn check_refusal(settings: &[&str], counter: &str, v6: bool) {
    let mut stage = Stage::new();
    let mut listen = || {
        let address =
            if v6 { (SERVER_POD.v6, 0).into() } else { std::net::SocketAddr::from((SERVER_POD.v4, 0)) };
        Server::start(stage.server.listen(address))
    };
    let (refused, kept) = (listen(), listen());
    let port = refused.address.port().to_string();
    let settings: Vec<String> = settings.iter().map(|setting| setting.replace("{}", &port)).collect();
    let agent = watch(&stage, &settings.iter().map(String::as_str).collect::<Vec<_>>());

    let mut unwanted = Client::connect(&mut stage.client, refused.address);
    unwanted.get("/unwanted");
    let before = agent.wait_metrics("both ends are refused", |metrics| metrics.counter(counter) == 2);
    exchange(&mut unwanted, 0);
    let after = agent.wait_metrics("all is counted", |metrics| {
        // A request and a response at two ends each.
        since(&before, metrics, "segments_matched") >= 4 * exchanges() as u64 && metrics.balance().is_ok()
    });
    for (matched, ignored) in [("segments_matched", "segments_unwanted"), ("bytes_matched", "bytes_unwanted")]
    {
        assert_eq!(since(&before, &after, matched), since(&before, &after, ignored), "{ignored}");
    }
    assert_eq!(since(&before, &after, "records_sent"), 0);

    let mut wanted = Client::connect(&mut stage.client, kept.address);
    exchange(&mut wanted, 1);
    let told = agent.end();
    check(&told.records(), &wanted.done);
    assert!(told.summary.ends_with(", 2 connections filtered out"), "{}", told.summary);
}

#[test]
fn an_expression() {
    let client = CLIENT_POD.v4;
    let expression = format!("filter.expression=not (tcp port {{}} and host {client})");
    check_refusal(&[&expression], "filter_refused_expression", false);
}

#[test]
fn an_expression_over_ipv6() {
    check_refusal(&["filter.expression=ip6 and not tcp port {}"], "filter_refused_expression", true);
}

#[test]
fn ports() {
    check_refusal(&["filter.ignore_ports={}"], "filter_refused_port", false);
}

#[test]
fn one_role_tells_each_exchange_once() {
    for (role, end) in [("server", End::Server), ("client", End::Client)] {
        let mut stage = Stage::new();
        let agent = watch(&stage, &[&format!("roles={role}")]);
        let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
        let mut client = Client::connect(&mut stage.client, server.address);
        exchange(&mut client, 0);
        check_only(end, &agent.end().records(), &client.done);
    }
}

#[test]
fn a_role_of_a_connection_that_was_there_before_is_known_by_its_first_message() {
    let mut stage = Stage::new();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/before");
    let agent = watch(&stage, &["roles=server"]);
    let before = client.done.len();
    exchange(&mut client, 0);
    check_only(End::Server, &agent.end().records(), &client.done[before..]);
}

#[test]
fn a_cgroup_by_its_name() {
    let mut stage = Stage::new();
    let agent = watch(&stage, &["filter.cgroups=later*"]);
    let other = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    Client::connect(&mut stage.client, other.address).get("/unwanted");
    agent.wait_metrics("both ends are refused", |metrics| metrics.counter("filter_refused_cgroup") == 2);
    // The agent has read the hierarchy by now, and this is new in it.
    let later = stage.world.cgroup.part("later").unwrap();
    let mut place = Place::new(&stage.world.server.path(), &later);
    let server = Server::start(place.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    exchange(&mut client, 0);
    check_only(End::Server, &agent.end().records(), &client.done);
}

#[test]
fn an_interface_by_its_name() {
    let mut stage = Stage::new();
    let agent = watch(&stage, &["filter.interfaces=lo"]);
    let near = Server::start(stage.server.listen(([127, 0, 0, 1], 0)));
    let far = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut inside = Client::connect(&mut stage.server, near.address);
    exchange(&mut inside, 0);
    let mut outside = Client::connect(&mut stage.client, far.address);
    exchange(&mut outside, 1);
    check(&agent.end().records(), &inside.done);
}
