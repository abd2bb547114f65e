//! Bodies much larger and segments much smaller than usual.

use std::net::SocketAddr;

use pod2pod_common::limits::CREDIT_BYTES;
use support::{scale, world::SERVER_POD};

use super::{
    agent::Agent,
    http::{Body, Client, Server},
    seen::check,
    stage::Stage,
};

/// More than any buffer between the ends; where all is slow, more than they are at first.
const LARGE: u64 = 10 * 1024 * 1024;
const LEAST_LARGE: u64 = 1024 * 1024;

/// A chunked body is counted while it is read: beyond the credit its size is a lower bound.
const WITHIN_CREDIT: u64 = CREDIT_BYTES as u64 / 4;

/// All that passes here, read or not: four bodies at two ends.
const RING_OF_ALL: &str = "capture.ring_bytes=128MiB";

#[test]
fn bodies_are_counted_to_the_byte_in_segments_of_any_size() {
    let large = scale::bytes(LARGE, LEAST_LARGE);
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[RING_OF_ALL]);
    let server = Server::start(stage.server.listen(SocketAddr::from((SERVER_POD.v4, 0))));
    let mut client = Client::connect(&mut stage.client, server.address);
    let exchanges: [(&str, Body, u64); 8] = [
        ("/up/known", Body::Length, large),
        ("/up/chunked", Body::Chunked, WITHIN_CREDIT),
        (&format!("/down/length/{large}"), Body::Length, 0),
        (&format!("/down/chunked/{WITHIN_CREDIT}"), Body::Length, 0),
        ("/between", Body::Length, 1),
        // Every byte a segment.
        ("/bytes/none/length/0", Body::Length, 0),
        ("/bytes/some/length/50", Body::Length, 60),
        ("/bytes/some/chunked/70", Body::Chunked, 80),
    ];
    for (target, body, size) in exchanges {
        client.post(target, body, size);
    }
    check(&agent.end().records(), &client.done);
}
