//! Asks the API server what there is in the cluster: one list and one watch a kind, on a thread of its own.
//!
//! Whatever goes wrong here, capture goes on and what is known stays. What news mean is not here, but in
//! [`crate::kubernetes::cluster`].

mod access;
mod backoff;
mod connect;
mod follow;
pub mod review;
pub mod shared;
pub mod trouble;
mod wire;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use shared::Shared;
use tokio::sync::Semaphore;

use self::{
    access::{Access, Place},
    backoff::Random,
    follow::Follower,
};
use crate::{
    kubernetes::{
        addresses::MAX_LATENESS,
        cluster::{Cluster, DEFAULT_MAX_BYTES, Ignored, Network},
        objects::Kind,
    },
    mode::Mode,
    restraint::allocator,
    rights::{self, Part},
    shutdown::Shutdown,
    sinks::OwnConnections,
};

/// Agents that start together ask within this time, each at a moment of its own.
pub const MAX_START_DELAY: Duration = Duration::from_secs(1);
/// Pages that are read at a time: more would only take memory.
const PAGES_AT_A_TIME: usize = 1;
/// What is gone for long is forgotten this often.
const FORGET_PERIOD: Duration = Duration::from_secs(10);
/// How often it is looked whether all first lists are complete.
const FIRST_LISTS_PERIOD: Duration = Duration::from_millis(50);

/// How the cluster is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether the API server is asked; auto: in a cluster, or with a kubeconfig.
    pub mode: Mode,
    /// The file that says where the server is and who we are; else `KUBECONFIG`, else what a pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// Name of our own node; else `NODE_NAME`, else the host's name.
    pub node: Option<String>,
    /// Keys of labels that are kept.
    pub labels: Vec<String>,
    /// Keys of annotations that are kept, of the own node's pods.
    pub annotations: Vec<String>,
    /// Networks of pods beside those that are found out.
    pub pod_networks: Vec<Network>,
    /// Bytes of memory that what is known may take.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            kubeconfig: None,
            node: None,
            labels: Vec::new(),
            annotations: Vec::new(),
            pod_networks: Vec::new(),
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

impl Config {
    /// Whether there is somebody to ask.
    pub fn is_asked(&self) -> bool {
        self.mode != Mode::Off && Place::find(self.kubeconfig.as_deref()).is_some()
    }

    /// Name of our own node, if anybody says it.
    pub fn node_name(&self) -> Option<Arc<str>> {
        let of_environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        let of_host = || rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        self.node.clone().or_else(of_environment).or_else(of_host).map(Into::into)
    }

    /// What is kept.
    fn cluster(&self) -> crate::kubernetes::cluster::Config {
        let keys = |keys: &[String]| keys.iter().map(|key| key.as_str().into()).collect();
        crate::kubernetes::cluster::Config {
            node: self.node_name(),
            labels: keys(&self.labels),
            annotations: keys(&self.annotations),
            networks: self.pod_networks.clone(),
            max_bytes: self.max_bytes,
        }
    }
}

/// Starts asking; absent where there is nobody to ask. Nothing waits for an answer here. `clock` is the one of the instants that
/// are asked about.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn start(
    config: &Config,
    clock: fn() -> Duration,
    own: Arc<OwnConnections>,
    shutdown: &Shutdown,
) -> io::Result<Option<Shared>> {
    if config.mode == Mode::Off {
        return Ok(None);
    }
    let Some(place) = Place::find(config.kubeconfig.as_deref()) else {
        return Ok(None);
    };
    let shared = Shared::new(Cluster::new(config.cluster()), clock);
    let told = shared.clone();
    let shutdown = shutdown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
        let _ = rights::keep(Part::Kubernetes, |_| true);
        runtime.block_on(ask(place, own, told, shutdown));
    })?;
    Ok(Some(shared))
}

/// A cluster of which nobody tells: of this node's pods it is known what their cgroups are called.
pub fn without_server(config: &Config, clock: fn() -> Duration) -> Shared {
    let shared = Shared::without_server(Cluster::new(config.cluster()), clock);
    for kind in Kind::ALL {
        // News are not waited for.
        shared.set_lost(kind, Some(clock().saturating_sub(MAX_LATENESS)));
        shared.first_done(kind);
    }
    shared
}

async fn ask(place: Place, own: Arc<OwnConnections>, shared: Shared, shutdown: Shutdown) {
    let mut random = Random::default();
    tokio::time::sleep(random.below(MAX_START_DELAY)).await;
    let access = Arc::new(Access::new(place, own));
    let pages = Arc::new(Semaphore::new(PAGES_AT_A_TIME));
    for kind in Kind::ALL {
        let follower = Follower::new(kind, shared.clone(), Arc::clone(&access), Arc::clone(&pages));
        tokio::spawn(follower.follow());
    }
    while !shared.is_ready() && !shutdown.is_requested() {
        tokio::time::sleep(FIRST_LISTS_PERIOD).await;
    }
    // Pages of lists are megabytes that are not needed again.
    allocator::trim();
    let mut full = Full::default();
    // Nothing waits for the end of this thread.
    while !shutdown.is_requested() {
        full.tell(&shared, Instant::now());
        tokio::time::sleep(FORGET_PERIOD).await;
        shared.forget();
    }
}

/// What was said of objects that there was no room for.
#[derive(Debug, Default)]
struct Full {
    told: u64,
    last: Option<Instant>,
}

impl Full {
    /// Says that there were more, unless that was said lately.
    fn tell(&mut self, shared: &Shared, now: Instant) {
        let (_, stats) = shared.told();
        let refused = stats.ignored[Ignored::Room as usize];
        let quiet = self.last.is_some_and(|last| now.duration_since(last) < trouble::SAID_AGAIN_AFTER);
        if refused == self.told || quiet {
            return;
        }
        (self.told, self.last) = (refused, Some(now));
        tracing::warn!(
            refused,
            known = stats.objects.iter().sum::<u64>(),
            bytes = stats.bytes,
            without = "what there is no room for has no name",
            remedy = "raise limits.memory",
            "the cluster is larger than its share of the memory"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::Change;

    #[test]
    fn a_start_is_spread_over_a_time() {
        let mut random = Random::default();
        let delays: Vec<_> = (0..100).map(|_| random.below(MAX_START_DELAY)).collect();
        assert!(delays.iter().all(|delay| *delay < MAX_START_DELAY));
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*most - *least > MAX_START_DELAY / 2, "{least:?} to {most:?}");
    }

    #[test]
    fn that_there_is_no_room_is_said_once_in_a_time() {
        let config = crate::kubernetes::cluster::Config { max_bytes: 0, ..Default::default() };
        let shared = Shared::new(Cluster::new(config), || Duration::from_secs(100));
        let mut full = Full::default();
        let begin = Instant::now();
        let mut says = |after| {
            full.tell(&shared, begin + after);
            full.told
        };
        assert_eq!(says(Duration::ZERO), 0);
        let node = || {
            let node = serde_json::from_str(r#"{"metadata": {"name": "a"}}"#).unwrap();
            let news = crate::kubernetes::addresses::News::live(Duration::from_secs(100));
            shared.apply(crate::kubernetes::objects::Event::Node(Change::Applied(node)), news);
        };
        node();
        assert_eq!(says(Duration::from_secs(1)), 1);
        node();
        let again = Duration::from_secs(1) + trouble::SAID_AGAIN_AFTER;
        assert_eq!((says(again - Duration::from_nanos(1)), says(again)), (1, 2));
    }

    #[test]
    fn nobody_is_asked_where_it_is_off() {
        let config = Config { mode: Mode::Off, kubeconfig: Some("/nowhere".into()), ..Config::default() };
        let shutdown = Shutdown::without_signals().unwrap();
        assert!(start(&config, || Duration::ZERO, Arc::default(), &shutdown).unwrap().is_none());
    }

    #[test]
    fn the_node_is_the_configured_one() {
        let config = Config { node: Some("a".to_owned()), labels: vec!["b".to_owned()], ..Config::default() };
        let cluster = config.cluster();
        assert_eq!((cluster.node.as_deref(), cluster.labels), (Some("a"), vec!["b".into()]));
        assert!(Config::default().cluster().node.is_some_and(|node| !node.is_empty()));
    }
}
