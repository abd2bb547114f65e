//! The director of a test (`support::director` has the world itself), if this kernel has IPVS.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use support::{
    director::{self, Director, Family, Service, Settings},
    fact,
};

/// Whether this kernel has IPVS; if not, that is told.
pub(crate) fn has_ipvs() -> bool {
    let has = director::has_ipvs();
    if !has {
        fact::lacks("IPVS");
    }
    has
}

#[test]
fn clients_reach_both_servers_in_turn() {
    if !has_ipvs() {
        return;
    }
    for conntrack in [0, 1] {
        let director = Director::new(Settings { conntrack, ..Settings::default() });
        for family in [Family::V4, Family::V6] {
            let service = Service { is_tcp: true, family, port: 80, server_port: 8080 };
            director.serve(service, "");
            let listeners = [0, 1].map(|server| {
                director.servers[server].within(|| TcpListener::bind(service.server(server)).unwrap())
            });
            let served = [1, 0].map(|server| {
                let mut stream = director.client.within(|| TcpStream::connect(service.address()).unwrap());
                let (mut accepted, client) = listeners[server].accept().unwrap();
                assert_eq!(client, stream.local_addr().unwrap(), "masquerading changes the destination only");
                accepted.write_all(b"served").unwrap();
                drop(accepted);
                let mut said = String::new();
                stream.read_to_string(&mut said).unwrap();
                said
            });
            assert_eq!(served, ["served", "served"], "{family:?}");
        }
        let rows = director.read("ip_vs_conn").lines().skip(1).count();
        assert_eq!(rows, 4);
    }
}
