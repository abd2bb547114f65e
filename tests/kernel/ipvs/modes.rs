//! `pod2pod ipvs` in each of its modes over a director's live table: exact mode where the kernel can be followed, with polling
//! beside it, and polling with the reason where it cannot.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use pod2pod_user::{
    capture::kernel::{Decisions, DecisionsConfig},
    ipvs::state::State,
};
use serde_json::Value;
use support::{
    director::{Director, Family, Settings},
    process::{BINARY_VARIABLE, Finished, Running, binary},
    scale::SCALE_VARIABLE,
};

use super::followed::{From, World, end, service};

const MODE_OFF: Settings = Settings { conn_reuse_mode: 0, expire_nodest_conn: 0, conntrack: 0 };

/// The real watch in the director's namespace.
fn watch(director: &Director, mode: &str) -> Running {
    let mut command = Command::new(binary());
    command.args(["ipvs", "--mode", mode, "--interval", "100ms", "--format", "json", "--log-level", "debug"]);
    command.env_remove(BINARY_VARIABLE).env_remove(SCALE_VARIABLE);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    director.node.within(|| Running::start(command))
}

/// Waits until it has polled twice from now on.
fn polled(watch: &Running) {
    let polls = |said: &str| said.matches(" polled ").count();
    let wanted = polls(&watch.stderr()) + 2;
    watch.wait_stderr(|said| polls(said) >= wanted);
}

fn ended(watch: Running) -> Finished {
    watch.signal(Signal::SIGTERM);
    watch.finish()
}

/// What was told of a client.
fn told(finished: &Finished, from: From) -> Vec<Value> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line["client.port"] == from.1).collect()
}

/// A client whose old entry takes its new connection, and one whose SYN is dropped: its server is removed.
fn reused_and_dropped(world: &mut World, watches: &[&Running]) -> (From, From) {
    let (kept, lost) = (world.client(Family::V4), world.client(Family::V6));
    let servers = [kept, lost].map(|from| world.ended_in(State::TimeWait, from));
    watches.iter().for_each(|watch| polled(watch));
    world.director.remove(service(Family::V6), servers[1]);
    let dialed = world.dial(kept);
    let served = world.served(dialed);
    assert_eq!(served.server, servers[0]);
    let _lost = world.dial(lost);
    watches.iter().for_each(|watch| polled(watch));
    (kept, lost)
}

fn can_be_followed() -> bool {
    // Loading is tried in full: rights and probes are there too.
    Decisions::open(&DecisionsConfig::default()).is_ok()
}

#[test]
fn both_modes_side_by_side() {
    let Some(mut world) = World::unfollowed(MODE_OFF) else { return };
    let [auto, polling] = ["auto", "polling"].map(|mode| watch(&world.director, mode));
    let says = if can_be_followed() { "is followed" } else { ": polling." };
    auto.wait_stderr(|said| said.contains(says));
    // As many polls as a change may span: from there on all was followed.
    (0..2).for_each(|_| polled(&auto));
    let (kept, lost) = reused_and_dropped(&mut world, &[&auto, &polling]);
    if can_be_followed() {
        auto.wait_stdout(|text| text.contains("\"dropped\""));
    }
    let [auto, polling] = [auto, polling].map(ended);
    assert_eq!((auto.code, polling.code), (Some(0), Some(0)), "{auto:?} {polling:?}");

    let found = told(&polling, kept);
    let [found] = &found[..] else { panic!("{polling:?}") };
    assert_eq!((&found["ipvs.detector"], &found["ipvs.reuse"]), (&"polling".into(), &"certain".into()));
    assert_eq!(told(&polling, lost), [] as [Value; 0], "a drop shows in no table: {polling:?}");
    assert!(!polling.stderr.contains("exact mode"), "{polling:?}");

    let known = told(&auto, kept);
    let [known] = &known[..] else { panic!("told once: {auto:?}") };
    for key in ["ipvs.verdict", "ipvs.reuse", "ipvs.severity", "ipvs.situation", "ipvs.real_server.address"] {
        assert_eq!(known[key], found[key], "{key}: {auto:?} {polling:?}");
    }
    assert_eq!(known["ipvs.state_before"], "TIME_WAIT");
    if !can_be_followed() {
        let reason = "exact mode: this kernel does not describe the types of its modules";
        assert_eq!(auto.stderr.matches(reason).count(), 1, "{auto:?}");
        assert_eq!(known["ipvs.detector"], "polling");
        return;
    }
    assert_eq!(known["ipvs.detector"], "exact");
    let dropped = told(&auto, lost);
    assert!(!dropped.is_empty(), "{auto:?}");
    for dropped in &dropped {
        assert_eq!(dropped["ipvs.verdict"], "dropped", "{auto:?}");
        assert_eq!(dropped["ipvs.situation"], "removed_server_dropped");
        assert_eq!(dropped["ipvs.real_server.absent"], true);
        let server = [0, 1].map(|server| end(Family::V6, server).0.to_string());
        assert!(server.contains(&dropped["ipvs.real_server.address"].as_str().unwrap().to_owned()));
    }
    // Of the kernel's counts: two new, one reused, and as many drops as were told.
    let counts = format!("new 2, reused 1, rescheduled 0, dropped {}, ", dropped.len());
    assert!(auto.stderr.contains(&counts), "{counts} in {auto:?}");
    assert!(
        auto.stderr.contains(
            "lost 0, ring full 0, unreadable 0, probes missed 0; of polling, told before 1, disproved 0, unexplained 0"
        ),
        "{auto:?}"
    );
}

#[test]
fn exact_mode_alone() {
    let Some(mut world) = World::unfollowed(MODE_OFF) else { return };
    let exact = watch(&world.director, "exact");
    if !can_be_followed() {
        let finished = exact.finish();
        assert_eq!(finished.code, Some(77), "{finished:?}");
        assert!(finished.stderr.contains("exact mode is not to be had: "), "{finished:?}");
        return;
    }
    exact.wait_stderr(|said| said.contains("is followed"));
    let (kept, _) = reused_and_dropped(&mut world, &[]);
    exact.wait_stdout(|text| text.contains("\"reused\"") && text.contains("\"dropped\""));
    let finished = ended(exact);
    assert_eq!((finished.code, told(&finished, kept).len()), (Some(0), 1), "{finished:?}");
    assert!(finished.stderr.contains("polls 0, rows 0"), "no table is read: {finished:?}");
}
