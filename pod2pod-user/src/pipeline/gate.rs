//! The gate between reassembly and what is behind it: judges connections and attempts, and keeps out those that are refused.
//! The rules are the filter's; whom to tell of what was refused is the pipeline's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    capture::{KernelInstant, Segment},
    filter::{
        self, Filter, Verdict,
        sightings::{SightingStats, Sightings},
    },
    host::Host,
    http::{Exchange, HttpTracker},
    named::Names,
    reassembly::{Attempt, Chunk, Connection, Content},
};

/// Who tells of connections that several interfaces see: shared by all workers, since NAT may give the sightings of one
/// connection to several. Asked once a connection.
#[derive(Clone, Debug, Default)]
pub struct SharedSightings(Arc<Mutex<Sightings>>);

impl SharedSightings {
    /// What was counted.
    pub fn stats(&self) -> SightingStats {
        *self.lock().stats()
    }

    /// A worker that panicked leaves a whole table behind.
    fn lock(&self) -> MutexGuard<'_, Sightings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges connections, and keeps those that are refused from the stages behind.
pub(super) struct Gate {
    pub(super) filter: Filter,
    host: Host,
    /// Nothing is to be judged.
    pub(super) is_open: bool,
    /// Where connections may be seen at several interfaces.
    pub(super) sightings: Option<SharedSightings>,
    /// Refused since [`Pipeline::settle`].
    pub(super) refused: Vec<Connection>,
    /// Of which chunks were let through since then, if somebody wants to know.
    pub(super) passed: Option<Vec<Connection>>,
}

impl Gate {
    /// Lets through what `filter` wants.
    pub(super) fn new(filter: Filter) -> Self {
        let is_open = filter.is_open();
        let (host, sightings, refused, passed) = (Host::default(), None, Vec::new(), None);
        let mut gate = Self { filter, host, is_open, sightings, refused, passed };
        gate.check_places();
        gate
    }

    fn check_places(&mut self) {
        if self.filter.asks_cgroups() && !self.host.open() {
            tracing::warn!("there is no hierarchy of cgroup v2: filter.cgroups refuses all");
        }
    }

    /// Lets through what other rules want, from now on.
    pub(super) fn change(&mut self, rules: filter::Config) {
        self.filter.change(rules);
        self.is_open = self.filter.is_open() && self.sightings.is_none();
        self.check_places();
    }

    /// Rules about cgroups may come later, when the right to open them is gone.
    pub(super) fn open_places(&mut self) {
        self.host.open();
    }

    /// Hands a chunk on if its connection is wanted; a connection is judged with its first one.
    pub(super) fn push(
        &mut self,
        chunk: Chunk<'_>,
        now: KernelInstant,
        tracker: &mut HttpTracker,
        names: Option<&mut Names>,
    ) {
        if !self.is_open && !tracker.follows(chunk.connection) {
            let is_over = matches!(chunk.content, Content::Closed(_));
            if is_over || self.has_refused(chunk.connection) {
                return;
            }
            let sightings = self.sightings.as_ref();
            let is_duplicate =
                || sightings.is_some_and(|sightings| sightings.lock().is_duplicate(chunk.connection, now));
            if let Verdict::Ignore(_) = self.filter.judge(chunk.connection, &mut self.host, is_duplicate) {
                self.refused.push(*chunk.connection);
                return;
            }
        }
        if let Some(passed) = &mut self.passed {
            passed.push(*chunk.connection);
        }
        let connection = chunk.connection;
        tracker.push_of(chunk, now, || names.is_some_and(|names| names.wants_more(connection, now)));
    }

    /// Whether an exchange is of a connection that is wanted.
    pub(super) fn wants(&mut self, exchange: &Exchange) -> bool {
        if self.is_open {
            return true;
        }
        let connection = &exchange.connection;
        let refused = self.has_refused(connection);
        if !refused && self.filter.still_wants(connection, exchange.client, &mut self.host) {
            return true;
        }
        self.filter.count_exchange();
        self.refuse(connection);
        false
    }

    /// A connection is not wanted, as turned out behind this stage.
    pub(super) fn refuse(&mut self, connection: &Connection) {
        if !self.has_refused(connection) {
            self.refused.push(*connection);
        }
    }

    /// Whether a connection attempt is of a connection that is wanted.
    pub(super) fn wants_attempt(&mut self, attempt: &Attempt, now: KernelInstant) -> bool {
        let sightings = self.sightings.as_ref();
        let is_duplicate =
            || sightings.is_some_and(|sightings| sightings.lock().is_duplicate(&attempt.connection, now));
        self.is_open || self.filter.wants_attempt(&attempt.connection, &mut self.host, is_duplicate)
    }

    /// A SYN was seen. What the rules refuse at one interface, another may tell of: it claims nothing.
    pub(super) fn note_syn(&mut self, syn: &Segment<'_>) {
        let Some(sightings) = &self.sightings else { return };
        let connection = Connection::asked_for_by(syn);
        if self.filter.may_want(&connection, &mut self.host) {
            sightings.lock().note_syn(&connection, syn.time);
        }
    }

    /// Whether a connection was refused just now. Hardly ever is it more than one.
    fn has_refused(&self, connection: &Connection) -> bool {
        self.refused.iter().any(|refused| refused.token == connection.token)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        capture::{Direction, Scope, TcpFlags},
        filter::{Config, Network, PortRange},
        reassembly::Fate,
    };

    /// The SYN of one client as interface 1 has it, or behind DNAT interface 2.
    fn syn(interface_index: u32) -> Segment<'static> {
        let server = if interface_index == 1 { "192.0.2.1:30080" } else { "10.244.0.7:8080" };
        Segment {
            time: KernelInstant::from_nanos(1_000_000_000 + u64::from(interface_index)),
            scope: Scope(interface_index.into()),
            direction: Direction::Ingress,
            source: "198.51.100.9:40000".parse().unwrap(),
            destination: server.parse().unwrap(),
            sequence: 5,
            acknowledgement: 0,
            flags: TcpFlags(pod2pod_common::segment::TCP_SYN),
            payload_length: 0,
            payload: &[],
            lost_before: false,
            skipped_before: false,
            generation: None,
            cgroup_id: 0,
            socket_cookie: 0,
            interface_index,
            unreachable: None,
            scope_is_cookie: false,
        }
    }

    /// Which interfaces tell that a client failed whose SYN passed both.
    fn told(filter: Config) -> Vec<u32> {
        let mut gate = Gate::new(Filter::new(filter));
        (gate.is_open, gate.sightings) = (false, Some(SharedSightings::default()));
        for interface in [1, 2] {
            gate.note_syn(&syn(interface));
        }
        let end = syn(1).time.plus(Duration::from_secs(10));
        let attempt = |interface| {
            let connection = Connection::asked_for_by(&syn(interface));
            Attempt { connection, fate: Fate::Timeout, end, late: false }
        };
        [1, 2].into_iter().filter(|interface| gate.wants_attempt(&attempt(*interface), end)).collect()
    }

    #[test]
    fn an_attempt_is_told_where_the_rules_want_it_first() {
        let networks = |text| Config { networks: vec![Network::parse(text).unwrap()], ..Config::default() };
        let ports = |text| Config { ports: vec![PortRange::parse(text).unwrap()], ..Config::default() };
        let cases = [
            (Config::default(), vec![1]),
            (networks("198.51.100.0/24"), vec![1]),
            (networks("10.244.0.0/16"), vec![2]),
            (networks("192.0.2.0/24"), vec![1]),
            (ports("8080"), vec![2]),
            (ports("30080"), vec![1]),
            (ports("443"), vec![]),
        ];
        for (config, expected) in cases {
            assert_eq!(told(config.clone()), expected, "{config:?}");
        }
    }
}
