//! What the real agent may still do once it is ready, thread by thread, and that it does its work with that.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::Path};

use pod2pod_user::{
    capture::kernel::locks_memory,
    rights::{Capability, Feature, RIGHTS, calls_need_a_right, probes_need_a_right},
    watch::source::is_host,
};
use serde_json::Value;
use support::world::SERVER_POD;

use super::{
    agent::{AMPLE_RING, Agent, fresh_binary, wait_until},
    http::{Client, Server},
    interfaces::{address, metrics, place, watch},
    seen::check,
    stage::{Place, Stage, party},
};
use crate::tc::world::{Node, TWO, VETH_ONE, has_tcx};

/// Where resources are controlled by cgroup v1, containers are not told by their cgroup.
fn has_cgroup_v1() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let options = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next() == Some("cgroup")).then(|| words.next().unwrap_or_default().to_owned())
    });
    options
        .flat_map(|one| one.split(',').map(str::to_owned).collect::<Vec<_>>())
        .any(|option| ["cpu", "memory", "pids"].contains(&option.as_str()))
}

/// Sets of capabilities of a thread as the kernel writes them, and whether it can gain no more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    effective: u64,
    permitted: u64,
    /// Inheritable, ambient and bounding.
    others: u64,
    no_new_privileges: bool,
}

/// The threads of a process by name.
fn threads(process: u32) -> BTreeMap<String, Thread> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let read = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let others = field("CapInh:") | field("CapAmb:") | field("CapBnd:");
        let (effective, permitted) = (field("CapEff:"), field("CapPrm:"));
        Some((name, Thread { effective, permitted, others, no_new_privileges: field("NoNewPrivs:") == 1 }))
    };
    tasks.filter_map(read).collect()
}

/// A thread that kept these, and can gain nothing.
fn kept(capabilities: &[Capability]) -> Thread {
    let set = capabilities.iter().fold(0, |set, one| set | 1_u64 << *one as u32);
    Thread { effective: set, permitted: set, others: 0, no_new_privileges: true }
}

/// What probes need where distributions' kernels keep their events to themselves.
fn for_probes() -> &'static [Capability] {
    if probes_need_a_right() { &[Capability::SysAdmin] } else { &[] }
}

/// What those that call the kernel about maps keep for it.
fn for_maps() -> &'static [Capability] {
    if calls_need_a_right() { &[Capability::Bpf] } else { &[] }
}

/// Waits until the threads of an agent keep what is expected: each gives up its own.
fn check_threads(agent: &Agent, expected: &[(&str, &[&[Capability]])]) {
    let expected: BTreeMap<String, Thread> =
        expected.iter().map(|(name, sets)| ((*name).to_owned(), kept(&sets.concat()))).collect();
    let mut found = threads(agent.id());
    wait_until("every thread gave up what it does not need", || {
        found = threads(agent.id());
        found == expected || found.values().any(|thread| thread.effective != thread.permitted)
    });
    assert_eq!(found, expected);
}

#[test]
fn every_thread_keeps_what_it_needs_and_it_observes() {
    use Capability::{Bpf, DacOverride, NetAdmin, Perfmon, SysNice, SysPtrace};
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let packets = format!("capture.write_pcap.file={}", folder.path().join("packets").display());
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let collector = Server::start(here.listen((Ipv4Addr::LOCALHOST, 0)));
    let collector = format!("sinks.http.url=http://{}/records", collector.address);
    let settings = [AMPLE_RING, &packets, "log.level=info", "capture.workers=2", &collector];
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    let for_namespace: &[Capability] = if is_host() { &[] } else { &[SysPtrace] };
    check_threads(
        &agent,
        &[
            ("pod2pod", &[&[SysNice], for_maps()]),
            ("worker-1", &[&[SysNice], for_maps()]),
            ("ipvs", &[&[Bpf, NetAdmin, Perfmon], for_namespace, for_probes()]),
            ("pcap", &[&[DacOverride]]),
            ("admin", &[for_maps()]),
            ("sink-http", &[for_maps()]),
            ("output", &[]),
            ("signals", &[]),
        ],
    );
    let log = agent.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("rights are given up")).collect();
    let [line] = lines[..] else { panic!("one line says what is kept: {log}") };
    for part in
        ["CAP_SYS_NICE: goes before others", "no_new_privs set", "core dumps off", "bounding set empty"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(log.contains("on the host's network and on loopback it is unknown"), has_cgroup_v1(), "{log}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/with/what/it/kept");
    agent.wait_metrics("both are told", |metrics| metrics.sum("sink_records_delivered_total", "output") >= 2);
    // It measures its maps by descriptors, which belong to root where a process cannot be dumped.
    assert!(agent.metrics().sum("memory_bytes", "maps") > 0, "{}", agent.metrics().text());
    check(&agent.end().records(), &client.done);
}

#[test]
fn an_interface_that_comes_later_is_attached_to_with_what_is_kept() {
    use Capability::{Bpf, NetAdmin, SysAdmin};
    let node = Node::routed();
    let (agent, mut here) = watch(&node, "veth");
    // A thread has its name soon after it began.
    let interfaces = || threads(agent.id()).remove("interfaces");
    let at_first = if has_tcx() { kept(&[Bpf, NetAdmin]) } else { kept(&[Bpf, NetAdmin, SysAdmin]) };
    wait_until("rights are given up", || interfaces().is_some_and(|thread| thread == at_first));
    wait_until("what killed agents left is taken away", || interfaces() == Some(kept(&[Bpf, NetAdmin])));
    node.node.run(&format!("ip link delete {VETH_ONE}"));
    node.node.wire("later", &["10.8.1.1/24"], &node.one, "eth0", &["10.8.1.2/24"]);
    node.one.run("ip route add default via 10.8.1.1");
    wait_until("it is attached to", || metrics(&mut here).counter("interfaces_attaches") == 3);
    assert_eq!(metrics(&mut here).counter("interfaces_failed_not_permitted"), 0);
    let [mut one, mut two] = [&node.one, &node.two].map(place);
    let _server = Server::start(two.listen(address(TWO)));
    let mut client = Client::connect(&mut one, address(TWO));
    client.get("/later");
    check(&agent.end().records(), &client.done);
}

/// Where the bounding set cannot be emptied it stays as it was made; all else is given up all the same.
#[test]
fn a_container_with_the_manifests_rights_gives_them_up() {
    use Capability::{Bpf, NetAdmin, Perfmon, SysNice, SysResource};
    assert_eq!(manifest(), [NetAdmin, SysNice, SysResource, Perfmon, Bpf]);
    let given = setpriv(&manifest());
    let mut stage = Stage::new();
    let agent = Agent::start_by(
        &given,
        Some(stage.world.cgroup.path()),
        &[AMPLE_RING, "log.level=info", "ipvs.mode=off"],
    );
    wait_until("rights are given up", || {
        let wanted = kept(&[&[SysNice], for_maps()].concat());
        threads(agent.id()).remove("pod2pod").is_some_and(|main| main.effective == wanted.effective)
    });
    let main = threads(agent.id()).remove("pod2pod").unwrap();
    let ours = threads(std::process::id()).into_values().next().unwrap().permitted;
    let given = [Bpf, NetAdmin, Perfmon, SysNice, SysResource];
    // What the tests themselves do not have cannot be given.
    let bounding = given.iter().fold(0, |set, one| set | 1_u64 << *one as u32) & ours;
    assert_eq!((main.no_new_privileges, main.others), (true, bounding), "{main:?}");
    let told = format!("bounding set of {} (no CAP_SETPCAP)", bounding.count_ones());
    assert!(agent.log().contains(&told), "{}", agent.log());
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/with/five");
    check(&agent.end().records(), &client.done);
}

/// The capabilities flavour: what the manifests add, and nothing else.
fn manifest() -> Vec<Capability> {
    let mut given: Vec<_> =
        RIGHTS.iter().filter(|right| right.in_manifest).map(|right| right.capability).collect();
    given.sort_unstable_by_key(|one| *one as u32);
    given.dedup();
    given
}

/// `setpriv` so that a program has these.
fn setpriv(capabilities: &[Capability]) -> Vec<String> {
    let names =
        capabilities.iter().map(|one| format!(",+{}", one.name().trim_start_matches("CAP_").to_lowercase()));
    vec![
        "setpriv".into(),
        format!("--bounding-set=-all{}", names.collect::<String>()),
        "--inh-caps=-all".into(),
    ]
}

/// What `check` finds with these.
fn findings(capabilities: &[Capability]) -> (Option<i32>, Value) {
    let mut command = party(Path::new("-"), Path::new("-"));
    command.args(setpriv(capabilities)).arg(fresh_binary()).args([
        "check",
        "--json",
        "--listen",
        "off",
        "--set",
        "admin.listen=off",
    ]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}")))
}

#[test]
fn without_each_capability_it_is_told_what_is_lost() {
    let ours = threads(std::process::id()).into_values().next().unwrap().permitted;
    let has = |one: &Capability| ours >> *one as u32 & 1 == 1;
    let (code, told) = findings(&manifest());
    assert_eq!(code, Some(0), "{told:#}");
    let cgroup = told["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "cgroup v2");
    assert_eq!(cgroup.unwrap()["status"], if has_cgroup_v1() { "limited" } else { "ok" }, "{told:#}");
    for left_out in manifest().into_iter().filter(has) {
        let rest: Vec<_> = manifest().into_iter().filter(|one| *one != left_out).collect();
        let (code, told) = findings(&rest);
        let found = told["findings"].as_array().unwrap();
        let finding = found.iter().find(|finding| finding["name"] == left_out.name());
        let right = RIGHTS.iter().find(|right| right.capability == left_out).unwrap();
        let is_needed = right.feature == Feature::Capture;
        match finding {
            Some(finding) => {
                assert_eq!(finding["lost"], right.lost, "{finding}");
                assert_eq!(
                    (code, &finding["status"] == "missing"),
                    (Some(i32::from(is_needed)), is_needed),
                    "{told:#}"
                );
            }
            // Before Linux 5.11 only.
            None => assert!(left_out == Capability::SysResource && !locks_memory(), "{left_out}: {told:#}"),
        }
    }
}
