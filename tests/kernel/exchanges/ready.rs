//! What `/ready` says of targets that take nothing: it names them, and the agent is as ready as before.

use std::{net::Ipv4Addr, path::Path};

use support::{
    stand_in::{Manner, Protocol, StandIn},
    world::SERVER_POD,
};

use super::{
    agent::{Agent, wait_until},
    http::{Client, Server},
    stage::{Place, Stage},
};

#[test]
fn a_target_that_takes_nothing_is_named_and_the_agent_is_ready() {
    let mut stage = Stage::new();
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let target = StandIn::start(Protocol::Http, here.listen((Ipv4Addr::LOCALHOST, 0)));
    target.behave(Manner::Unavailable);
    let settings = [&format!("sinks.web.url=http://{}/", target.address), "sinks.web.linger=10ms"];
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    let says = || {
        let answer = agent.ready();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert_eq!(says(), "ok\n");
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    Client::connect(&mut stage.client, server.address).get("/it");
    let named = |says: &str| {
        says.starts_with("ok\nsinks.web: its target takes nothing, for ")
            && says.ends_with(" s: unavailable\n")
    };
    wait_until("it is named", || named(&says()));
    target.behave(Manner::Well);
    wait_until("it takes what is sent", || target.unique() == 1);
    wait_until("it is named no more", || says() == "ok\n");
    assert!(agent.end().summary.contains("web: delivered 2, lost 0"));
}
