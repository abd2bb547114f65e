//! An agent that comes after the connection.

use support::world::SERVER_POD;

use super::{
    agent::Agent,
    http::{Body, Client, Server},
    seen::check,
    stage::Stage,
};

#[test]
fn exchanges_of_a_connection_that_was_there_before_are_told_and_marked() {
    let mut stage = Stage::new();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/before/1");
    client.get("/before/2");
    let before = client.done.len();
    let agent = Agent::watch(&stage);
    client.get("/after/1");
    client.post("/after/length/5000", Body::Chunked, 4000);
    client.get("/after/3");
    let records = agent.end().records();
    check(&records, &client.done[before..]);
    assert!(records.iter().all(|seen| seen.joined_late && seen.index.is_none()), "{records:?}");
}
