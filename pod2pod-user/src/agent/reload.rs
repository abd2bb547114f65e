//! Reads the configuration again, when it is asked for by SIGHUP or its file has changed, and changes what can be changed while the agent
//! runs: the further sinks, each with its filter, fields and share, and the agent's own filter. A configuration with mistakes changes
//! nothing.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::worker::Worker;
use crate::{
    capture::kernel::Capture,
    config::{
        Config,
        load::{self, ENVIRONMENT_FILE, Mistake, Sources},
        shown::Said,
        targets::name_and_key,
    },
    delivery::Overflow,
    filter::{self, Selection},
    pipeline,
    rights::{self, Part},
    shutdown::Shutdown,
    sinks::{OwnConnections, SinkConfig, SinkSet, set::MAX_LEAVE},
};

/// A sink that takes another's place waits this long for its spool: until that has left, and is seen to have.
const PATIENCE: Duration = MAX_LEAVE.saturating_add(Duration::from_secs(5));

/// What a file is known by: another file may have its name, as where a ConfigMap is mounted.
type Seen = Option<(u64, u64, i64, i64)>;

/// Keys of sinks that say which records they are given.
const ROUTE_KEYS: [&str; 2] = [".filter", ".sample"];

/// Keys that are followed beside those of sinks: which connections and exchanges are wanted.
const FILTER_KEYS: [&str; 2] = ["filter.", "roles"];
/// But not these: which labels are asked for is decided at the start.
const LABEL_KEYS: [&str; 2] = ["filter.labels", "filter.ignore_labels"];

/// What is there now, and what it was made of.
pub(super) struct Reload {
    sources: Sources,
    file: Option<PathBuf>,
    seen: Seen,
    said: Vec<Said>,
    /// Others of the filter's rules, until the workers have them.
    rules: Option<Box<(filter::Config, Selection)>>,
    /// A packet file is written, by rules that have to stay.
    is_recording: bool,
    own: Arc<OwnConnections>,
    set: Arc<SinkSet>,
    shutdown: Shutdown,
    /// It is being read: on a thread of its own, since a filter may have names that are looked up.
    reading: Option<JoinHandle<Result<Config, Vec<Mistake>>>>,
}

/// What became of the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reloads {
    /// Configurations that were taken.
    pub(super) taken: u64,
    /// Configurations with mistakes, which changed nothing.
    pub(super) refused: u64,
}

impl Reload {
    /// Of what was read at the start.
    pub(super) fn new(
        config: &Config,
        own: &Arc<OwnConnections>,
        set: &Arc<SinkSet>,
        shutdown: &Shutdown,
    ) -> Self {
        shutdown.take_reloads();
        let Config { sources, said, .. } = config;
        let of_environment = sources.environment.iter().find(|(name, _)| name == ENVIRONMENT_FILE);
        let file = sources.file.clone().or_else(|| of_environment.map(|(_, path)| path.into()));
        let seen = file.as_deref().and_then(look);
        let (own, set, shutdown) = (Arc::clone(own), Arc::clone(set), shutdown.clone());
        let (sources, said, is_recording) = (sources.clone(), said.clone(), config.pcap.file.is_some());
        Self { sources, file, seen, said, rules: None, is_recording, own, set, shutdown, reading: None }
    }

    /// Looks whether there is something new, and does what it says.
    pub(super) fn keep(&mut self, reloads: &mut Reloads, now: Instant) {
        for (name, stats) in self.set.keep(now) {
            let (delivered, lost, kept) = (stats.delivered, stats.lost(), stats.kept);
            tracing::info!(sink = &*name, delivered, lost, kept, "the sink has ended");
        }
        match self.reading.take() {
            None => self.begin(),
            Some(reading) if !reading.is_finished() => self.reading = Some(reading),
            Some(reading) => match reading.join() {
                Ok(Ok(config)) => self.take(config, reloads, now),
                Ok(Err(mistakes)) => {
                    reloads.refused += 1;
                    for mistake in mistakes {
                        tracing::error!("the configuration stays as it was: {mistake}");
                    }
                }
                Err(_) => {
                    reloads.refused += 1;
                    tracing::error!("the configuration stays as it was: reading it panicked");
                }
            },
        }
    }

    /// Begins to read if there is something new.
    fn begin(&mut self) {
        let seen = self.file.as_deref().and_then(look);
        let is_asked = self.shutdown.is_reload_requested();
        // A file that is being replaced is not there for a moment.
        if !is_asked && (seen == self.seen || seen.is_none()) {
            return;
        }
        self.seen = seen;
        let sources = self.sources.clone();
        let thread = thread::Builder::new().name("configuration".to_owned());
        match thread.spawn(move || {
            // Reading needs no right; what is refused stays.
            let _ = rights::keep(Part::Signals, |_| false);
            load::load(&sources)
        }) {
            Ok(reading) => self.reading = Some(reading),
            Err(error) => tracing::error!("the configuration is not read again: {error}"),
        }
    }

    fn take(&mut self, mut config: Config, reloads: &mut Reloads, now: Instant) {
        // Too little memory is a mistake, and was told as such.
        let _ = config.divide_memory();
        let mut others = other_keys(&self.said, &config.said);
        let all = others.len();
        others.retain(|key| self.is_recording || !is_followed(key));
        let has_rules = others.len() < all;
        if !others.is_empty() {
            let keys = others.join(", ");
            tracing::warn!(keys, "these are as they were until the agent is started again");
        }
        let is_new = |sink: &&SinkConfig| !is_same(&self.said, &config.said, &sink.common.name);
        let new: Vec<_> = config.sinks.iter().filter(is_new).collect();
        let open = |sink: &&SinkConfig| {
            pipeline::open_sink(&config, sink, Overflow::DropNewest, &self.own, PATIENCE, &self.shutdown)
        };
        let opened = new.iter().map(open);
        match opened.collect::<anyhow::Result<Vec<_>>>() {
            Ok(opened) => {
                let route = |name: &str| {
                    let is_new = new.iter().any(|sink| *sink.common.name == *name);
                    let sink = config.sinks.iter().find(|sink| *sink.common.name == *name && !is_new);
                    sink.map(|sink| sink.common.route.clone())
                };
                self.set.change(route, opened, now);
                reloads.taken += 1;
                if has_rules {
                    self.rules = Some(Box::new((config.filter.clone(), config.names.selection.clone())));
                }
                let sinks: Vec<_> = config.sinks.iter().map(|sink| &*sink.common.name).collect();
                tracing::info!(sinks = sinks.join(", "), "the configuration was read again");
                self.said = config.said;
            }
            Err(error) => {
                reloads.refused += 1;
                tracing::error!("the configuration stays as it was: {error:#}");
            }
        }
    }
}

impl Reload {
    /// Has others of the filter's rules hold if there are any. Nobody reads for so long: some microseconds a connection that was refused.
    pub(super) fn refilter(&mut self, capture: &mut Capture, workers: &mut [MutexGuard<'_, Worker>]) {
        let Some(rules) = self.rules.take() else { return };
        let (filter, selection) = *rules;
        workers.iter_mut().for_each(|worker| worker.pipeline.refilter(&filter, &selection));
        match (capture.unwanted(), workers.first_mut()) {
            (Ok(ends), Some(worker)) => worker.reader.meet_anew(&ends),
            (Err(error), _) => {
                tracing::warn!(%error, "connections that were refused stay so until they end");
            }
            (Ok(_), None) => {}
        }
    }
}

/// Whether another value of a key holds at once.
fn is_followed(key: &str) -> bool {
    FILTER_KEYS.iter().any(|followed| key.starts_with(followed)) && !LABEL_KEYS.contains(&key)
}

/// Whether the same is said of the sink of that name, but perhaps for which records it is given.
fn is_same(before: &[Said], now: &[Said], name: &str) -> bool {
    let said = |said| {
        let mut said = of_sink(said, name);
        said.retain(|(key, _)| !ROUTE_KEYS.iter().any(|route| key.ends_with(route)));
        said
    };
    said(before) == said(now)
}

fn look(file: &Path) -> Seen {
    let told = fs::metadata(file).ok()?;
    Some((told.dev(), told.ino(), told.mtime(), told.mtime_nsec()))
}

/// What was said of one sink: keys and values, in the order in which they count.
fn of_sink<'a>(said: &'a [Said], name: &str) -> Vec<(&'a str, &'a str)> {
    let of = said.iter().filter(|said| name_and_key(&said.key).is_some_and(|(sink, _)| sink == name));
    of.map(|said| (said.key.as_str(), said.text.as_str())).collect()
}

/// Keys of no sink whose values are others.
fn other_keys(before: &[Said], now: &[Said]) -> Vec<String> {
    let last =
        |said: &[Said], key: &str| said.iter().rfind(|said| said.key == key).map(|said| said.text.clone());
    let mut keys: Vec<_> = before.iter().chain(now).map(|said| said.key.clone()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| name_and_key(key).is_none() && last(before, key) != last(now, key));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Vec<Said> {
        let one = |(key, text): &(&str, &str)| Said {
            key: (*key).to_owned(),
            text: (*text).to_owned(),
            source: String::new(),
        };
        pairs.iter().map(one).collect()
    }

    #[test]
    fn what_is_other_is_told_by_its_key() {
        let before = said(&[("a", "1"), ("b", "1"), ("b", "2"), ("sinks.x.url", "1"), ("d", "1")]);
        let now = said(&[("b", "2"), ("a", "2"), ("sinks.x.url", "2"), ("c", "1"), ("d", "1")]);
        assert_eq!(other_keys(&before, &now), ["a", "c"]);
        assert!(["filter.ports", "filter.ignore_pods", "roles"].into_iter().all(is_followed));
        assert!(!["filter.labels", "filter.ignore_labels", "output.file"].into_iter().any(is_followed));
        assert_eq!(of_sink(&before, "x"), [("sinks.x.url", "1")]);
        assert_eq!(of_sink(&before, "y"), []);
        let stays = |before: &[(&str, &str)]| is_same(&said(before), &now, "x");
        assert!(!stays(&[("sinks.x.url", "1")]) && !stays(&[("a", "1")]));
        assert!(stays(&[("sinks.x.url", "2"), ("sinks.x.filter", "kind=http")]));
    }
}
