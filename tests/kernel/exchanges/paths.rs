//! Ways from a client to a server: the two views of a connection join by its id, whatever addresses they see.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use support::world::{CLIENT_POD, POD_PORT, SERVER_POD, SERVICE};

use super::{
    agent::Agent,
    http::{Body, Client, Server},
    seen::{End, Seen, check, of},
    stage::{Place, Stage},
};

/// Three exchanges over a new connection.
fn talk(place: &mut Place, name: &str, to: SocketAddr) -> Client {
    let mut client = Client::connect(place, to);
    client.get(&format!("/{name}/get"));
    client.post(&format!("/{name}/length/3000"), Body::Length, 2000);
    client.post(&format!("/{name}/chunked/2000"), Body::Chunked, 3000);
    client
}

/// What each end calls the server.
fn servers(records: &[Seen], name: &str) -> [BTreeSet<SocketAddr>; 2] {
    let prefix = format!("/{name}/");
    [End::Client, End::Server].map(|end| {
        let records = of(end, records).into_iter();
        let named = records.filter(|seen| seen.exchange.target.starts_with(&prefix));
        named.map(|seen| seen.server).collect()
    })
}

#[test]
fn both_ends_join_over_every_path() {
    let mut stage = Stage::new();
    let agent = Agent::watch(&stage);
    let Stage { client, server, .. } = &mut stage;
    let any = Ipv6Addr::UNSPECIFIED;
    let of_loopback =
        [client.listen((Ipv4Addr::LOCALHOST, 0)), client.listen((Ipv6Addr::LOCALHOST, 0))].map(Server::start);
    let of_pod = [
        server.listen((SERVER_POD.v4, POD_PORT)),
        server.listen((SERVER_POD.v6, 0)),
        server.listen((any, 0)),
    ]
    .map(Server::start);
    let on_any = SocketAddr::from((SERVER_POD.v4, of_pod[2].address.port()));
    let paths = [
        ("loopback", of_loopback[0].address, of_loopback[0].address),
        ("loopback-v6", of_loopback[1].address, of_loopback[1].address),
        ("veth", of_pod[0].address, of_pod[0].address),
        ("veth-v6", of_pod[1].address, of_pod[1].address),
        ("v4-to-a-v6-socket", on_any, on_any),
        ("service", SERVICE, of_pod[0].address),
    ];
    let clients = paths.map(|(name, to, _)| talk(client, name, to));
    let records = agent.end().records();
    check(&records, &clients.map(|client| client.done).concat());
    for (name, as_client, as_server) in paths {
        assert_eq!(servers(&records, name), [[as_client].into(), [as_server].into()], "{name}");
    }
    let is_pod = |seen: &&Seen| seen.client.ip() == CLIENT_POD.v4;
    assert_eq!(records.iter().filter(is_pod).count(), 3 * 3 * 2, "three paths are from the pod's address");
}

#[test]
fn both_ends_join_with_syn_cookies() {
    let mut stage = Stage::new();
    let mut always = Command::new("nsenter");
    always.arg(format!("--net={}", stage.world.server.path().display()));
    always.args(["sh", "-c", "echo 2 > /proc/sys/net/ipv4/tcp_syncookies"]);
    assert!(always.status().unwrap().success(), "{always:?}");
    let agent = Agent::watch(&stage);
    let Stage { client, server, .. } = &mut stage;
    let of_pod = [server.listen((SERVER_POD.v4, 0)), server.listen((SERVER_POD.v6, 0))].map(Server::start);
    let clients = [("v4", &of_pod[0]), ("v6", &of_pod[1])].map(|(name, to)| talk(client, name, to.address));
    check(&agent.end().records(), &clients.map(|client| client.done).concat());
}

#[test]
fn the_same_loopback_tuple_in_two_namespaces_is_two_connections() {
    let mut stage = Stage::new();
    let agent = Agent::watch(&stage);
    let (from, to) = ((Ipv4Addr::LOCALHOST, 40_404).into(), (Ipv4Addr::LOCALHOST, 18_080).into());
    let Stage { client, server, .. } = &mut stage;
    let _servers = [client.listen(to), server.listen(to)].map(Server::start);
    let mut first = Client::new(client.try_connect(Some(from), to).unwrap());
    let mut second = Client::new(server.try_connect(Some(from), to).unwrap());
    for number in 0..50 {
        first.post(&format!("/first/{number}/length/{}", number * 7), Body::Length, number);
        second.post(&format!("/second/{number}/chunked/{}", number * 11), Body::Chunked, number * 3);
    }
    let records = agent.end().records();
    check(&records, &[first.done, second.done].concat());
    assert!(records.iter().all(|seen| (seen.client, seen.server) == (from, to)), "one tuple");
    let ids = |prefix: &str| -> BTreeSet<&str> {
        let named = records.iter().filter(|seen| seen.exchange.target.starts_with(prefix));
        named.map(|seen| seen.id.as_str()).collect()
    };
    let (first, second) = (ids("/first/"), ids("/second/"));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first.is_disjoint(&second), "{first:?}");
}
