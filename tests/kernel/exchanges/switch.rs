//! The dead man's switch: an agent that stands still costs the machine nothing more.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::world::SERVER_POD;

use super::{
    agent::Agent,
    http::{Client, Server},
    seen::{Exchange, Seen, check, tell},
    stage::Stage,
};

/// The last heartbeat before the stop is at most half a second old, and two seconds is its limit: until here all is told.
const SURELY_WATCHED: Duration = Duration::from_millis(1300);
/// From here on nothing is.
const SURELY_OFF: Duration = Duration::from_millis(2200);
/// How long it stands still.
const STOPPED: Duration = Duration::from_millis(3000);
/// Time between two exchanges.
const PERIOD: Duration = Duration::from_millis(10);

#[test]
fn two_seconds_after_it_stopped_the_programs_return_at_once() {
    let mut stage = Stage::new();
    let agent = Agent::watch(&stage);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/before");
    agent.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut sent: Vec<(Duration, Duration)> = Vec::new();
    while stopped.elapsed() < STOPPED {
        let begun = stopped.elapsed();
        client.get(&format!("/stopped/{}", sent.len()));
        sent.push((begun, stopped.elapsed()));
        thread::park_timeout(PERIOD);
    }
    agent.signal(Signal::SIGCONT);
    agent.wait_metrics("it watches again, and knows that it did not", |metrics| {
        metrics.kernel("heartbeat_stale") > 0 && metrics.balance().is_ok()
    });
    let mut after = Client::connect(&mut stage.client, server.address);
    after.get("/after");
    let records = agent.end().records();

    let done: Vec<Exchange> = client.done.iter().chain(&after.done).cloned().collect();
    let of_time = |within: &dyn Fn(&(Duration, Duration)) -> bool| -> Vec<String> {
        let numbered = sent.iter().enumerate().filter(|(_, times)| within(times));
        numbered.map(|(number, _)| format!("/stopped/{number}")).collect()
    };
    let mut watched = of_time(&|(_, end)| *end < SURELY_WATCHED);
    assert!(watched.len() > 10, "{sent:?}");
    watched.extend(["/before".to_owned(), "/after".to_owned()]);
    let off = of_time(&|(begin, _)| *begin > SURELY_OFF);
    assert!(off.len() > 10, "{sent:?}");
    let is = |seen: &Seen, targets: &[String]| targets.contains(&seen.exchange.target);
    let those: Vec<Seen> = records.iter().filter(|seen| is(seen, &watched)).cloned().collect();
    let watched: Vec<Exchange> = done.into_iter().filter(|done| watched.contains(&done.target)).collect();
    check(&those, &watched);
    let unwatched: Vec<String> =
        records.iter().filter(|seen| is(seen, &off)).map(|seen| format!("{seen:?}")).collect();
    tell(&unwatched, records.len());
}
