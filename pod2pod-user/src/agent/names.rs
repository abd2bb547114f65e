//! What gives records the names of their ends, where there is a cluster: who is asked, and what each worker gets of it. By what pairs
//! are counted, there and elsewhere.

use std::sync::Arc;

use super::clock;
use crate::{
    admin::Lists,
    behind::{self, Behind, Conntrack},
    config::Config,
    directory::{Cgroups, Directory},
    filter::selection::OBSERVE,
    kubernetes_api::{self, Shared, shared::FirstLists},
    metrics::{
        Metrics, PairMetrics,
        pairs::{By, MAX_ADDRESS_PAIRS},
    },
    mode::Mode,
    named::{
        self, Names, Rules,
        wishes::{BODY_BYTES, HEADERS, SAMPLE},
    },
    shutdown::Shutdown,
    sinks::OwnConnections,
};

/// Who is asked.
pub(super) struct Naming {
    directory: Directory,
    /// Where there is an API server; else there are no workloads and no Services.
    behind: Option<Arc<behind::Shared>>,
    config: named::Config,
}

impl Naming {
    /// Begins to ask the API server. Where none is known pods of this node are told by their cgroups; absent where there are no pods.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(
        config: &Config,
        own: &Arc<OwnConnections>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Self>> {
        let asked = asked(config);
        let server = kubernetes_api::start(&asked, clock::instant, Arc::clone(own), shutdown)?;
        let Some((cluster, cgroups)) =
            server.map(|server| (server, Cgroups::of_host())).or_else(|| alone(&asked))
        else {
            return Ok(None);
        };
        let shown = [config.kubernetes.labels.clone(), config.kubernetes.annotations.clone()];
        let directory = Directory::new(cluster, cgroups, asked.node_name(), shown);
        let is_ipvs_watched = config.ipvs.mode != Mode::Off;
        let behind = directory.cluster().has_server().then(|| Arc::new(behind::Shared::new(is_ipvs_watched)));
        Ok(Some(Self { directory, behind, config: config.naming() }))
    }

    /// A worker's part of it, of `workers`.
    pub(super) fn for_worker(&self, workers: usize) -> Names {
        let mut config = self.config.clone();
        config.max_waiting /= workers.max(1);
        config.max_waiting_bytes /= workers.max(1);
        let mut names = Names::new(config, Box::new(self.directory.clone()));
        if let Some(behind) = &self.behind {
            names.look_behind(Behind::new(Arc::clone(behind), workers, Box::<Conntrack>::default()));
        }
        names
    }

    /// What the watch over IPVS is asked, where there are Services.
    pub(super) fn behind(&self) -> Option<Arc<behind::Shared>> {
        self.behind.clone()
    }

    /// The directory, for what is told of it.
    pub(super) fn directory(self) -> Directory {
        self.directory
    }

    /// How the first lists of the API server stand, for who asks whether the agent is ready; absent where none is asked.
    pub(super) fn lists(&self) -> Option<Box<dyn Fn() -> Lists + Send + Sync>> {
        let cluster = self.directory.cluster().clone();
        cluster.has_server().then(|| {
            let lists = move || match cluster.first_lists() {
                FirstLists::Awaited => Lists::Awaited,
                FirstLists::Complete => Lists::Complete,
                FirstLists::Failed => Lists::Failed,
            };
            Box::new(lists) as Box<dyn Fn() -> Lists + Send + Sync>
        })
    }
}

/// Where pairs are counted.
///
/// # Errors
/// Two metrics have one name.
pub(super) fn pairs(
    naming: Option<&Naming>,
    most: usize,
    metrics: &mut Metrics,
) -> Result<PairMetrics, prometheus::Error> {
    match naming {
        Some(naming) if naming.behind.is_some() => metrics.with_pairs(By::Workloads, most),
        Some(_) | None => metrics.with_pairs(By::Addresses, MAX_ADDRESS_PAIRS),
    }
}

/// No API server is known: who is asked then, if anybody is.
fn alone(asked: &kubernetes_api::Config) -> Option<(Shared, Cgroups)> {
    let remedy = "name a file in kubernetes.kubeconfig";
    if asked.mode == Mode::Off {
        return None;
    }
    let mut cgroups = Cgroups::of_host();
    if cgroups.tell_pods() {
        tracing::warn!(
            remedy,
            "no API server is known: pods of this node are told by their uid, others not at all"
        );
        return Some((kubernetes_api::without_server(asked, clock::instant), cgroups));
    }
    if asked.mode == Mode::On {
        tracing::warn!(remedy, "no API server is known: pods have no names");
    }
    None
}

/// What is to be kept of objects: also what is only asked for.
fn asked(config: &Config) -> kubernetes_api::Config {
    let mut asked = config.kubernetes.clone();
    let named::Config { selection, rules: Rules { sample, headers, body_bytes, .. }, .. } = &config.names;
    asked.labels.extend(selection.label_keys().map(str::to_owned));
    for (is_obeyed, annotation) in [
        (selection.obeys_annotation, OBSERVE),
        (*sample, SAMPLE),
        (*headers, HEADERS),
        (*body_bytes, BODY_BYTES),
    ] {
        asked.annotations.extend(is_obeyed.then(|| annotation.to_owned()));
    }
    asked
}
