//! Memory of an agent with a sink of each kind: when nothing happens, and while one of them is dead and the others are not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::receiver::Receiver;
use crate::{
    Plan, agent,
    memory::{Memory, most},
    observers::{self, Observer, Started, Watching},
    paced::{self, Pace},
    report::{Report, Row},
    say,
    spread::Spread,
    stage::Stage,
};

const IDLE: &str = "sinks: memory with one of each kind, idle, without the ring";
const DEAD: &str = "sinks: memory while one of them is dead, 5 000 requests/s, ring counted once";
/// How long nothing happens.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Load that lets what waits for the dead one fill its queue in seconds: after that nothing grows.
const PACE: Pace = Pace { connections: 100, rate: 5_000, time: Duration::ZERO };
/// A round of a dead sink is so many times as long as one of anything else.
const DEAD_ROUND: u32 = 15;
const MAX_ROUNDS: usize = 3;

/// Measures both.
pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    if !plan.wants(IDLE) && !plan.wants(DEAD) {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    let mut lost = 0.0;
    let rounds = plan.rounds.min(MAX_ROUNDS);
    for round in 1..=rounds {
        say(&format!("{DEAD}, round {round} of {rounds}"));
        let receiver = Receiver::start(true)?;
        let watching = start(plan, &stage, &receiver)?;
        let pid = watching.pid().context("the agent is a process")?;
        let deadline = Instant::now() + IDLE_TIME;
        idle.push(most(pid, || Ok(Instant::now() > deadline))?);
        let mut client = paced::start(&stage, Pace { time: plan.round * DEAD_ROUND, ..PACE })?;
        loaded.push(most(pid, || client.ended())?);
        let answered = client.finish()?;
        let page = watching.page()?;
        lost = agent::value(&page, r#"pod2pod_sink_records_dropped_total{sink="dead",reason="queue_full"}"#)
            .context("there is no count of what the dead one lost")?;
        if lost == 0.0 {
            bail!("{} requests did not fill the queue of the dead one", answered.requests);
        }
        drop(watching);
    }
    let spread =
        |seen: &[Memory], part: fn(&Memory) -> f64| Spread::of(&seen.iter().map(part).collect::<Vec<_>>());
    let row =
        |figure: &str, seen: Option<Spread>| Row::measured(figure, Observer::Pod2pod.name(), "MiB", seen);
    let with_ring = spread(&idle, |memory| memory.resident).map_or(0.0, |spread| spread.median);
    let words = "http, elasticsearch, fluentd, logstash, syslog, syslog over HTTP, file, postgres, otlp";
    let words =
        format!("peak of {:.0} s, {with_ring:.1} MiB with the ring; {words}", IDLE_TIME.as_secs_f64());
    report.push(row(IDLE, spread(&idle, |memory| memory.without_rings)).at_most(24.0).note(words));
    let minutes = (plan.round * DEAD_ROUND).as_secs_f64();
    report.push(row(DEAD, spread(&loaded, |memory| memory.resident)).at_most(64.0).note(format!(
        "peak of {minutes:.0} s; its queue filled, {lost:.0} records were dropped and counted in the last round"
    )));
    Ok(())
}

fn start(plan: &Plan, stage: &Stage, receiver: &Receiver) -> Result<Watching> {
    let (url, dead) = (receiver.url(), observers::free_port()?);
    let file = stage.file("sink").display().to_string();
    let mut settings = Vec::new();
    let mut set = |text: String| settings.extend(["--set".to_owned(), text]);
    // As many sinks as nobody has need more than the usual limit lets them have.
    set("limits.memory=128MiB".to_owned());
    set(format!("sinks.http={url}"));
    set(format!("sinks.dead=http://{dead}/"));
    set("sinks.file.type=file".to_owned());
    set(format!("sinks.file.path={file}"));
    // These find nobody either; they are not asked for anything when nothing happens.
    for (name, scheme, more) in [
        ("es", "http", Some("type=elasticsearch")),
        ("otlp", "http", Some("type=otlp")),
        ("fluentd", "fluentd", None),
        ("logstash", "logstash", None),
        ("syslog", "syslog", None),
        ("old", "syslog+http", None),
        ("db", "postgres", Some("user=pod2pod")),
    ] {
        let database = if scheme == "postgres" { "database" } else { "" };
        set(format!("sinks.{name}.url={scheme}://{dead}/{database}"));
        if let Some(more) = more {
            set(format!("sinks.{name}.{more}"));
        }
        // The load is for the dead one.
        set(format!("sinks.{name}.filter=status=599"));
    }
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    match observers::start(Observer::Pod2pod, &plan.agent, stage, &settings)? {
        Started::Watching(watching) => Ok(watching),
        Started::Unknown(why) => bail!("the agent does not start: {why}"),
    }
}
