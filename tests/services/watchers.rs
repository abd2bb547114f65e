//! What is known of a cluster by watching its API server: who had an address when while pods come and go, and what remains known when
//! the server stops, forgets, refuses. The truth is the test's own.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pod2pod_user::{
    kubernetes::{
        addresses::{Found, MAX_AFTERLIFE, MAX_LATENESS},
        identity::{self, Identity, WorkloadKind},
        objects::Kind,
    },
    kubernetes_api::{self, Config, Shared},
    mode::Mode,
    shutdown::Shutdown,
};
use support::{
    kubernetes::{
        churn::{self, Churn, Plan, Tenancy},
        client::{Client, Request},
        objects::{self, Owner, Pod},
        population,
        server::ApiServer,
    },
    rng::Rng,
};

use crate::until;

/// The user that watches.
const USER: &str = "pod2pod-agent";
/// The nodes.
const NODES: [(&str, &str, IpAddr); 2] = [
    ("node-a", "zone-1", IpAddr::V4(Ipv4Addr::new(192, 168, 7, 1))),
    ("node-b", "zone-2", IpAddr::V4(Ipv4Addr::new(192, 168, 7, 2))),
];
/// Pods that come and go, addresses for them, and of these the ones that are given on at once.
const CHURN: (usize, u32, usize) = (1_000, 280, 60);
/// Threads that make them come and go.
const CHURN_THREADS: usize = 4;
/// How long news may be on their way to the watcher, on a machine that does other things too.
const MARGIN: Duration = Duration::from_secs(2);
/// Deployments that they are of.
const DEPLOYMENTS: usize = 20;
/// Exchanges between two looks at the clock.
const PAUSE: Duration = Duration::from_micros(500);
/// Share of exchanges that must be named, of those that can be.
const LEAST_RIGHT: f64 = 0.999;
/// There are so many of them at least.
const LEAST_KNOWN: usize = 10_000;

/// The clock of all instants here.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn clock() -> Duration {
    BEGIN.elapsed()
}

/// Who watches, as long as this lives.
struct Watching {
    shared: Shared,
    shutdown: Shutdown,
}

impl Watching {
    /// As the user, with its kubeconfig; returns when the first lists are there.
    fn begin(server: &ApiServer) -> Self {
        let config = Config {
            mode: Mode::On,
            kubeconfig: Some(server.kubeconfig(USER)),
            node: Some("node-a".to_owned()),
            ..Config::default()
        };
        let shutdown = Shutdown::without_signals().expect("a descriptor");
        let shared = kubernetes_api::start(&config, clock, Arc::default(), &shutdown);
        let shared = shared.expect("a thread").expect("a server");
        let watching = Self { shared, shutdown };
        until(|| watching.shared.is_ready());
        watching
    }

    /// Who has the address at this moment.
    fn find(&self, address: IpAddr) -> Found<Identity> {
        let view = self.shared.view();
        self.shared.read().remote(SocketAddr::new(address, 0), view.now, view)
    }

    /// The name of the pod that is known to have the address, now and for certain.
    fn pod(&self, address: IpAddr) -> Option<String> {
        match self.find(address) {
            Found::Held(identity) => identity.pod.map(|pod| pod.name.to_string()),
            Found::Early(..) | Found::Stale(_) | Found::Nobody | Found::Several => None,
        }
    }
}

impl Watching {
    /// Who had the address, or when to ask again.
    fn answer(&self, exchange: Exchange) -> Result<Answer, Duration> {
        let view = self.shared.view();
        let at = exchange.at.duration_since(*BEGIN);
        let found = self.shared.read().remote(SocketAddr::new(exchange.address, 0), at, view);
        match found {
            Found::Held(identity) | Found::Stale(identity) => Ok(identity.pod.ok_or("no pod")),
            Found::Early(when, _) if when > view.now => Err(when),
            Found::Early(..) => Ok(Err("early")),
            Found::Several => Ok(Err("several")),
            Found::Nobody => Ok(Err("nobody")),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// A server with nodes, a namespace, and a user who may read what an agent reads.
fn cluster() -> (ApiServer, Client) {
    LazyLock::force(&BEGIN);
    let mut server = ApiServer::start();
    server.add_user(USER, "");
    server.restart();
    let admin = server.admin();
    population::role(&admin, USER, &population::reading_rules(), &population::user(USER));
    population::namespaces(&admin, &["shop"]);
    population::nodes(&admin, &NODES);
    let client = server.client(USER);
    until(|| client.status(&Request::get("/apis/batch/v1/jobs")) == 200);
    (server, admin)
}

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0af4_0100 + number).to_be_bytes())
}

fn run(admin: &Client, owner: &Owner, name: &str, number: u32) {
    let pod = Pod::new("shop", name, "node-b").owned(owner);
    population::running_pods(admin, NODES[1].2, &[(pod, address(number))]);
}

/// An exchange: who truly had the address, and when.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    tenancy: usize,
    address: IpAddr,
    at: Instant,
}

/// What is answered in the end: the pod, or why there is none.
type Answer = Result<Arc<identity::Pod>, &'static str>;

/// What came of exchanges.
#[derive(Debug, Default)]
struct Score {
    right: usize,
    unnamed: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Score {
    fn total(&self) -> usize {
        self.right + self.unnamed.values().sum::<usize>() + self.wrong.len()
    }

    fn share(&self) -> f64 {
        self.right as f64 / self.total().max(1) as f64
    }

    fn add(&mut self, exchange: Exchange, answer: Answer, truth: &Tenancy) {
        let pod = match answer {
            Ok(pod) => pod,
            Err(why) => {
                *self.unnamed.entry(why).or_default() += 1;
                return;
            }
        };
        let deployment = truth.owner.rsplit_once('-').map(|(name, _)| (WorkloadKind::Deployment, name));
        let workload = pod.workload.as_ref().map(|workload| (workload.kind, &*workload.name));
        let is_its = *pod.name == *truth.name
            && format!("{:?}", pod.uid) == truth.uid.replace('-', "")
            && workload == deployment;
        if is_its {
            self.right += 1;
        } else {
            self.wrong.push(format!("{exchange:?} of {truth:?}, told {pod:?}"));
        }
    }
}

/// Asks about exchanges while pods come and go, each at once, and again when more is known. All answers, and how many waited.
fn ask(churn: &Churn, watching: &Watching, rng: &mut Rng) -> (Vec<(Exchange, Answer)>, usize) {
    let mut answers = Vec::new();
    let mut waiting: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    let mut asked: Vec<Exchange> = Vec::new();
    let mut waited = 0;
    while !churn.is_done() || !waiting.is_empty() {
        if !churn.is_done()
            && let Some((tenancy, address, at)) = churn.somebody(rng)
        {
            let exchange = Exchange { tenancy, address, at };
            asked.push(exchange);
            match watching.answer(exchange) {
                Ok(answer) => answers.push((exchange, answer)),
                Err(when) => waiting.push(Reverse((when, asked.len() - 1))),
            }
        }
        while let Some(Reverse((when, index))) = waiting.peek().copied()
            && when <= clock()
        {
            waiting.pop();
            waited += 1;
            let answer = watching.answer(asked[index]).unwrap_or(Err("early"));
            answers.push((asked[index], answer));
        }
        thread::park_timeout(PAUSE);
    }
    (answers, waited)
}

#[test]
fn a_thousand_pods_that_take_each_others_addresses_are_never_mistaken() {
    let seed = 0x5eed_0006;
    let (server, admin) = cluster();
    let names: Vec<String> = (0..DEPLOYMENTS).map(|number| format!("app-{number}")).collect();
    let owners = population::deployments(&admin, "shop", &names);
    let (pods, addresses, swift) = CHURN;
    let watching = Watching::begin(&server);
    let begin = Instant::now() + MAX_AFTERLIFE + MARGIN;
    let plan = Plan {
        seed,
        nodes: NODES.iter().map(|(name, _, address)| ((*name).to_owned(), *address)).collect(),
        owners: owners.into_iter().map(|owner| ("shop".to_owned(), owner)).collect(),
        addresses: (0..addresses).map(address).collect(),
        swift,
        pods,
    };
    let churn = Churn::begin(plan, (0..CHURN_THREADS).map(|_| server.admin()).collect());
    let (answers, waited) = ask(&churn, &watching, &mut Rng::new(seed));
    let truth = churn.end();
    assert_eq!(truth.len(), pods, "seed {seed:#x}");
    let [mut known, mut open] = [Score::default(), Score::default()];
    for (exchange, answer) in answers {
        let Exchange { tenancy, at, .. } = exchange;
        // Who had an address before the first list may have gone on for so long.
        let is_knowable = at > begin && churn::is_knowable(&truth, tenancy, at, MAX_LATENESS, MARGIN);
        let score = if is_knowable { &mut known } else { &mut open };
        score.add(exchange, answer, &truth[tenancy]);
    }
    for (score, what) in [(&known, "can be known"), (&open, "may be another's")] {
        println!(
            "{what}: {} exchanges, {:.3} % right, {} wrong, unnamed {:?}",
            score.total(),
            score.share() * 100.0,
            score.wrong.len(),
            score.unnamed,
        );
        assert!(score.wrong.is_empty(), "seed {seed:#x}: {:?}", score.wrong);
    }
    let (told, stats) = watching.shared.told();
    println!(
        "{waited} waited; of pods: {:?}; {} holders forgotten",
        told[Kind::Pods as usize],
        stats.forgotten
    );
    assert!(known.total() > LEAST_KNOWN, "seed {seed:#x}: {}", known.total());
    assert!(known.share() >= LEAST_RIGHT, "seed {seed:#x}: {} {:?}", known.share(), known.unnamed);
    assert!(open.total() > 0, "seed {seed:#x}: nothing was hard");
}

#[test]
fn a_rule_that_is_missing_is_said_once_and_the_rest_goes_on() {
    let log = Log::begin();
    let (server, admin) = cluster();
    let owners = population::deployments(&admin, "shop", &["web".to_owned()]);
    run(&admin, &owners[0], "web-1", 1);
    // All rules but one; watches that are open would go on, so nobody watches yet.
    let rules = population::reading_rules();
    let rules: Vec<_> = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["resources"][0] != "services")
        .cloned()
        .collect();
    let role = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{USER}");
    admin.ask(&Request::patch(role, serde_json::json!({"rules": rules})));
    let client = server.client(USER);
    until(|| client.status(&Request::get("/api/v1/services")) == 403);
    let watching = Watching::begin(&server);
    until(|| watching.pod(address(1)).is_some_and(|name| name == "web-1"));
    // It is asked for again and again, and not said again.
    let forbidden = || {
        let (told, _) = watching.shared.told();
        told[Kind::Services as usize].failures[kubernetes_api::trouble::Cause::Forbidden as usize]
    };
    until(|| forbidden() >= 2);
    // Who follows another server in a test beside this one has troubles of its own.
    let lines = log.lines_with("kind=\"services\" cause=\"forbidden\"");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert!(line.contains(&kubernetes_api::trouble::rule(Kind::Services)), "{line}");
    // The rule comes, and with it what it is for.
    let role = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{USER}");
    admin.ask(&Request::patch(role, serde_json::json!({"rules": population::reading_rules()})));
    let services = [("web".to_owned(), 80, 8080, Vec::<objects::Endpoint>::new())];
    let front = population::services(&admin, "shop", &services)[0];
    let is_named = |found: &Found<Identity>| match found {
        Found::Held(identity) => identity.service.as_ref().is_some_and(|service| *service.name == *"web"),
        Found::Early(..) | Found::Stale(_) | Found::Nobody | Found::Several => false,
    };
    until(|| {
        let view = watching.shared.view();
        is_named(&watching.shared.read().remote(SocketAddr::new(front, 80), view.now, view))
    });
}

/// What is logged from now on, by whatever thread.
struct Log;

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Log {
    fn begin() -> Self {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Self).finish();
        // Another test of this process may have begun it.
        let _ = tracing::subscriber::set_global_default(subscriber);
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Self
    }

    fn lines_with(&self, word: &str) -> Vec<String> {
        let text = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
