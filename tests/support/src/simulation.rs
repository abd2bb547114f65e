//! A simulated kernel: clients that come back with their ports, the transitions of `ip_vs_proto_tcp.c`, the decision on a SYN of
//! `ip_vs_in`, timers, and servers that drain, die, go and come. Keeps what happened, for others to compare with.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    ipvs::{service_table, services},
    rng::Rng,
};
use pod2pod_user::ipvs::{services::Services, state::State};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flag {
    Syn,
    Fin,
    Ack,
    Rst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client opens a connection; a second and third time if nothing answered.
    Open {
        client: usize,
        attempt: u32,
    },
    FromClient(usize, Flag),
    FromServer(usize, usize, Flag),
    /// Something happens to a server.
    Change,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// It stays the same as long as the entry lives.
    pub id: u32,
    /// Its client.
    pub client: usize,
    /// Its real server.
    pub server: usize,
    /// Its state.
    pub state: State,
    /// Milliseconds.
    pub deadline: u64,
    /// Expired by the kernel, and listed until then.
    pub dying: Option<u64>,
}

/// A real server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// The service has it.
    pub present: bool,
    /// Its weight.
    pub weight: u32,
    /// It does not answer.
    pub dead: bool,
}

/// What happened to a client's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A SYN was let through, to an entry that was made for it or was there.
    Syn {
        /// Where it went.
        server: usize,
        /// The entry was made for it.
        made: bool,
    },
    /// Its time was up.
    RanOut,
}

/// A SYN that a client sent, and what it met.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub time: u64,
    pub client: usize,
    pub isn: u32,
    /// The entry of the client that was there.
    pub met: Option<Entry>,
    /// Where it went; nowhere if it was dropped.
    pub server: Option<usize>,
    /// An entry was made for it.
    pub made: bool,
}

/// How a kernel is set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `conn_reuse_mode`.
    pub reuse_mode: u32,
    /// `expire_nodest_conn`.
    pub expire_nodest: bool,
    /// `conntrack`.
    pub conntrack: bool,
    /// Replies do not pass the director.
    pub direct: bool,
}

/// The kernel, and the world around it.
pub struct Simulation {
    /// What is left to chance.
    pub rng: Rng,
    /// Milliseconds since its beginning.
    pub now: u64,
    setting: Setting,
    /// The table, in the order in which it is written.
    pub entries: Vec<Entry>,
    /// The service's servers.
    pub servers: [Server; 3],
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    facts: Vec<(u64, usize, Fact)>,
    /// SYNs since they were taken last.
    pub sent: Vec<Sent>,
    isns: [u32; CLIENTS],
}

/// Clients, each with one port.
pub const CLIENTS: usize = 40;
/// Port of the first of them.
pub const FIRST_PORT: usize = 50_000;

impl Simulation {
    /// Everything of it follows from `seed`.
    pub fn new(seed: u64, setting: Setting) -> Self {
        let server = Server { present: true, weight: 1, dead: false };
        let mut new = Self {
            rng: Rng::new(seed),
            now: 0,
            setting,
            entries: Vec::new(),
            servers: [server; 3],
            events: BinaryHeap::new(),
            sequence: 0,
            facts: Vec::new(),
            sent: Vec::new(),
            isns: [0; CLIENTS],
        };
        for client in 0..CLIENTS {
            let at = new.below(20_000);
            new.at(at, Event::Open { client, attempt: 0 });
        }
        new.at(3000, Event::Change);
        new
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound as usize) as u64
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// Time passes.
    pub fn run_until(&mut self, time: u64) {
        while let Some(Reverse((at, _, event))) =
            self.events.peek().copied().filter(|Reverse((at, ..))| *at <= time)
        {
            self.events.pop();
            self.go_to(at);
            match event {
                Event::Open { client, attempt } => self.open(client, attempt),
                Event::FromClient(client, flag) => {
                    self.client_sends(client, flag);
                }
                Event::FromServer(client, server, flag) => self.server_sends(client, server, flag),
                Event::Change => self.change(),
            }
        }
        self.go_to(time);
    }

    /// Time passes: entries run out.
    fn go_to(&mut self, time: u64) {
        self.now = time;
        let facts = &mut self.facts;
        self.entries.retain(|entry| match entry.dying {
            Some(gone) => gone > time,
            None => {
                if entry.deadline <= time {
                    facts.push((entry.deadline, entry.client, Fact::RanOut));
                }
                entry.deadline > time
            }
        });
    }

    fn change(&mut self) {
        let which = self.rng.below(3);
        let what = self.rng.below(5);
        let server = &mut self.servers[which];
        match what {
            0 => server.weight = 0,
            1 => (server.weight, server.present) = (0, false),
            2 => server.dead = !server.dead,
            _ => *server = Server { present: true, weight: 1, dead: false },
        }
        let next = self.now + 1000 + self.below(20_000);
        self.at(next, Event::Change);
    }

    fn open(&mut self, client: usize, attempt: u32) {
        let now = self.now;
        let Some(server) = self.send_syn(client, attempt).filter(|server| !self.servers[*server].dead) else {
            if attempt < 2 {
                self.at(now + (1000 << attempt), Event::Open { client, attempt: attempt + 1 });
            } else {
                self.open_later(client, now);
            }
            return;
        };
        if self.rng.below(10) == 0 {
            self.at(now + 2, Event::FromServer(client, server, Flag::Rst));
            self.open_later(client, now + 3);
            return;
        }
        self.at(now + 2, Event::FromServer(client, server, Flag::Syn));
        self.at(now + 3, Event::FromClient(client, Flag::Ack));
        let longest = [50, 3000, 20_000][self.rng.below(3)];
        let mut end = now + 5 + self.below(longest);
        let closing: &[(bool, Flag)] = match self.rng.below(6) {
            0 => &[(true, Flag::Fin), (false, Flag::Fin), (true, Flag::Ack)],
            1 => &[(false, Flag::Fin), (true, Flag::Fin), (false, Flag::Ack)],
            2 => &[(true, Flag::Rst)],
            3 => &[(false, Flag::Rst)],
            4 => &[(true, Flag::Fin)],
            // The client is gone without a word.
            _ => &[],
        };
        for (by_client, flag) in closing {
            let event = if *by_client {
                Event::FromClient(client, *flag)
            } else {
                Event::FromServer(client, server, *flag)
            };
            self.at(end, event);
            end += 1 + self.below(10);
        }
        if closing.len() == 3 && self.rng.below(5) == 0 {
            end += self.below(4000);
            self.at(end, Event::FromClient(client, Flag::Fin));
        }
        self.open_later(client, end);
    }

    fn send_syn(&mut self, client: usize, attempt: u32) -> Option<usize> {
        if attempt == 0 {
            self.sequence += 1;
            self.isns[client] = self.sequence as u32;
        }
        let is_it = |entry: &&Entry| entry.client == client && entry.dying.is_none();
        let met = self.entries.iter().find(is_it).copied();
        let server = self.client_sends(client, Flag::Syn);
        let made =
            matches!(self.facts.last(), Some((_, _, Fact::Syn { made: true, .. }))) && server.is_some();
        self.sent.push(Sent { time: self.now, client, isn: self.isns[client], met, server, made });
        server
    }

    fn open_later(&mut self, client: usize, end: u64) {
        let longest = [200, 8000, 60_000, 150_000][self.rng.below(4)];
        let at = end + 20 + self.below(longest);
        self.at(at, Event::Open { client, attempt: 0 });
    }

    fn schedule(&mut self, client: usize) -> Option<usize> {
        let able: Vec<usize> = (0..3)
            .filter(|server| self.servers[*server].present && self.servers[*server].weight > 0)
            .collect();
        let server = *able.get(self.rng.below(able.len()))?;
        let deadline = self.now + timeout(State::SynRecv);
        let id = self.sequence as u32;
        self.sequence += 1;
        // New ones are in front of their chain.
        self.entries.insert(0, Entry { id, client, server, state: State::SynRecv, deadline, dying: None });
        self.facts.push((self.now, client, Fact::Syn { server, made: true }));
        Some(server)
    }

    fn kill(&mut self, index: usize) {
        let gone = self.now + 1 + self.below(50);
        self.entries[index].dying = Some(gone);
    }

    /// A packet of a client; the server that it went to.
    fn client_sends(&mut self, client: usize, flag: Flag) -> Option<usize> {
        let Some(index) =
            self.entries.iter().position(|entry| entry.client == client && entry.dying.is_none())
        else {
            return if flag == Flag::Syn { self.schedule(client) } else { None };
        };
        let entry = self.entries[index];
        let server = self.servers[entry.server];
        let Setting { reuse_mode, expire_nodest, conntrack, direct } = self.setting;
        if flag == Flag::Syn {
            let by_weight = expire_nodest && server.present && server.weight == 0;
            let by_state = reuse_mode != 0 && matches!(entry.state, State::TimeWait | State::Close);
            if by_weight || by_state {
                self.kill(index);
                let is_tracked = conntrack && entry.state == State::Established;
                return if is_tracked { None } else { self.schedule(client) };
            }
        }
        if !server.present {
            if expire_nodest {
                self.kill(index);
                return if flag == Flag::Syn { self.schedule(client) } else { None };
            }
            return None;
        }
        if flag == Flag::Syn {
            self.facts.push((self.now, client, Fact::Syn { server: entry.server, made: false }));
        }
        self.move_on(index, next(entry.state, true, flag, direct));
        Some(entry.server)
    }

    fn server_sends(&mut self, client: usize, server: usize, flag: Flag) {
        if self.setting.direct {
            return;
        }
        let is_it = |entry: &Entry| entry.client == client && entry.server == server && entry.dying.is_none();
        if let Some(index) = self.entries.iter().position(is_it) {
            self.move_on(index, next(self.entries[index].state, false, flag, false));
        }
    }

    fn move_on(&mut self, index: usize, state: State) {
        let deadline = self.now + timeout(state);
        let entry = &mut self.entries[index];
        (entry.state, entry.deadline) = (state, deadline);
    }

    fn row(&self, entry: &Entry) -> String {
        let left = if entry.dying.is_some() { 0 } else { (entry.deadline - self.now) / 1000 };
        let (client, server) = (FIRST_PORT + entry.client, 0x0AF4_0202 + entry.server);
        format!(
            "TCP 0AF40102 {client:04X} 0A60000A 0050 {server:08X} 1F90 {:11} {left:>7}\n",
            entry.state.as_str()
        )
    }

    /// Rows of the table now, by entry.
    pub fn rows(&self) -> Vec<(u32, String)> {
        self.entries.iter().map(|entry| (entry.id, self.row(entry))).collect()
    }

    /// The services now.
    pub fn services(&self) -> Services {
        let forward = if self.setting.direct { "Route" } else { "Masq" };
        let there = self.servers.iter().enumerate().filter(|(_, server)| server.present);
        let rows = there
            .map(|(index, server)| (format!("{:08X}:1F90", 0x0AF4_0202 + index), forward, server.weight, 0));
        services(service_table(rows).as_bytes())
    }

    /// What happened to a client's entry after `from` and up to `to`.
    pub fn facts(&self, client: usize, from: u64, to: u64) -> impl Iterator<Item = Fact> {
        let is_it = move |(at, own, _): &&(u64, usize, Fact)| *own == client && *at > from && *at <= to;
        self.facts.iter().filter(is_it).map(|(.., fact)| *fact)
    }
}

/// Milliseconds.
fn timeout(state: State) -> u64 {
    u64::from(state.timeout().expect("a state of TCP")) * 1000
}

/// `tcp_states` and `tcp_states` of the input-only kind.
fn next(state: State, by_client: bool, flag: Flag, input_only: bool) -> State {
    use State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, SynRecv as SR, SynSent as SS,
        TimeWait as TW,
    };
    if input_only && by_client && flag == Flag::Fin {
        return if matches!(state, ES | FW) { FW } else { state };
    }
    let by_flag = match (state, by_client) {
        (SR, true) => [SR, TW, ES, SR],
        (SR, false) => [SR, TW, ES, CL],
        (SS, true) => [ES, SS, SS, CL],
        (SS, false) => [SS, SS, SS, SS],
        (ES, true) => [ES, CW, ES, CL],
        (ES, false) => [ES, FW, ES, CL],
        (FW, true) => [SR, TW, FW, CL],
        (FW, false) => [SS, FW, FW, CL],
        (CW, true) => [SR, CW, CW, CL],
        (CW, false) => [SS, TW, CW, CL],
        (TW, true) => [SR, TW, TW, CL],
        (TW, false) => [SS, TW, TW, TW],
        (CL, true) => [SR, CL, CL, CL],
        (CL, false) => [SS, CL, CL, CL],
        (other, _) => panic!("{other:?} is never entered"),
    };
    by_flag[flag as usize]
}
