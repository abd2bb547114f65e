//! A rolling update behind a director with the real agent beside it: clients that speak HTTP through virtual services come back
//! with their ports after their pod was drained, ended or removed. What each of them lived, and what was written of it when.
//! Judges nothing of that.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use serde_json::Value;
use support::{
    director::{CLIENT, Director, Family, SERVERS, SERVICE, Settings},
    netns::Namespace,
    scale,
    wire::Wire,
};

use super::world::entry;
use crate::exchanges::{
    agent::{Agent, wait_until},
    http::Server,
};

/// From one poll to the next, and how long a SYN is waited for.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const ATTEMPT: Duration = Duration::from_secs(2);
/// All is written by then.
const LONGEST: Duration = Duration::from_secs(10);
/// A client's SYN is sent again so often: it gives up after 3 s.
const SYN_RETRIES: &str = "1";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// What an old connection has to be ago, seconds: a later last packet is taken for one of the old connection if it is no more than
/// 5 s later.
const LEAST_IDLE: u32 = 7;
/// An entry in TIME_WAIT, and in CLOSE, has that long at first, seconds.
const TIME_WAIT: u32 = 120;
const CLOSE: u32 = 10;

/// Whether the client was there before, and how its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prior {
    /// It comes for the first time.
    None,
    /// The server closed first.
    TimeWait,
    /// The client reset.
    Close,
}

/// What became of its pod before it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Nothing,
    /// The weight is 0. Of the next ones too.
    Drained,
    /// It resets connections once it has read a request.
    HangsUp,
    /// Nobody listens any more.
    Refuses,
    /// It does not answer any more.
    Silent,
    /// Its address is nobody's.
    Gone,
    /// Its network namespace is gone, and the route with it.
    Unplugged,
    /// It was removed from the service, and still runs.
    Removed,
}

/// A client, with a service of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) family: Family,
    pub(crate) prior: Prior,
    pub(crate) event: Event,
}

/// What became of the second request, as its client had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pod answered, which is the old one or the new one.
    Answered(Pod),
    /// The connection was reset without an answer.
    HungUp,
    Refused,
    /// "No route to host".
    NoRoute,
    TimedOut,
}

/// A real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pod {
    Old,
    New,
}

/// A plan being carried out.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) plan: Plan,
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
    /// The old pod, and the new one.
    pub(crate) pods: [SocketAddr; 2],
    /// It came back to an entry of its old connection.
    pub(crate) had_entry: bool,
    /// When the first connection ended, and the second one began and ended.
    pub(crate) ended: Instant,
    pub(crate) begun: Instant,
    pub(crate) over: Instant,
    pub(crate) outcome: Option<Outcome>,
}

/// Who answers for a case.
struct Servers {
    old: Option<Server>,
    _new: Server,
    hangs_up: Arc<AtomicBool>,
}

/// A record, and when it was there.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) at: Instant,
    pub(crate) record: Value,
}

/// The director, those around it, and the agent on its node.
pub(crate) struct Update {
    director: Director,
    agent: Agent,
    /// Of the pod whose network namespace goes.
    leaving: Option<Namespace>,
    written: Vec<Written>,
    read: usize,
    /// Of the next case.
    number: u16,
}

impl Update {
    /// With a director so set, and an agent with `configured` besides.
    pub(crate) fn new(settings: Settings, configured: &[&str]) -> Self {
        let director = Director::new(settings);
        let leaving = Namespace::new();
        let [near, far] = [1, 2].map(|end| [format!("10.244.4.{end}/24"), format!("fd00:244:4::{end}/64")]);
        let [near, far] = [&near, &far].map(|pair| pair.each_ref().map(String::as_str));
        director.node.wire("leaving", &near, &leaving, "eth0", &far);
        leaving.ip("route add default via 10.244.4.1\nroute add ::/0 via fd00:244:4::1\n");
        director.servers[0]
            .ip("address add 10.244.2.3/24 dev eth0\naddress add fd00:244:2::3/64 dev eth0 nodad\n");
        director.client.within(|| fs::write("/proc/sys/net/ipv4/tcp_syn_retries", SYN_RETRIES)).unwrap();
        let interval = format!("ipvs.interval={}ms", INTERVAL.as_millis());
        let timeout = format!("connect.timeout={}ms", ATTEMPT.as_millis());
        let own = ["ipvs.path=/proc/net/ip_vs_conn", &interval, &timeout, "log.level=info"];
        let agent = Agent::start_in(&director.node, &[&own, configured].concat());
        Self { director, agent, leaving: Some(leaving), written: Vec::new(), read: 0, number: 0 }
    }

    /// Carries out the plans, all at the same time.
    pub(crate) fn run(&mut self, plans: &[Plan]) -> Vec<Case> {
        let mut cases: Vec<Case> =
            (self.number..).zip(plans).map(|(number, plan)| Self::case(*plan, number)).collect();
        self.number += plans.len() as u16;
        let mut servers: Vec<Servers> = cases.iter().map(|case| self.serve(case)).collect();
        self.director.ipvsadm(&cases.iter().map(|case| rules(case, &[0])).collect::<String>());
        self.come_first(&mut cases, Prior::TimeWait);
        wait_until("long ago", || self.are_old(&cases, TIME_WAIT - LEAST_IDLE));
        // On a kernel whose probes are being loaded the first polls take seconds, of which an entry in CLOSE has few.
        self.look();
        self.come_first(&mut cases, Prior::Close);
        // Of one that ended within the last second, and is met while the table is read, a poll cannot tell whose it is.
        wait_until("over", || self.are_old(&cases, CLOSE - 2));
        self.director.ipvsadm(&cases.iter().map(|case| rule(case, 1)).collect::<String>());
        self.look();
        self.happen(&cases, &mut servers);
        let table = self.director.read("ip_vs_conn");
        cases
            .iter_mut()
            .for_each(|case| case.had_entry = entry(&table, "TCP", case.client, case.service).is_some());
        self.come_back(&mut cases);
        // Whatever is to be said is said within two polls.
        self.look();
        self.read();
        cases
    }

    /// All records; the agent ends as it should.
    pub(crate) fn end(mut self) -> Vec<Written> {
        self.read();
        self.agent.end();
        self.written
    }

    fn case(Plan { family, prior, event }: Plan, number: u16) -> Case {
        let old = match (event, family) {
            (Event::Gone, Family::V4) => [10, 244, 2, 3].into(),
            (Event::Gone, Family::V6) => [0xfd00, 0x244, 2, 0, 0, 0, 0, 3].into(),
            (Event::Unplugged, Family::V4) => [10, 244, 4, 2].into(),
            (Event::Unplugged, Family::V6) => [0xfd00, 0x244, 4, 0, 0, 0, 0, 2].into(),
            _ => SERVERS[0].of_family(family),
        };
        let now = Instant::now();
        Case {
            plan: Plan { family, prior, event },
            client: (CLIENT.of_family(family), 40_000 + number).into(),
            service: (SERVICE.of_family(family), 10_000 + number).into(),
            pods: [old, SERVERS[1].of_family(family)].map(|pod| (pod, 20_000 + number).into()),
            had_entry: false,
            ended: now,
            begun: now,
            over: now,
            outcome: None,
        }
    }

    fn serve(&self, case: &Case) -> Servers {
        let hangs_up = Arc::new(AtomicBool::new(false));
        let [old, new] = [Pod::Old, Pod::New].map(|pod| {
            let namespace = match (pod, case.plan.event) {
                (Pod::New, _) => &self.director.servers[1],
                (Pod::Old, Event::Unplugged) => self.leaving.as_ref().expect("it goes once"),
                (Pod::Old, _) => &self.director.servers[0],
            };
            let listener = namespace.within(|| TcpListener::bind(case.pods[pod as usize]).unwrap());
            let hangs_up = Arc::clone(&hangs_up);
            Server::with(listener, move |stream| answer(stream, pod, &hangs_up))
        });
        Servers { old: Some(old), _new: new, hangs_up }
    }

    /// The first connections that are to end so come and end, and their entries are as they should be.
    fn come_first(&self, cases: &mut [Case], prior: Prior) {
        let mut own: Vec<&mut Case> = cases.iter_mut().filter(|case| case.plan.prior == prior).collect();
        self.all(&mut own, |case| {
            let outcome = ask(case, prior);
            assert_eq!(outcome, Outcome::Answered(Pod::Old), "{:?}", case.plan);
            case.ended = Instant::now();
        });
        let state = if prior == Prior::Close { "CLOSE" } else { "TIME_WAIT" };
        wait_until("in its state", || {
            let table = self.director.read("ip_vs_conn");
            own.iter().all(|case| {
                entry(&table, "TCP", case.client, case.service).is_some_and(|(own, _)| own == state)
            })
        });
    }

    /// Whether entries in CLOSE, or those in TIME_WAIT if that is more than they ever have, have no more than this left.
    fn are_old(&self, cases: &[Case], left: u32) -> bool {
        let state = if left > CLOSE { "TIME_WAIT" } else { "CLOSE" };
        let table = self.director.read("ip_vs_conn");
        cases.iter().all(|case| {
            let entry = entry(&table, "TCP", case.client, case.service);
            entry.is_none_or(|(own, own_left)| own != state || own_left <= left)
        })
    }

    /// Waits until the agent has polled twice from now on.
    fn look(&self) {
        let polls = self.agent.metrics().counter("ipvs_polls");
        self.agent.wait_metrics("two more polls", |metrics| metrics.counter("ipvs_polls") >= polls + 2);
    }

    fn happen(&mut self, cases: &[Case], servers: &mut [Servers]) {
        let mut rules = String::new();
        let mut silent = Vec::new();
        for (case, servers) in cases.iter().zip(servers) {
            let [old, _] = case.pods;
            match case.plan.event {
                Event::Nothing => {}
                Event::Removed => rules.push_str(&format!("-d -t {} -r {old}\n", case.service)),
                _ => rules.push_str(&format!("-e -t {} -r {old} -m -w 0\n", case.service)),
            }
            match case.plan.event {
                Event::HangsUp => servers.hangs_up.store(true, Ordering::Relaxed),
                Event::Refuses => servers.old = None,
                Event::Silent => silent.push(old.port().to_string()),
                _ => {}
            }
        }
        self.director.ipvsadm(&rules);
        if !silent.is_empty() {
            let rules = format!(
                "table inet t {{ chain i {{ type filter hook input priority 0; tcp dport {{ {} }} drop; }}; }}",
                silent.join(", ")
            );
            self.director.servers[0].run_with("nft -f -", &rules);
        }
        let is_there = |event: Event| cases.iter().any(|case| case.plan.event == event);
        if is_there(Event::Gone) {
            self.director.servers[0]
                .ip("address delete 10.244.2.3/24 dev eth0\naddress delete fd00:244:2::3/64 dev eth0\n");
            self.director.node.ip("neighbour flush to 10.244.2.3\nneighbour flush to fd00:244:2::3\n");
        }
        if is_there(Event::Unplugged) {
            self.director.node.ip("link delete leaving\n");
            self.leaving = None;
        }
    }

    /// All come back at once; what is written meanwhile is noted as it comes, until something was written of each.
    fn come_back(&mut self, cases: &mut [Case]) {
        // What was written of the first ones is not to be met among what comes now.
        self.read();
        let place = self.director.client.clone();
        let mut own: Vec<&mut Case> = cases.iter_mut().collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients = scope.spawn(|| {
                at(&place, &mut own, |case| {
                    case.begun = Instant::now();
                    case.outcome = Some(ask(case, Prior::TimeWait));
                    case.over = Instant::now();
                });
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) && !clients.is_finished() {
                self.read();
                thread::park_timeout(scale::pause(PAUSE));
            }
        });
        // What is missing in the end is the judge's to tell.
        let deadline = Instant::now() + LONGEST;
        while !cases.iter().all(|case| self.is_told(case)) && Instant::now() < deadline {
            thread::park_timeout(scale::pause(PAUSE));
            self.read();
        }
    }

    /// Whether something was written of its second connection by itself.
    fn is_told(&self, case: &Case) -> bool {
        let own = |written: &&Written| case.is_of(&written.record) && written.at >= case.begun;
        self.written.iter().filter(own).any(|written| written.record["kind"] != "ipvs_reuse")
    }

    fn all(&self, cases: &mut [&mut Case], what: impl Fn(&mut Case) + Sync) {
        at(&self.director.client, cases, what);
    }

    /// Reads what is new.
    fn read(&mut self) {
        let text = self.agent.lines();
        let at = Instant::now();
        let fresh = text.get(self.read..).unwrap_or_default();
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.written.extend(fresh.lines().map(|line| Written { at, record: parse(line) }));
        self.read = text.len();
    }
}

impl Case {
    /// Whether a record is of its client.
    pub(crate) fn is_of(&self, record: &Value) -> bool {
        record["client.port"] == self.client.port()
            && record["client.address"] == self.client.ip().to_string()
    }
}

/// Each on a thread of its own in a network namespace.
fn at(place: &Namespace, cases: &mut [&mut Case], what: impl Fn(&mut Case) + Sync) {
    let what = &what;
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                place.enter();
                what(case);
            });
        }
    });
}

/// Lines of `ipvsadm` for a service with these of its pods.
fn rules(case: &Case, pods: &[usize]) -> String {
    let servers: String = pods.iter().map(|pod| rule(case, *pod)).collect();
    format!("-A -t {} -s rr\n{servers}", case.service)
}

fn rule(case: &Case, pod: usize) -> String {
    format!("-a -t {} -r {} -m -w 1\n", case.service, case.pods[pod])
}

/// Answers one request after the other, until the client is told that there will be no more, or resets.
fn answer(stream: TcpStream, pod: Pod, hangs_up: &AtomicBool) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head()? {
        if pod == Pod::Old && hangs_up.load(Ordering::Relaxed) {
            return wire.reset();
        }
        let is_last = head.field("connection") == Some("close");
        let connection = if is_last { "close" } else { "keep-alive" };
        wire.write(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: {connection}\r\nX-Pod: {pod:?}\r\n\r\n"
            )
            .as_bytes(),
        )?;
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// One request from the client's port, on a connection that ends as `prior` says.
fn ask(case: &Case, prior: Prior) -> Outcome {
    let wire = match open(case.client, case.service) {
        Ok(stream) => Wire::new(stream).unwrap(),
        Err(Errno::CONNREFUSED) => return Outcome::Refused,
        Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => return Outcome::NoRoute,
        Err(Errno::TIMEDOUT) => return Outcome::TimedOut,
        Err(error) => panic!("{:?}: {error}", case.plan),
    };
    match speak(wire, case, prior) {
        Ok(pod) => Outcome::Answered(pod),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Outcome::HungUp,
        Err(error) => panic!("{:?}: {error}", case.plan),
    }
}

fn open(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if from.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

/// The pod that answered.
fn speak(mut wire: Wire, case: &Case, prior: Prior) -> io::Result<Pod> {
    let is_last = prior != Prior::Close;
    let connection = if is_last { "close" } else { "keep-alive" };
    let event = format!("{:?}", case.plan.event).to_lowercase();
    wire.write(
        format!("GET /{event} HTTP/1.1\r\nHost: shop\r\nConnection: {connection}\r\n\r\n").as_bytes(),
    )?;
    let head = wire.head()?.ok_or(ErrorKind::UnexpectedEof)?;
    let pods = [Pod::Old, Pod::New];
    let pod = pods.into_iter().find(|pod| head.field("x-pod") == Some(&format!("{pod:?}")));
    if is_last {
        // The server closes first: nothing of the connection is left here.
        assert!(wire.head()?.is_none());
    } else {
        wire.reset()?;
    }
    Ok(pod.expect("a pod says who it is"))
}
