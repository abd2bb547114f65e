//! The agent at a cluster of 10,000 pods: how soon all of it is known, what that takes, and what the server is asked for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use support::{
    kubernetes::{
        client::Request,
        fleet::{self, DEPLOYMENTS, NODES, PODS, SERVICES},
        population,
        server::ApiServer,
    },
    netns::Cgroup,
};

use crate::{agent::Agent, until};

/// The user that the agent is.
const USER: &str = "pod2pod-agent";
/// Kinds of objects that the agent reads.
const KINDS: usize = 6;
/// From the process's start until all of that is known.
const MAX_START: Duration = Duration::from_secs(5);
/// What the agent may take, all in.
const MAX_MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
/// Starts that may be too slow because the machine does other things too.
const STARTS: usize = 4;

#[test]
fn a_cluster_of_ten_thousand_pods_is_known_soon_and_in_little_memory() {
    let mut server = ApiServer::start();
    server.add_user(USER, "");
    server.restart();
    let admin = server.admin();
    population::role(&admin, USER, &population::reading_rules(), &population::user(USER));
    let begin = Instant::now();
    fleet::fill(&admin);
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
