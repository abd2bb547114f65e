//! Conservation: whatever happens to the agent and to its targets, each record is accounted for.
//!
//! A director, seeded, has traffic made in rounds, and between them and meanwhile kills the agent (SIGKILL), ends it (SIGTERM), holds
//! targets (they read and answer nothing, as a stopped process does: connections and their buffers stay), slows them, makes them
//! answer 503, take a batch and reset the connection instead of the answer, or say nothing at all. What holds:
//!
//! - While an agent lives, and its targets have caught up: received = delivered + dropped, of each sink; and what it delivered is as many
//!   different records as its target took in that time. What the target took more often is a duplicate.
//! - Across a SIGKILL: what the spool had written (`sink_spool_records`) is taken by the target. What was in memory alone goes with the
//!   process: of a round that is under way when the agent is killed records may be missing, but not more than had been neither
//!   delivered nor on disk when the agent was last asked; of other rounds none.
//! - Nothing is taken that was not made.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    metrics::Metrics,
    rng::Rng,
    scale,
    stand_in::{Manner, Protocol, StandIn},
    world::SERVER_POD,
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::Server,
    spool::talk,
    stage::Stage,
};

/// For so many seconds instead of [`TIME`].
const SECONDS_VARIABLE: &str = "POD2POD_TEST_CONSERVATION_SECONDS";
/// Another seed than [`SEED`].
const SEED_VARIABLE: &str = "POD2POD_TEST_CONSERVATION_SEED";
const TIME: Duration = Duration::from_secs(60);
/// Where all is slow.
const LEAST_TIME: Duration = Duration::from_secs(10);
const SEED: u64 = 20_261_123;
/// Exchanges of a round at most.
const MAX_ROUND: usize = 400;
/// A round in which the agent is killed lasts so long at most: metrics are published once a second.
const MAX_KILLED_ROUND: Duration = Duration::from_secs(4);
/// Exchanges between two looks at the metrics there.
const SLICE: usize = 100;
/// And the time.
const SLICE_PAUSE: Duration = Duration::from_millis(50);
/// Batches are small, so that there are many.
const BATCH: usize = 50;
/// For all targets to have caught up: the longest wait before another attempt is half a minute.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(150);
/// Sinks with a server, and what that speaks; one more writes a file.
const SERVED: [(&str, Protocol); 3] =
    [("http", Protocol::Http), ("bulk", Protocol::Bulk), ("forward", Protocol::Forward)];
const FILE: &str = "file";

/// How a target behaves next.
const MANNERS: [Manner; 7] = [
    Manner::Well,
    Manner::Well,
    Manner::Unavailable,
    Manner::Held,
    Manner::Mute,
    Manner::Slow(64),
    Manner::Resets,
];

/// How often each path was taken.
type Taken = HashMap<String, usize>;

/// Targets, by the names of their sinks.
struct Targets {
    servers: [StandIn; SERVED.len()],
    file: PathBuf,
}

impl Targets {
    fn start(folder: &Path) -> Self {
        Self { servers: SERVED.map(|(_, protocol)| StandIn::local(protocol)), file: folder.join("records") }
    }

    fn settings(&self, data_dir: &Path) -> Vec<String> {
        let [http, bulk, forward] = self.servers.each_ref().map(|server| server.address);
        let mut settings = vec![
            AMPLE_RING.to_owned(),
            "roles=server".to_owned(),
            format!("data_dir={}", data_dir.display()),
            format!("sinks.http.url=http://{http}/"),
            "sinks.bulk.type=elasticsearch".to_owned(),
            format!("sinks.bulk.url=http://{bulk}/"),
            format!("sinks.forward.url=fluentd://{forward}"),
            "sinks.file.type=file".to_owned(),
            format!("sinks.file.path={}", self.file.display()),
            "sinks.file.max_file_bytes=100GiB".to_owned(),
        ];
        for name in names() {
            settings.push(format!("sinks.{name}.batch_records={BATCH}"));
            settings.push(format!("sinks.{name}.linger=50ms"));
            settings.push(format!("sinks.{name}.timeout=2s"));
        }
        settings
    }

    /// What each took so far. Of the file, lines that are whole.
    fn taken(&self) -> Vec<Taken> {
        let mut all: Vec<Taken> = self.servers.iter().map(StandIn::taken).collect();
        let text = fs::read(&self.file).unwrap_or_default();
        let mut lines = Taken::new();
        for line in String::from_utf8_lossy(&text).lines() {
            if let Ok(record) = serde_json::from_str::<serde_json::Value>(line)
                && let Some(path) = record["url.path"].as_str()
            {
                *lines.entry(path.to_owned()).or_default() += 1;
            }
        }
        all.push(lines);
        all
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    SERVED.into_iter().map(|(name, _)| name).chain([FILE])
}

fn of(metrics: &Metrics, name: &str, sink: &str) -> u64 {
    metrics.sum(name, &format!("sink=\"{sink}\""))
}

/// The agent of now, and what it should know.
struct Life {
    agent: Agent,
    /// What targets had taken when it began.
    before: Vec<Taken>,
    /// Exchanges made in it.
    made: usize,
}

/// A round in which the agent was killed.
#[derive(Debug)]
struct Killed {
    round: usize,
    made: usize,
    /// Of each sink, how many of its records were delivered or on disk when the agent was last asked.
    safe: Vec<usize>,
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    made: HashSet<String>,
    rounds: usize,
    killed: Vec<Killed>,
    /// Kills beside these.
    kills: usize,
    ends: usize,
}

/// What tells an exchange from all others.
fn path_of(round: usize, exchange: usize) -> String {
    format!("/{round:04}/{exchange:05}")
}

/// Records that are delivered, dropped or on disk.
fn settled(metrics: &Metrics, sink: &str) -> u64 {
    of(metrics, "sink_records_delivered_total", sink)
        + of(metrics, "sink_spool_records", sink)
        + of(metrics, "sink_records_dropped_total", sink)
}

struct Director {
    rng: Rng,
    stage: Stage,
    server: SocketAddr,
    targets: Targets,
    settings: Vec<String>,
    done: Done,
}

impl Director {
    fn begin(&self) -> Life {
        let before = self.targets.taken();
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let agent = Agent::start(Some(self.stage.world.cgroup.path()), &settings);
        Life { agent, before, made: 0 }
    }

    /// Everything that was made is written to disk, or taken.
    fn settle(&self, life: &Life) {
        life.agent.wait_metrics("every record is on disk, or delivered", |metrics| {
            names().all(|sink| {
                let received = of(metrics, "sink_records_received_total", sink);
                let recovered = of(metrics, "sink_spool_records_recovered_total", sink);
                received == recovered + life.made as u64 && received == settled(metrics, sink)
            })
        });
    }

    /// So many exchanges of this round from `first` on, on a connection of their own; they are counted as they are done.
    fn talk(&mut self, life: &mut Life, exchanges: Range<usize>, meanwhile: impl FnOnce(&AtomicUsize)) {
        let (round, progress) = (self.done.rounds, AtomicUsize::new(0));
        let stream = self.stage.client.connect(self.server);
        let path = |exchange: usize| path_of(round, exchanges.start + exchange);
        thread::scope(|scope| {
            let talking = scope.spawn(|| talk(stream, exchanges.len(), &path, &progress));
            meanwhile(&progress);
            talking.join().unwrap();
        });
        self.done.made.extend(exchanges.clone().map(|exchange| path_of(round, exchange)));
        life.made += exchanges.len();
    }

    /// A round with all that is well as it is.
    fn round(&mut self, life: &mut Life) {
        let count = 1 + self.rng.below(MAX_ROUND);
        self.talk(life, 0..count, |_| ());
        self.done.rounds += 1;
    }

    /// A round in which the agent is killed. What it said last of how many are safe holds.
    fn killed_round(&mut self, mut life: Life) {
        self.settle(&life);
        let (begin, before) = (Instant::now(), life.made);
        let most = MAX_KILLED_ROUND.mul_f64(self.rng.below(100) as f64 / 100.0);
        let (mut exchanges, mut safe) = (0..0, Vec::new());
        while begin.elapsed() < most {
            exchanges = exchanges.end..exchanges.end + SLICE;
            self.talk(&mut life, exchanges.clone(), |_| ());
            let metrics = life.agent.metrics();
            safe = names()
                .map(|sink| {
                    let recovered = of(&metrics, "sink_spool_records_recovered_total", sink) as usize;
                    (settled(&metrics, sink) as usize).saturating_sub(recovered + before)
                })
                .collect();
            let next = Instant::now() + SLICE_PAUSE;
            while Instant::now() < next {
                thread::park_timeout(SLICE_PAUSE);
            }
        }
        exchanges = exchanges.end..exchanges.end + 2 * SLICE;
        let id = Pid::from_raw(life.agent.id().cast_signed());
        self.talk(&mut life, exchanges.clone(), |progress| {
            while progress.load(Ordering::SeqCst) < SLICE {
                thread::yield_now();
            }
            kill(id, Signal::SIGKILL).unwrap();
        });
        safe.resize(names().count(), 0);
        self.done.killed.push(Killed { round: self.done.rounds, made: exchanges.end, safe });
        self.done.rounds += 1;
    }

    /// Whatever comes next.
    fn step(&mut self, mut life: Life) -> Life {
        match self.rng.below(10) {
            0 | 1 => self.killed_round(life),
            // Killed when everything is safe.
            2 => {
                self.settle(&life);
                life.agent.signal(Signal::SIGKILL);
                self.done.kills += 1;
                drop(life);
            }
            3 => {
                self.done.ends += 1;
                let told = life.agent.end();
                assert!(told.summary.contains("lost 0"), "{}", told.summary);
            }
            _ => {
                let server = self.rng.below(self.targets.servers.len());
                self.targets.servers[server].behave(MANNERS[self.rng.below(MANNERS.len())]);
                self.round(&mut life);
                return life;
            }
        }
        self.begin()
    }

    /// Targets are well again, and catch up. What is made here is written behind what was on disk: an agent that has just begun says that
    /// it has nothing, and what it has of this it cannot have dealt with before it knows of all that.
    fn finish(&mut self, life: &mut Life) -> Metrics {
        self.targets.servers.iter().for_each(|server| server.behave(Manner::Well));
        self.round(life);
        life.agent.wait_metrics_for(MAX_WAIT, "targets have caught up", |metrics| {
            metrics.sum("ledger_balanced", "") == 1
                && names().all(|sink| {
                    let received = of(metrics, "sink_records_received_total", sink);
                    let recovered = of(metrics, "sink_spool_records_recovered_total", sink);
                    received == recovered + life.made as u64
                        && received == settled(metrics, sink)
                        && of(metrics, "sink_spool_records", sink) == 0
                })
        })
    }
}

/// What targets took is what was made and told.
fn check(director: &Director, life: &Life, metrics: &Metrics) {
    let Done { made, rounds, killed, kills, ends } = &director.done;
    let mut rows = Vec::new();
    for (place, ((sink, taken), before)) in
        names().zip(&director.targets.taken()).zip(&life.before).enumerate()
    {
        let strange: Vec<_> = taken.keys().filter(|path| !made.contains(*path)).collect();
        assert!(strange.is_empty(), "{sink} took what nobody made: {strange:?}");
        let mut missing: HashSet<&String> = made.iter().filter(|path| !taken.contains_key(*path)).collect();
        let in_memory = missing.len();
        for Killed { round, made, safe } in killed {
            let begins = format!("/{round:04}/");
            let lost = missing.extract_if(|path| path.starts_with(&begins)).count();
            assert!(lost <= made - safe[place], "{sink}: {lost} of {made} lost, {} were safe", safe[place]);
        }
        assert!(missing.is_empty(), "{sink} never took {missing:?}");
        let in_life = taken.iter().filter(|(path, times)| before.get(*path).is_none_or(|old| old < times));
        let delivered = of(metrics, "sink_records_delivered_total", sink);
        assert_eq!(delivered, in_life.count() as u64, "{sink}: what was delivered, and what was taken");
        assert_eq!(of(metrics, "sink_records_dropped_total", sink), 0, "{sink}");
        let duplicates = taken.values().sum::<usize>() - taken.len();
        let (unique, safe) = (taken.len(), killed.iter().map(|killed| killed.safe[place]).sum::<usize>());
        rows.push(format!(
            "{sink}: {unique} unique, {duplicates} duplicates, {in_memory} in memory at a kill; {safe} of rounds with a kill were told safe"
        ));
    }
    eprintln!(
        "{} made in {rounds} rounds, {} of them with a kill and {} records; {kills} other kills, {ends} ends\n{}",
        made.len(),
        killed.len(),
        killed.iter().map(|killed| killed.made).sum::<usize>(),
        rows.join("\n")
    );
}

#[test]
fn every_record_is_accounted_for_whatever_happens() {
    let number = |variable| std::env::var(variable).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number(SEED_VARIABLE).unwrap_or(SEED);
    let time = number(SECONDS_VARIABLE).map_or_else(|| scale::time(TIME, LEAST_TIME), Duration::from_secs);
    eprintln!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new();
    let targets = Targets::start(folder.path());
    let settings = targets.settings(folder.path());
    let mut director = Director {
        rng: Rng::new(seed),
        server: ([0; 4], 0).into(),
        stage,
        targets,
        settings,
        done: Done::default(),
    };
    let server = Server::start(director.stage.server.listen((SERVER_POD.v4, 0)));
    director.server = server.address;
    let mut life = director.begin();
    let until = Instant::now() + time;
    while Instant::now() < until {
        life = director.step(life);
    }
    let metrics = director.finish(&mut life);
    check(&director, &life, &metrics);
    let told = life.agent.end();
    assert!(told.summary.contains("lost 0"), "{}", told.summary);
}
