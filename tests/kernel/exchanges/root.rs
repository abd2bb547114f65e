//! The whole machine, as without any configuration.

use support::world::SERVER_POD;

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Client, Server},
    seen::{Seen, check},
    stage::Stage,
};

#[test]
fn the_root_sees_what_is_below_it() {
    let mut stage = Stage::new();
    let agent = Agent::start(None, &[AMPLE_RING]);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    // Other programs of the machine are seen too.
    let mine = format!("/root-{}/", std::process::id());
    for number in 0..10 {
        client.get(&format!("{mine}{number}"));
    }
    let told = agent.end();
    let lines = told.text.lines().filter(|line| line.contains(&mine));
    let records: Vec<Seen> = lines.flat_map(Seen::parse).collect();
    check(&records, &client.done);
}
