//! The agent at a cluster of 10,000 pods: how soon all of it is known, what that takes, and what the server is asked for it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    kubernetes::{
        client::{Client, Request},
        objects::{Endpoint, Pod},
        population,
        server::ApiServer,
    },
    netns::Cgroup,
    process::{Running, command},
};

use crate::until;

/// The user that the agent is.
const USER: &str = "pod2pod-agent";
const NODES: usize = 100;
const PODS: usize = 10_000;
const DEPLOYMENTS: usize = 1_500;
const SERVICES: usize = 2_000;
/// Ends behind each Service.
const ENDPOINTS: usize = 5;
/// Kinds of objects that the agent reads.
const KINDS: usize = 6;
/// From the process's start until all of that is known.
const MAX_START: Duration = Duration::from_secs(5);
/// What the agent may take, all in.
const MAX_MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
/// Starts that may be too slow because the machine does other things too.
const STARTS: usize = 4;

fn node(number: usize) -> (String, IpAddr) {
    (format!("node-{number}"), IpAddr::from(Ipv4Addr::from(0xc0a8_0000 + number as u32)))
}

fn fill(admin: &Client) {
    let names: Vec<(String, IpAddr)> = (0..NODES).map(node).collect();
    let nodes: Vec<(&str, &str, IpAddr)> =
        names.iter().map(|(name, address)| (name.as_str(), "zone-1", *address)).collect();
    population::nodes(admin, &nodes);
    population::namespaces(admin, &["shop"]);
    let names: Vec<String> = (0..DEPLOYMENTS).map(|number| format!("app-{number}")).collect();
    let owners = population::deployments(admin, "shop", &names);
    let pods: Vec<(Pod, IpAddr)> = (0..PODS)
        .map(|number| {
            let owner = &owners[number % DEPLOYMENTS];
            let pod = Pod::new("shop", &format!("{}-{number:05}", owner.name), &node(number % NODES).0);
            let address = IpAddr::from(Ipv4Addr::from(0x0af4_0000 + number as u32));
            (pod.owned(owner).labelled("app", &names[number % DEPLOYMENTS]), address)
        })
        .collect();
    let uids = population::running_pods(admin, node(0).1, &pods);
    let services: Vec<(String, u16, u16, Vec<Endpoint>)> = (0..SERVICES)
        .map(|number| {
            let ends = (0..ENDPOINTS).map(|end| (number * ENDPOINTS + end) % PODS).map(|index| Endpoint {
                address: pods[index].1,
                node: node(index % NODES).0,
                pod: pods[index].0.name.clone(),
                uid: uids[index].clone(),
            });
            (format!("service-{number}"), 80, 8080, ends.collect())
        })
        .collect();
    population::services(admin, "shop", &services);
}

/// An agent that follows a server, and sees no traffic.
pub(crate) struct Agent {
    running: Running,
    admin: SocketAddr,
    begin: Instant,
}

impl Agent {
    pub(crate) fn start(kubeconfig: &Path, cgroup: &Cgroup) -> Self {
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let admin = admin.expect("a free port");
        let name = cgroup.path().file_name().and_then(|name| name.to_str()).expect("a name");
        let settings = [
            format!("capture.cgroup={name}"),
            format!("metrics.listen={admin}"),
            format!("kubernetes.kubeconfig={}", kubeconfig.display()),
            format!("kubernetes.node={}", node(1).0),
        ];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let command = command(["agent"].into_iter().chain(settings));
        let begin = Instant::now();
        Self { running: Running::start(command), admin, begin }
    }

    fn ask(&self, target: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(crate::PATIENCE)).ok()?;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The value of a row of `/metrics`, by its name and labels.
    fn metric(&self, row: &str) -> Option<f64> {
        let page = self.ask("/metrics")?;
        page.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok())
    }

    /// Status and sentence of `/ready`, if it answers.
    pub(crate) fn ready(&self) -> Option<(u16, String)> {
        let answer = self.ask("/ready")?;
        let (head, says) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, says.trim().to_owned()))
    }

    /// Memory of the process at its most, as the kernel counts it: each page of a ring twice.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kilobytes: f64 =
            line.trim().trim_end_matches(" kB").trim().parse().expect("a number of kilobytes");
        kilobytes * 1024.0
    }

    pub(crate) fn end(self) {
        self.running.signal(Signal::SIGTERM);
        let finished = self.running.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}

#[test]
fn a_cluster_of_ten_thousand_pods_is_known_soon_and_in_little_memory() {
    let mut server = ApiServer::start();
    server.add_user(USER, "");
    server.restart();
    let admin = server.admin();
    population::role(&admin, USER, &population::reading_rules(), &population::user(USER));
    let begin = Instant::now();
    fill(&admin);
    println!("filled in {:.1} s", begin.elapsed().as_secs_f64());
    let client = server.client(USER);
    until(|| client.status(&Request::get("/apis/batch/v1/jobs?limit=1")) == 200);
    let cgroup = Cgroup::new();
    let mut times = Vec::new();
    while times.len() < STARTS {
        let before = server.asked().len();
        let agent = Agent::start(&server.kubeconfig(USER), &cgroup);
        until(|| agent.ready().is_some_and(|(status, _)| status == 200));
        times.push(agent.begin.elapsed());
        assert_eq!(agent.ready(), Some((200, "ok".to_owned())));
        // The page of metrics is as old as a second.
        until(|| agent.metric("pod2pod_kubernetes_ready ") == Some(1.0));
        let known = ["pods", "services", "endpointslices", "nodes", "replicasets"]
            .map(|kind| agent.metric(&format!("pod2pod_kubernetes_objects{{kind=\"{kind}\"}} ")));
        // The server's own Service is one more, and has its slice.
        let expected = [PODS, SERVICES + 1, SERVICES, NODES, DEPLOYMENTS].map(|count| Some(count as f64));
        assert_eq!(known, expected);
        // Lists that begin, their further pages, watches; each is asked for once.
        let mut asked: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        for request in server.asked().into_iter().skip(before) {
            let place = match request.verb.as_str() {
                "list" if request.uri.contains("continue=") => 1,
                "list" => 0,
                "watch" => 2,
                _ => 3,
            };
            asked.entry(request.resource).or_default()[place] += 1;
        }
        let peak = agent.metric("pod2pod_memory_peak_bytes ").expect("a peak");
        println!(
            "known after {:.2} s; peak {:.1} MiB, resident {:.1} MiB; asked {asked:?}",
            times.last().expect("a time").as_secs_f64(),
            peak / 1024.0 / 1024.0,
            agent.resident() / 1024.0 / 1024.0
        );
        agent.end();
        assert_eq!(asked.len(), KINDS, "{asked:?}");
        let is_once = |[lists, _, watches, others]: &[usize; 4]| (*lists, *watches, *others) == (1, 1, 0);
        assert!(asked.values().all(is_once), "list, pages, watch, others: {asked:?}");
        assert!(peak <= MAX_MEMORY, "{peak}");
        if times.last().is_some_and(|time| *time <= MAX_START) {
            return;
        }
    }
    panic!("known only after {times:?}");
}
