//! A director with clients that come back: what each of many cases does at the same time, step by step, and what arrived at the
//! servers. Judges nothing of what is told.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use pod2pod_user::{
    capture::kernel::{Decisions, DecisionsConfig, Unavailable},
    ipvs::{
        Tuple,
        exact::{Decision, Outcome as Decided},
    },
};
use support::{
    director::{Director, Settings},
    netns::Namespace,
};

use super::{
    arrivals::{Arrival, Arrivals},
    case::{Case, End, Event, Outcome, Plan},
    poller::{Poller, Told},
    score::Verdict,
};
use crate::watch::PATIENCE;

/// From one poll to the next.
const INTERVAL: &str = "250ms";
/// Between two looks at sockets and tables.
const PAUSE: Duration = Duration::from_millis(5);
/// A SYN is sent again so often, by clients that wait for nothing: after one second, and given up two seconds later.
const SYN_RETRIES: &str = "1";
/// A case is carried out again so often if its entry is gone before the second connection: an entry in CLOSE lives 10 s, and
/// the machine may be busy.
const TRIES: u16 = 4;

/// An entry is about to leave its state if it has less time left, seconds.
const LEAST_LEFT: u32 = 2;

/// What became of a case.
pub(crate) struct Done {
    pub(crate) plan: Plan,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) happened: Vec<Verdict>,
    /// What exact mode told, where there is one.
    pub(crate) exact: Option<Vec<Verdict>>,
    pub(crate) told: Vec<Told>,
}

impl Done {
    /// What was told, each once.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let is_told = |verdict: &Verdict| self.told.iter().any(|told| told.verdict == verdict.as_str());
        [Verdict::Reused, Verdict::Rescheduled, Verdict::Dropped].into_iter().filter(is_told).collect()
    }
}

/// Waits until `condition`; `what` is for people.
pub(crate) fn until<T: std::fmt::Debug>(what: &str, mut missing: impl FnMut() -> Vec<T>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = missing();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still not {what}: {left:?}");
        thread::park_timeout(PAUSE);
    }
}

/// Those that it is to be waited for look, until each has an outcome.
pub(crate) fn settle(cases: &mut [Case], is_waited_for: impl Fn(&Case) -> bool) {
    until("settled", || {
        let cases = cases.iter_mut().filter(|case| is_waited_for(case));
        cases.filter_map(|case| if case.look().is_none() { Some(case.plan) } else { None }).collect()
    });
}

/// Local ports in FIN-WAIT-2, and whether of IPv6 (proc_pid_net(5)).
fn half_closed(namespace: &Namespace) -> HashSet<(bool, u16)> {
    namespace.within(|| {
        let mut ports = HashSet::new();
        for (name, is_v6) in [("tcp", false), ("tcp6", true)] {
            let table = fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
            for line in table.lines().skip(1) {
                let columns: Vec<&str> = line.split_whitespace().collect();
                let (_, port) = columns[1].rsplit_once(':').unwrap();
                if columns[3] == "05" {
                    ports.insert((is_v6, u16::from_str_radix(port, 16).unwrap()));
                }
            }
        }
        ports
    })
}

/// State and time left of an entry, as the kernel writes them.
pub(crate) fn entry<'a>(
    table: &'a str,
    protocol: &str,
    client: SocketAddr,
    service: SocketAddr,
) -> Option<(&'a str, u32)> {
    let hex = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => format!("{:08X} {:04X}", address.to_bits(), end.port()),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:04x}"));
            format!("{} {:04X}", groups.join(":"), end.port())
        }
    };
    let key = format!("{protocol} {} {} ", hex(client), hex(service));
    let mut words = table.lines().find_map(|line| line.strip_prefix(&key))?.split_whitespace().skip(2);
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// The same of a case.
fn entry_of<'a>(table: &'a str, case: &Case) -> Option<(&'a str, u32)> {
    let protocol = if case.service.is_tcp { "TCP" } else { "UDP" };
    entry(table, protocol, case.client, case.service.address())
}

/// A director and those who watch it.
pub(crate) struct World {
    settings: Settings,
    pub(crate) director: Director,
    pub(crate) poller: Poller,
    arrivals: [Arrivals; 2],
    /// What the client sends.
    sent: Arrivals,
    /// Absent where the kernel cannot be followed.
    exact: Option<Exact>,
    /// Of the next case.
    number: u16,
}

/// What was seen and told up to some moment.
pub(crate) struct Mark {
    arrived: [usize; 2],
    sent: usize,
    told: usize,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let director = Director::new(settings);
        director.client.within(|| fs::write("/proc/sys/net/ipv4/tcp_syn_retries", SYN_RETRIES)).unwrap();
        let arrivals = [0, 1].map(|server| Arrivals::at(&director.servers[server]));
        let sent = Arrivals::at(&director.client);
        let exact = Exact::open(&director.node);
        let poller = Poller::start(&director, &["--interval", INTERVAL]);
        Self { settings, director, poller, arrivals, sent, exact, number: 0 }
    }

    /// From here on.
    pub(crate) fn mark(&mut self) -> Mark {
        self.exact.iter_mut().for_each(Exact::forget);
        let arrived = self.arrivals.each_mut().map(|arrivals| arrivals.seen().len());
        Mark { arrived, sent: self.sent.seen().len(), told: self.poller.told().len() }
    }

    /// Carries out all plans, again if an entry was gone too early.
    pub(crate) fn run(&mut self, plans: &[Plan]) -> Vec<Done> {
        let mut done = Vec::new();
        let mut left = plans.to_vec();
        for _ in 0..TRIES {
            left = self.round(&left, &mut done);
            if left.is_empty() {
                return done;
            }
        }
        panic!("{:?}: entries were gone before they could be met: {left:?}", self.settings);
    }

    /// Carries out the plans up to their second connections: the first ones are over, and the watch has seen that.
    pub(crate) fn open(&mut self, plans: &[Plan]) -> Vec<Case> {
        let mut cases = Case::all(&self.director, plans, self.number);
        self.number += plans.len() as u16;
        self.director.ipvsadm(&cases.iter().map(Case::rules).collect::<String>());
        self.director.client.within(|| cases.iter_mut().for_each(Case::begin));
        settle(&mut cases, |_| true);
        cases.iter_mut().for_each(Case::close_first);
        // What is still on its way to an end that is gone would be answered by a RST.
        until("acknowledged", || self.not_acknowledged(&cases));
        cases.iter_mut().for_each(Case::vanish);
        until("in its state", || self.not_in_state(&cases, |entry| entry.is_some()));
        self.poller.look();
        cases
    }

    /// Gives back the plans whose entries were gone too early.
    fn round(&mut self, plans: &[Plan], done: &mut Vec<Done>) -> Vec<Plan> {
        let mut cases = self.open(plans);
        self.happen(&mut cases);
        let lapsed = self.not_in_state(&cases, |_| true);
        cases.retain(|case| !lapsed.contains(&case.plan));
        let mark = self.mark();
        self.director.client.within(|| cases.iter_mut().for_each(Case::begin));
        settle(&mut cases, |case| case.service.is_tcp);
        self.poller.look();
        // A datagram that did not arrive by now will not.
        cases.iter_mut().for_each(|case| _ = case.look());
        done.extend(self.done(&cases, &mark));
        lapsed
    }

    /// What became of the cases from there on.
    pub(crate) fn done(&mut self, cases: &[Case], from: &Mark) -> Vec<Done> {
        let told = self.poller.told().split_off(from.told);
        let flushes = self.settings.expire_nodest_conn != 0;
        let one = |case: &Case| {
            let is_own = |told: &&Told| (told.client, told.service) == (case.client, case.service.address());
            // Datagrams are not followed.
            let exact = self.exact.as_mut().filter(|_| case.service.is_tcp);
            Done {
                plan: case.plan,
                outcome: case.outcome,
                exact: exact.map(|exact| exact.verdicts(case, case.is_removed && flushes)),
                happened: self.happened(case, from),
                told: told.iter().filter(is_own).cloned().collect(),
            }
        };
        cases.iter().map(one).collect()
    }

    /// Plans whose entries are not in their state, or about to leave it, and of those what `is_asked_for`. The kernel may flush the
    /// entries of a removed server at once.
    fn not_in_state(&self, cases: &[Case], is_asked_for: impl Fn(Option<(&str, u32)>) -> bool) -> Vec<Plan> {
        let table = self.director.read("ip_vs_conn");
        let flushes = self.settings.expire_nodest_conn != 0;
        let is_missing = |case: &&Case| {
            let entry = entry_of(&table, case);
            let is_in_state =
                entry.is_some_and(|(state, left)| state == case.plan.prior.state() && left >= LEAST_LEFT);
            let is_flushed = case.is_removed && flushes;
            !is_in_state && !is_flushed && is_asked_for(entry)
        };
        cases.iter().filter(is_missing).map(|case| case.plan).collect()
    }

    /// Plans whose entries are not in TIME_WAIT with such a time left.
    pub(crate) fn not_closed(&self, cases: &[Case], is_wanted: impl Fn(u32) -> bool) -> Vec<Plan> {
        let table = self.director.read("ip_vs_conn");
        let is_missing = |case: &&Case| {
            !entry_of(&table, case).is_some_and(|(state, left)| state == "TIME_WAIT" && is_wanted(left))
        };
        cases.iter().filter(is_missing).map(|case| case.plan).collect()
    }

    /// Plans with an end that closed its half and was not told so (FIN-WAIT-1).
    fn not_acknowledged(&self, cases: &[Case]) -> Vec<Plan> {
        let Director { client, servers: [first, second], .. } = &self.director;
        let [of_client, of_first, of_second] = [client, first, second].map(half_closed);
        let is_waiting = |case: &&Case| {
            case.closed_half().is_some_and(|(end, port)| {
                let ports = match end {
                    End::Client => &of_client,
                    End::Server(0) => &of_first,
                    End::Server(_) => &of_second,
                };
                !ports.contains(&(case.client.is_ipv6(), port))
            })
        };
        cases.iter().filter(is_waiting).map(|case| case.plan).collect()
    }

    /// What is to happen to the servers happens.
    fn happen(&self, cases: &mut [Case]) {
        for (server, namespace) in self.director.servers.iter().enumerate() {
            let is_silent =
                |case: &&Case| case.plan.event == Event::DrainedAndSilent && case.first == Some(server);
            let ports: Vec<String> =
                cases.iter().filter(is_silent).map(|case| case.service.server_port.to_string()).collect();
            if !ports.is_empty() {
                let rules = format!(
                    "table inet t {{ chain i {{ type filter hook input priority 0; tcp dport {{ {} }} drop; }}; }}",
                    ports.join(", ")
                );
                namespace.run_with("nft -f -", &rules);
            }
        }
        let rules: String = cases.iter_mut().map(Case::happen).collect();
        self.director.ipvsadm(&rules);
    }

    /// What became of the second connection, by what was sent and where it arrived.
    fn happened(&mut self, case: &Case, from: &Mark) -> Vec<Verdict> {
        let count = |arrivals: &[Arrival], to: SocketAddr| {
            arrivals.iter().filter(|arrival| (arrival.from, arrival.to) == (case.client, to)).count()
        };
        let arrived = [0, 1].map(|server| {
            let new = &self.arrivals[server].seen()[from.arrived[server]..];
            count(new, case.service.server(server))
        });
        let sent = count(&self.sent.seen()[from.sent..], case.service.address());
        let at_all: usize = arrived.iter().sum();
        assert!((1..=sent).contains(&at_all.max(1)), "{:?}: sent {sent}, arrived {arrived:?}", case.plan);
        if let Some(Outcome::Served(server)) = case.outcome {
            assert!(arrived[server] > 0, "{:?}: served where nothing arrived", case.plan);
        }
        let first = case.first.expect("it had a first connection");
        let all = [
            (arrived[first] > 0, Verdict::Reused),
            (arrived[1 - first] > 0, Verdict::Rescheduled),
            (sent > at_all, Verdict::Dropped),
        ];
        all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, verdict)| verdict).collect()
    }
}

/// Exact mode beside the watch.
struct Exact {
    decisions: Decisions,
    seen: Vec<Decision>,
}

impl Exact {
    fn open(node: &Namespace) -> Option<Self> {
        let namespace = fs::metadata(node.path()).unwrap().ino();
        let namespace = Some(u32::try_from(namespace).unwrap());
        let config = DecisionsConfig { namespace, tells_all: true, ..DecisionsConfig::default() };
        match Decisions::open(&config) {
            Ok(decisions) => Some(Self { decisions, seen: Vec::new() }),
            Err(Unavailable::NoModuleTypes | Unavailable::NoProbes) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn drain(&mut self) {
        while self.decisions.drain(64, &mut |decision| self.seen.push(*decision)) {}
    }

    fn forget(&mut self) {
        self.drain();
        self.seen.clear();
    }

    /// What it told of a case, each once. A connection without an entry is news of an old one only if that was given up for its first
    /// SYN, or flushed with its server.
    fn verdicts(&mut self, case: &Case, may_be_flushed: bool) -> Vec<Verdict> {
        self.drain();
        let first = case.first.map(|server| case.service.server(server));
        let at = |end: Option<(IpAddr, u16)>| {
            let is_first = end.map(SocketAddr::from) == first;
            if is_first { Verdict::Reused } else { Verdict::Rescheduled }
        };
        let mut verdicts = Vec::new();
        let is_own = |told: &&Decision| {
            let Tuple { client, service, .. } = told.tuple;
            (client.into(), service.into()) == (case.client, case.service.address())
        };
        for told in self.seen.iter().filter(is_own) {
            let made = told.made.map(|(end, _)| end);
            let verdict = match told.outcome {
                Decided::Reused => at(told.met.map(|met| met.server)),
                Decided::Rescheduled => at(made),
                Decided::Dropped(_) => Verdict::Dropped,
                Decided::New if may_be_flushed || verdicts.contains(&Verdict::Dropped) => at(made),
                Decided::New | Decided::PassedOn | Decided::Repeated => continue,
            };
            if !verdicts.contains(&verdict) {
                verdicts.push(verdict);
            }
        }
        verdicts.sort();
        verdicts
    }
}
