//! Self-restraint and the ledger, by the real agent: under full load, with a tiny ring, and under floods of what it remembers.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket},
};
use pod2pod_user::capture::kernel::IN_PROGRAM_PER_CPU;
use support::{
    metrics::Metrics,
    netns::{Cgroup, Namespace},
    scale,
    world::{POD_PORT, SERVER_POD},
};

use super::{
    agent::{Agent, wait_until},
    stage::{Stage, party},
};
use crate::machine;

/// How long the load lasts, and at least where all is slow. The demonstration does the same for a minute.
const LOAD: Duration = Duration::from_secs(5);
const LEAST_LOAD: Duration = Duration::from_secs(3);
/// Time between two looks at the metrics, which are published once a second.
const PAUSE: Duration = Duration::from_millis(250);
/// Not read for so long: less than what the dead man's switch waits.
const UNREAD: Duration = Duration::from_secs(1);
const TINY_RING: &str = "capture.ring_bytes=256KiB";

/// A program that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx in the server's pod, answering everything with `body`.
fn nginx(stage: &Stage, directory: &Path, body: usize) -> Program {
    std::fs::write(directory.join("body"), vec![b'x'; body]).unwrap();
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/log; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2;\n\
         fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\n\
         server {{ listen {1}:{2}; location / {{ root {0}; try_files /body =404; }} }} }}",
        directory.display(),
        SERVER_POD.v4,
        POD_PORT,
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = in_pod(stage, "server");
    command.arg("nginx").arg("-c").arg(&file).stderr(Stdio::null());
    let program = Program(command.spawn().unwrap());
    let pid = directory.join("pid");
    wait_until("nginx listens", || pid.metadata().is_ok_and(|metadata| metadata.len() > 0));
    program
}

/// A command in one of the pods.
fn in_pod(stage: &Stage, pod: &str) -> Command {
    let namespace = if pod == "server" { stage.world.server.path() } else { stage.world.client.path() };
    party(&namespace, &stage.world.cgroup.part(pod).unwrap())
}

/// wrk in the client's pod, as fast as it can.
fn wrk(stage: &Stage, seconds: u64, connections: u32, header: &str) -> Program {
    let mut command = in_pod(stage, "client");
    command.args(["wrk", "-t1", &format!("-c{connections}"), &format!("-d{seconds}"), "-H", header]);
    command.arg(format!("http://{}:{POD_PORT}/", SERVER_POD.v4)).stdout(Stdio::null());
    Program(command.spawn().unwrap())
}

/// The ledger as scraped: what was seen and what is accounted for, and how far apart they may be at an instant.
pub(super) fn check_ledger(metrics: &Metrics, slack: u64) {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus = cpus.trim().rsplit(['-', ',']).next().unwrap().parse::<u64>().unwrap() + 1;
    for (unit, slack) in [("packets", slack * cpus), ("bytes", slack * cpus * 600_000), ("exchanges", 0)] {
        let seen = metrics.sum(&format!("ledger_{unit}_total"), "fate=\"seen\"");
        let fates = ["delivered", "ignored", "lost"];
        let fates =
            fates.map(|fate| metrics.sum(&format!("ledger_{unit}_total"), &format!("fate=\"{fate}\"")));
        let flying = metrics.sum(&format!("ledger_{unit}_in_flight"), "");
        let accounted = fates.iter().sum::<u64>() + flying;
        assert!(
            seen.abs_diff(accounted) <= slack,
            "{unit}: {seen} seen, {accounted} accounted for: {fates:?} {flying}"
        );
    }
    if slack == 0 {
        assert_eq!(metrics.sum("ledger_balanced", ""), 1);
    }
}

/// The ledger under full load with the smallest ring: at every instant that it was read at within its bound, and
/// exact when the load is over.
fn ledger_under_load(load: Duration) {
    machine::take_whole();
    let stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[TINY_RING]);
    let _nginx = nginx(&stage, directory.path(), 1000);
    let mut wrk = wrk(&stage, load.as_secs(), 32, "X-Load: 1");
    let mut exact = 0;
    // However slow the load, it fills the ring while nobody reads.
    agent.wait_metrics("the load has begun", |metrics| {
        metrics.sum("ledger_exchanges_total", "fate=\"delivered\"") > 0
    });
    agent.signal(Signal::SIGSTOP);
    std::thread::park_timeout(UNREAD);
    agent.signal(Signal::SIGCONT);
    while wrk.0.try_wait().unwrap().is_none() {
        let metrics = agent.metrics();
        if metrics.sum("ledger_exact", "") == 1 {
            exact += 1;
            check_ledger(&metrics, IN_PROGRAM_PER_CPU);
        }
        std::thread::park_timeout(PAUSE);
    }
    assert!(exact > 0, "the ledger was never read at an instant");
    let metrics = agent.wait_metrics("what is in the ring is read", |metrics| {
        metrics.sum("ledger_packets_in_flight", "") == 0 && metrics.balance().is_ok()
    });
    check_ledger(&metrics, 0);
    assert!(metrics.sum("ledger_packets_total", "reason=\"ring_full\"") > 0, "nothing was lost");
    let told = metrics.sum("ledger_exchanges_total", "fate=\"delivered\"");
    assert!(told > scale::count(1000, 1) as u64, "{told} exchanges are no load");
    agent.end();
}

#[test]
fn the_ledger_adds_up_under_full_load_with_the_smallest_ring() {
    ledger_under_load(scale::time(LOAD, LEAST_LOAD));
}

/// Connections of a round of the flood; each is a socket, so twice as many ends.
const FLOOD_CONNECTIONS: usize = 10_000;
/// Of these, so many are open at once.
const OPEN_AT_ONCE: usize = 4000;
/// What the agent may take in a flood: what it may take as it comes.
const BUDGET: u64 = pod2pod_user::restraint::DEFAULT_MEMORY;
/// A flood goes on so long at least, without a pause: until all that grows has grown, and some looks more.
const FLOOD_TIME: Duration = Duration::from_secs(6);
/// Where all is slow and each kind has passed its marks, all kinds at once are left to do that.
const LEAST_FLOOD_TIME: Duration = Duration::from_secs(2);
/// Between two looks at what it takes; the agent itself looks once a second.
const LOOK: Duration = Duration::from_millis(20);

/// Resident memory of a process without mapped rings, and what the kernel charges for its maps, both read from outside.
fn taken(pid: u32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut ring = false;
    let mut resident = 0;
    for line in smaps.lines() {
        if line.contains("-") && line.split(' ').next().is_some_and(|range| range.contains('-')) {
            ring = line.contains("bpf-map");
        } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| !ring) {
            resident += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        }
    }
    let mut maps = std::collections::HashMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            // Some kernels do not count a ring's bytes.
            let ring = field("map_type:").is_some_and(|kind| kind == 27);
            let least = if ring { field("max_entries:").unwrap() } else { 0 };
            maps.insert(id, bytes.max(least));
        }
    }
    resident + maps.values().sum::<u64>()
}

/// A counter, and the value that a flood has to bring it past.
type Mark = (&'static str, u64);

/// A flood has so long to pass its marks: how much of it the agent gets to read is the machine's affair.
const FLOOD_PATIENCE: Duration = Duration::from_secs(120);

/// Looks at what `agent` takes, for `time` and until all of `marks` are passed: never more than its budget.
fn never_over_budget(agent: &Agent, marks: &[Mark], time: Duration) -> u64 {
    let (start, mut most, mut last_scrape) = (Instant::now(), 0, Instant::now());
    loop {
        most = most.max(taken(agent.id()));
        assert!(most <= BUDGET, "{most} bytes are taken, {} more than may be", most - BUDGET);
        if last_scrape.elapsed() > PAUSE {
            last_scrape = Instant::now();
            let metrics = agent.metrics();
            let short = marks.iter().find(|(name, least)| metrics.counter(name) <= *least);
            if short.is_none() && start.elapsed() > time {
                return most;
            }
            let patient = start.elapsed() < FLOOD_PATIENCE;
            assert!(patient, "still not past {short:?}:\n{}", metrics.text());
        }
        std::thread::park_timeout(scale::pause(LOOK));
    }
}

/// Floods an agent as it comes by rounds, each given its number, without a pause between them, until all of `marks` are
/// passed; all `floods` at once.
fn flooded(marks: &[Mark], floods: &[fn(u32)]) {
    machine::take_whole();
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let agent = Agent::as_it_comes(cgroup.path());
    let over = Ending::default();
    let begin = |flood: &fn(u32)| {
        let (flood, end) = (*flood, Arc::clone(&over.0));
        cgroup.spawn(&host, move || (0..).take_while(|_| !end.load(Ordering::Relaxed)).for_each(flood))
    };
    let running: Vec<_> = floods.iter().map(begin).collect();
    let time = if floods.len() > 1 { FLOOD_TIME } else { scale::time(FLOOD_TIME, LEAST_FLOOD_TIME) };
    let most = never_over_budget(&agent, marks, time);
    drop(over);
    running.into_iter().for_each(|flood| flood.join().unwrap());
    let metrics = agent.wait_metrics("it has read what is left", |metrics| {
        metrics.sum("ledger_packets_in_flight", "") == 0 && metrics.balance().is_ok()
    });
    check_ledger(&metrics, 0);
    // It looks once a second, and what a flood has taken it does not give back at once.
    let metrics = agent.wait_metrics("it has seen what it takes", |metrics| {
        metrics.sum("memory_peak_bytes", "") * 10 >= taken(agent.id()) * 9
    });
    let told = metrics.sum("memory_peak_bytes", "");
    println!("{marks:?}: {most} bytes at most of {BUDGET}; it says {told}");
    assert!(told <= BUDGET, "{told} bytes at most, it says");
    agent.end();
}

/// Ends a flood, also when its test fails.
#[derive(Default)]
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reset instead of TIME-WAIT: ports are free at once.
fn drop_hard(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}

/// A round of connections, each with a head that never ends, and a reset.
fn connections(_: u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let head = format!("GET /slow HTTP/1.1\r\nHost: flood\r\nX-Padding: {}", "p".repeat(1500));
    let mut open = std::collections::VecDeque::new();
    for _ in 0..scale::count(FLOOD_CONNECTIONS, 1) {
        let mut client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        client.write_all(head.as_bytes()).unwrap();
        drop_hard(&client);
        open.push_back((client, server));
        if open.len() > OPEN_AT_ONCE {
            open.pop_front();
        }
    }
}

/// A round of SYNs that nothing answers.
fn syns(round: u32) {
    let raw = Raw::new(9);
    for number in numbers(round, 50_000) {
        raw.send(number, TCP_SYN, number, b"");
    }
}

/// A round of connections with a request's head, and pieces of its body that have holes between them.
fn holes(round: u32) {
    let raw = Raw::new(10);
    let head = b"POST /hole HTTP/1.1\r\nHost: flood\r\nContent-Length: 1000000000\r\n\r\n";
    let piece = [b'x'; 1400];
    for number in numbers(round, 8000) {
        raw.send(number, TCP_ACK, 1, head);
        for step in 1..10 {
            raw.send(number, TCP_ACK, 1 + head.len() as u32 + step * 2000, &piece);
        }
    }
}

/// A round of connections with half of a giant head each.
fn giant_heads(round: u32) {
    let raw = Raw::new(11);
    let line = format!("GET /giant HTTP/1.1\r\nX-Giant: {}", "g".repeat(1200));
    let more = [b'h'; 1400];
    for number in numbers(round, 3000) {
        raw.send(number, TCP_ACK, 1, line.as_bytes());
        for step in 0..20 {
            raw.send(number, TCP_ACK, 1 + line.len() as u32 + step * 1400, &more);
        }
    }
}

/// Numbers of the connections of a round, each used once.
fn numbers(round: u32, count: usize) -> std::ops::Range<u32> {
    let count = scale::count(count, 1) as u32;
    round * count..(round + 1) * count
}

const OF_CONNECTIONS: &[Mark] = &[("reassembly_opened_handshake", 10_000)];
const OF_SYNS: &[Mark] = &[("reassembly_handshakes_forgotten", 0)];
const OF_HOLES: &[Mark] = &[("reassembly_out_of_order", 1000), ("reassembly_limit_total", 0)];
const OF_GIANT_HEADS: &[Mark] = &[("http_heads_no_memory", 0)];

#[test]
fn a_flood_of_connections_and_half_open_heads_stays_within_the_budget() {
    flooded(OF_CONNECTIONS, &[connections]);
}

#[test]
fn a_flood_of_syns_stays_within_the_budget() {
    flooded(OF_SYNS, &[syns]);
}

#[test]
fn a_flood_of_segments_out_of_order_stays_within_the_budget() {
    flooded(OF_HOLES, &[holes]);
}

#[test]
fn a_flood_of_giant_heads_stays_within_the_budget() {
    flooded(OF_GIANT_HEADS, &[giant_heads]);
}

#[test]
fn floods_of_all_kinds_at_once_stay_within_the_budget() {
    let full: &[Mark] = &[("reassembly_closed_evicted", 0), ("reassembly_limit_lingering", 0)];
    let marks = [OF_CONNECTIONS, OF_SYNS, OF_HOLES, OF_GIANT_HEADS, full].concat();
    flooded(&marks, &[connections, syns, holes, giant_heads]);
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Sends raw TCP segments from addresses that nobody has.
struct Raw {
    socket: std::os::fd::OwnedFd,
    port: u16,
}

impl Raw {
    /// All to this port.
    fn new(port: u16) -> Self {
        let kind = (AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw);
        Self { socket: socket(kind.0, kind.1, kind.2, kind.3).unwrap(), port }
    }

    /// A segment of connection `number`.
    fn send(&self, number: u32, flags: u8, sequence: u32, payload: &[u8]) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend([&[10, 66][..], &(number as u16).to_be_bytes()].concat());
        packet.extend(Ipv4Addr::LOCALHOST.octets());
        packet.extend((1024 + (number >> 16) as u16).to_be_bytes());
        packet.extend(self.port.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        // A queue that is full for a moment loses a packet of the flood.
        let _ = sendto(self.socket.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty());
    }
}
