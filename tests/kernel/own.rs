//! The agent's own sockets: nothing of them is told.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use pod2pod_common::{counters::Counter, limits::MAX_OWN_SOCKETS};
use pod2pod_user::capture::kernel::{ScopeChoice, own_sockets::cookie};
use support::netns::{Cgroup, Namespace};

use crate::{lend::lend, watch::Watch};

#[test]
fn a_registered_listener_keeps_its_connections_out() {
    for scope in [ScopeChoice::Cookie, ScopeChoice::Cgroup] {
        let host = Namespace::new();
        let (cgroup, mut watch) = lend(scope);
        let own = watch.capture.own_sockets();
        let talk = cgroup.spawn(&host, move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            own.register_socket(&listener).unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            server.read_exact(&mut [0; 25]).unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            drop(server);
            client.read_to_end(&mut Vec::new()).unwrap();
            let client_address = client.local_addr().unwrap();
            // Forgotten before the last packets: the connection stays out.
            own.forget(cookie(&listener).unwrap());
            drop(client);
            client_address
        });
        let client = watch.during(talk);
        // The peer's end is another socket, and its view is the caller's to drop.
        for seen in &watch.seen {
            let local_is_client = match seen.direction {
                pod2pod_user::capture::Direction::Egress => seen.source == client,
                _ => seen.destination == client,
            };
            assert!(local_is_client, "{scope:?}: {seen:?}");
        }
        assert!(watch.counter(Counter::OwnTraffic) >= 5);
        watch.assert_lossless();
    }
}

#[test]
fn a_registered_client_is_not_told() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let own = watch.capture.own_sockets();
    let talk = cgroup.spawn(&host, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        own.register_socket(&listener).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let registered = own.register_socket(&client).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"POST / HTTP/1.1\r\n\r\n").unwrap();
        server.read_exact(&mut [0; 19]).unwrap();
        registered
    });
    let registered = watch.during(talk);
    let payloads =
        watch.seen.iter().filter(|seen| seen.socket_cookie == registered && !seen.payload.is_empty());
    assert_eq!(payloads.count(), 0);
    watch.assert_lossless();
}

#[test]
fn the_table_of_own_sockets_counts_what_it_refuses() {
    let cgroup = Cgroup::new();
    let mut watch = Watch::on(&cgroup, ScopeChoice::Cookie);
    let own = watch.capture.own_sockets();
    // Cookies that no socket of this machine will have.
    let first = 1 << 60;
    for number in 0..u64::from(MAX_OWN_SOCKETS) {
        own.register(first + number);
    }
    own.register(first);
    assert_eq!(own.refused(), 0);
    own.register(first - 1);
    watch.drain();
    assert_eq!((own.refused(), watch.capture.own_sockets_refused()), (1, 1));
    own.forget(first);
    own.register(first - 1);
    assert_eq!(own.refused(), 1);
}
