//! The cluster is followed: through a server that stops, forgets, refuses, does not answer, and asks for another token.

use std::{
    io,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pod2pod_user::{
    kubernetes::{
        addresses::{Found, MAX_LATENESS, View},
        identity::Identity,
        objects::Kind,
    },
    kubernetes_api::{self, Config, Shared, trouble::Cause},
    mode::Mode,
    shutdown,
};
use serde_json::{Value, json};
use support::{
    kubernetes::{
        client::{Client, Request},
        objects::{self, Endpoint, Pod},
        population,
        server::ApiServer,
    },
    netns::Namespace,
};

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 1));
/// From the start until all is known.
const MAX_START: Duration = Duration::from_secs(5);

/// A machine that does other things too may be late by so much, and the kernel's timers by less.
const MARGIN: Duration = Duration::from_secs(2);

/// Never near zero: contact that there never was is older than all.
fn clock() -> Duration {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    Duration::from_secs(1000) + BEGIN.get_or_init(Instant::now).elapsed()
}

fn rules(kinds: &[Kind]) -> Value {
    let rule = |kind: &Kind| json!({"apiGroups": [kind.group()], "resources": [kind.as_str()], "verbs": ["list", "watch"]});
    kinds.iter().map(rule).collect()
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, number])
}

/// A server with a node, a Deployment, and its pod `web-1` at 10.1.0.1.
struct Stage {
    server: ApiServer,
    admin: Client,
    web: Pod,
    service: IpAddr,
}

impl Stage {
    fn new(kinds: &[Kind]) -> Self {
        let mut server = ApiServer::start();
        server.add_user("agent", "");
        server.restart();
        let admin = server.admin();
        population::role(&admin, "agent", &rules(kinds), &population::user("agent"));
        population::namespaces(&admin, &["shop"]);
        population::nodes(&admin, &[("node-a", "zone-1", NODE)]);
        let owners = population::deployments(&admin, "shop", &["web".to_owned()]);
        let web = Pod::new("shop", "web-1", "node-a").owned(&owners[0]).labelled("app", "web");
        let uids = population::running_pods(&admin, NODE, &[(web.clone(), address(1))]);
        let endpoint = Endpoint {
            address: address(1),
            node: "node-a".to_owned(),
            pod: web.name.clone(),
            uid: uids[0].clone(),
        };
        let services = population::services(&admin, "shop", &[("web".to_owned(), 80, 8080, vec![endpoint])]);
        Self { server, admin, web, service: services[0] }
    }

    fn start(&self, kubeconfig: PathBuf) -> Agent {
        let config = Config {
            mode: Mode::On,
            kubeconfig: Some(kubeconfig),
            node: Some("node-a".to_owned()),
            labels: vec!["app".to_owned()],
            ..Config::default()
        };
        let shutdown = shutdown::Shutdown::without_signals().expect("a descriptor");
        let shared = kubernetes_api::start(&config, clock, Arc::default(), &shutdown).expect("a thread");
        Agent { shared: shared.expect("a server is named"), shutdown }
    }

    /// The server ends at once: with watches open it would take its time.
    fn kill(&mut self) {
        let id = Pid::from_raw(self.server.id().cast_signed());
        kill(id, Signal::SIGKILL).expect("it runs");
        self.server.stop();
    }

    /// It is there again, and whoever asks it has new connections.
    fn start_again(&mut self) {
        self.server.start_again();
        self.admin = self.server.admin();
    }

    /// Its pod goes, and another has its address.
    fn replace(&self, last: &Pod, name: &str) -> Pod {
        self.admin.ask(&Request::remove(last.path()));
        let next = Pod { name: name.to_owned(), ..last.clone() };
        population::running_pods(&self.admin, NODE, &[(next.clone(), address(1))]);
        next
    }
}

struct Agent {
    shared: Shared,
    shutdown: shutdown::Shutdown,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Agent {
    fn find(&self, address: IpAddr, port: u16) -> Found<Identity> {
        let View { now, contact } = self.shared.view();
        self.shared.read().remote(SocketAddr::new(address, port), now, View { now, contact })
    }

    /// The pod, its Deployment, the Service; what is certain at this moment.
    fn names(&self, address: IpAddr, port: u16) -> Option<String> {
        let Found::Held(Identity { pod, service, .. }) = self.find(address, port) else { return None };
        let (pod, service) = (pod.as_deref(), service.as_deref());
        let workload = pod.and_then(|pod| pod.workload.as_ref());
        let workload = workload.map(|workload| format!("{} {}", workload.kind.as_str(), workload.name));
        let zone = pod.and_then(|pod| pod.zone.as_deref());
        let word = |name: Option<&str>| name.unwrap_or("-").to_owned();
        Some(format!(
            "{}, {}, {}, {}",
            word(pod.map(|pod| &*pod.name)),
            word(workload.as_deref()),
            word(service.map(|service| &*service.name)),
            word(zone)
        ))
    }

    fn becomes(&self, number: u8, port: u16, names: &str) {
        crate::until(|| self.names(address(number), port).as_deref() == Some(names));
    }

    fn failed(&self, kind: Kind, cause: Cause) -> u64 {
        let at = Cause::ALL.iter().position(|other| *other == cause).expect("a cause");
        self.shared.told().0[kind as usize].failures[at]
    }

    fn is_in_contact(&self) -> bool {
        self.shared.told().0.iter().all(|told| told.silence.is_zero())
    }
}

#[test]
fn one_list_and_one_watch_a_kind_tell_all() {
    let stage = Stage::new(&Kind::ALL);
    let begin = Instant::now();
    let agent = stage.start(stage.server.kubeconfig("agent"));
    crate::until(|| agent.shared.is_ready());
    let took = begin.elapsed();
    assert!(took < MAX_START, "ready after {took:?}");
    agent.becomes(1, 8080, "web-1, deployment web, web, zone-1");
    // Each is certain while the server is heard, which a busy machine delays.
    crate::until(|| agent.names(stage.service, 80).as_deref() == Some("-, -, web, -"));
    let node =
        || if let Found::Held(node) = agent.find(NODE, 0) { Some((node.node, node.pod)) } else { None };
    crate::until(|| node() == Some((Some("node-a".into()), None)));
    // One that comes, and one whose address another has.
    let second = Pod::new("shop", "api-0", "node-a");
    population::running_pods(&stage.admin, NODE, &[(second, address(2))]);
    agent.becomes(2, 0, "api-0, -, -, zone-1");
    stage.replace(&stage.web, "web-2");
    agent.becomes(1, 0, "web-2, deployment web, -, zone-1");
    assert_eq!(agent.find("1.1.1.1".parse().expect("an address"), 443), Found::Nobody, "outside, at once");
    let asked = stage.server.asked();
    for kind in Kind::ALL {
        let count = |verb: &str| {
            asked.iter().filter(|asked| asked.verb == verb && asked.resource == kind.as_str()).count()
        };
        assert_eq!((count("list"), count("watch")), (1, 1), "{kind:?}: {asked:?}");
    }
    assert_eq!(asked.len(), 2 * Kind::ALL.len(), "nothing else: {asked:?}");
}

#[test]
fn a_server_that_was_away_goes_on_and_one_that_has_forgotten_is_listed_anew() {
    let mut stage = Stage::new(&Kind::ALL);
    let file = stage.server.kubeconfig("account");
    std::fs::copy(stage.server.kubeconfig("agent"), &file).expect("a file");
    let agent = stage.start(file.clone());
    agent.becomes(1, 0, "web-1, deployment web, -, zone-1");
    crate::until(|| agent.is_in_contact());
    let lists = || agent.shared.told().0[Kind::Pods as usize].lists;
    stage.kill();
    crate::until(|| !agent.is_in_contact());
    assert!(agent.names(address(1), 0).is_none(), "what is now is not certain");
    stage.start_again();
    let web = stage.replace(&stage.web, "web-2");
    agent.becomes(1, 0, "web-2, deployment web, -, zone-1");
    crate::until(|| agent.is_in_contact());
    // What happens while the agent is not let in has left the server's memory when it is.
    stage.server.add_user("agent", "");
    stage.kill();
    stage.start_again();
    let before = lists();
    let other = Pod::new("shop", "api-0", "node-a");
    population::running_pods(&stage.admin, NODE, &[(other, address(2))]);
    let web = stage.replace(&web, "web-3");
    stage.server.compact();
    stage.kill();
    stage.start_again();
    assert_eq!(lists(), before);
    std::fs::copy(stage.server.kubeconfig("agent"), &file).expect("a file");
    agent.becomes(1, 0, "web-3, deployment web, -, zone-1");
    crate::until(|| agent.is_in_contact());
    assert_eq!(lists(), before + 1, "it was too old to go on from");
    let known = agent.shared.told().1.objects[Kind::Pods as usize];
    assert_eq!(known, 2, "who is not in the new list is gone");
    // And it goes on from there.
    stage.replace(&web, "web-4");
    agent.becomes(1, 0, "web-4, deployment web, -, zone-1");
}

#[test]
fn what_is_forbidden_is_said_and_the_rest_is_known() {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| ![Kind::ReplicaSets, Kind::Nodes].contains(kind)).collect();
    let stage = Stage::new(&kinds);
    let agent = stage.start(stage.server.kubeconfig("agent"));
    // Guessed by nothing: the pods of these tests have no label with a hash.
    agent.becomes(1, 8080, "web-1, replicaset web-6b8d7c9f5d, web, -");
    crate::until(|| agent.shared.is_ready());
    for kind in [Kind::ReplicaSets, Kind::Nodes] {
        assert!(agent.failed(kind, Cause::Forbidden) > 0, "{kind:?}");
    }
    assert_eq!(agent.failed(Kind::Pods, Cause::Forbidden), 0);
    let missing = rules(&[Kind::ReplicaSets, Kind::Nodes]);
    population::role(&stage.admin, "more", &missing, &population::user("agent"));
    agent.becomes(1, 8080, "web-1, deployment web, web, zone-1");
}

#[test]
fn a_token_that_is_worth_nothing_is_read_again() {
    let mut stage = Stage::new(&Kind::ALL);
    let file = stage.server.kubeconfig("account");
    let write = |stage: &Stage, token: &str| {
        std::fs::write(&file, stage.server.kubeconfig_with(token)).expect("written");
    };
    write(&stage, "agent-token-1");
    let agent = stage.start(file.clone());
    agent.becomes(1, 0, "web-1, deployment web, -, zone-1");
    stage.server.add_user("agent", "");
    stage.kill();
    stage.start_again();
    crate::until(|| Kind::ALL.iter().all(|kind| agent.failed(*kind, Cause::Unauthorized) > 0));
    assert!(
        matches!(agent.find(address(1), 0), Found::Early(_, Some(_)) | Found::Stale(_)),
        "what is known stays"
    );
    let kubeconfig = std::fs::read_to_string(stage.server.kubeconfig("agent")).expect("a file");
    std::fs::write(&file, kubeconfig).expect("written");
    stage.replace(&stage.web, "web-2");
    agent.becomes(1, 0, "web-2, deployment web, -, zone-1");
}

#[test]
fn a_server_that_does_not_answer_is_left_and_asked_again() {
    let stage = Stage::new(&Kind::ALL);
    stage.server.hold();
    let agent = stage.start(stage.server.kubeconfig("agent"));
    crate::until(|| agent.shared.is_ready());
    assert!(agent.failed(Kind::Pods, Cause::Silent) > 0);
    assert!(matches!(agent.find(address(1), 0), Found::Early(_, None) | Found::Nobody));
    stage.server.go_on();
    agent.becomes(1, 8080, "web-1, deployment web, web, zone-1");
}

/// Hands connections that come to `listener` on to the server.
fn hand_on(listener: TcpListener, server: SocketAddr) {
    thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.expect("a connection");
            let far = TcpStream::connect(server).expect("it runs");
            let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            for (mut from, mut to) in [(clone(&near), clone(&far)), (far, near)] {
                thread::spawn(move || {
                    // Either end may break it off.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn a_path_that_drops_everything_is_no_contact_before_its_news_are_missed() {
    let stage = Stage::new(&Kind::ALL);
    let namespace = Namespace::new();
    let listener = namespace.within(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("a port").port();
    hand_on(listener, stage.server.address());
    let file = stage.server.kubeconfig("account");
    let kubeconfig = std::fs::read_to_string(stage.server.kubeconfig("agent")).expect("a file");
    let url = format!("https://127.0.0.1:{port}");
    std::fs::write(&file, kubeconfig.replace(&stage.server.url(), &url)).expect("written");
    let agent = namespace.within(|| stage.start(file));
    agent.becomes(1, 0, "web-1, deployment web, -, zone-1");
    crate::until(|| agent.is_in_contact());

    let rule = |end: &str| format!("add rule inet cut out tcp {end} {port} drop\n");
    let chain = "add table inet cut\nadd chain inet cut out { type filter hook output priority 0; }\n";
    namespace.run_with("nft -f -", &format!("{chain}{}{}", rule("sport"), rule("dport")));
    let cut = Instant::now();
    let web = stage.replace(&stage.web, "web-2");
    crate::until(|| agent.shared.told().0.iter().all(|told| !told.silence.is_zero()));
    let (took, told) = (cut.elapsed(), agent.shared.told().0);
    assert!(took < MAX_LATENESS + MARGIN, "noticed after {took:?}");
    for silence in told.map(|told| told.silence) {
        assert!(silence + MARGIN > took, "{silence:?} of {took:?} count as silence");
    }
    assert_eq!(agent.names(address(1), 0), None, "what is now is not certain");

    namespace.run("nft delete table inet cut");
    agent.becomes(1, 0, "web-2, deployment web, -, zone-1");
    crate::until(|| agent.is_in_contact());
    stage.replace(&web, "web-3");
    agent.becomes(1, 0, "web-3, deployment web, -, zone-1");
}

/// A server's object that has an end in view is certain until then only.
#[test]
fn a_pod_that_is_told_to_end_is_certain_until_its_successor_would_be_known() {
    let stage = Stage::new(&Kind::ALL);
    let agent = stage.start(stage.server.kubeconfig("agent"));
    agent.becomes(1, 0, "web-1, deployment web, -, zone-1");
    stage.admin.ask(&Request::delete(stage.web.path()));
    crate::until(|| matches!(agent.find(address(1), 0), Found::Early(_, Some(_))));
    // Finished ones give their address back.
    let job = Pod::new("shop", "job-1", "node-a");
    population::running_pods(&stage.admin, NODE, &[(job.clone(), address(3))]);
    agent.becomes(3, 0, "job-1, -, -, zone-1");
    stage.admin.ask(&Request::patch(format!("{}/status", job.path()), objects::succeeded()));
    crate::until(|| agent.names(address(3), 0).is_none());
}
