//! Where records get the names of their ends: one worker's naming, the directory that it asks, the records that wait for an answer,
//! and the rules that ask for names.

pub mod wishes;

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

pub use wishes::Rules;
use wishes::Wishes;

use crate::{
    behind::{self, Behind, Called},
    capture::KernelInstant,
    enrich::{
        DEFAULT_SLOW, Fate, Rate,
        identity::mix,
        naming::{self, Ends, Named, Naming, Parties, Who, is_bare},
        sampling,
    },
    filter::Selection,
    kubernetes::{
        addresses::Found,
        identity::{Identity, Pod},
    },
    reassembly::{Connection, Side},
    record::{ObservedAt, Party, Record, Role},
};

/// Records that wait at once: of a second's exchanges those with an end that was heard of just now.
pub const DEFAULT_MAX_WAITING: usize = 4096;
/// Bytes of records that wait.
pub const DEFAULT_MAX_WAITING_BYTES: usize = 2 << 20;
/// When something new was heard, those that wait are looked at again, at most this often.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What is done with names.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which exchanges are wanted.
    pub selection: Selection,
    /// What pods may ask for.
    pub rules: Rules,
    /// Share of ordinary exchanges that is kept, of any pod.
    pub rate: Rate,
    /// Exchanges at least this long are never sampled away.
    pub slow: Duration,
    /// Records that wait at most.
    pub max_waiting: usize,
    /// Bytes of them at most.
    pub max_waiting_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            rules: Rules::default(),
            rate: Rate::ALL,
            slow: DEFAULT_SLOW,
            max_waiting: DEFAULT_MAX_WAITING,
            max_waiting_bytes: DEFAULT_MAX_WAITING_BYTES,
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records whose ends were to be named.
    pub records: u64,
    /// Of these, that waited.
    pub waited: u64,
    /// Records that would have waited, had there been room: they left with what was known.
    pub waits_refused: u64,
    /// Records that the selection refused.
    pub refused: u64,
    /// Of these, with an end of which it is not certain who it is: their connections go on.
    pub refused_unknown: u64,
    /// Records that a pod's annotation sampled away.
    pub sampled_away: u64,
    /// Ends that are somebody in the cluster, or outside of it.
    pub ends_named: u64,
    /// Of these, as they were when there last was contact with the API server.
    pub ends_stale: u64,
    /// Ends of which nobody knows who they were, or which of several.
    pub ends_unknown: u64,
    /// Times that all remembered answers were forgotten because there were too many.
    pub answers_forgotten: u64,
    /// Values of pods' annotations that cannot be read: what is configured holds.
    pub wishes_unreadable: u64,
    /// Values of pods' annotations that ask for more than pods may.
    pub wishes_limited: u64,
}

/// A record that waits.
struct Waiting {
    record: Record,
    connection: Connection,
    client: Side,
    ends: Ends,
    fate: Fate,
    until: Duration,
    bytes: usize,
}

/// Gives records names.
pub struct Names {
    config: Config,
    naming: Naming,
    who: Box<dyn Who + Send>,
    /// Who knows where connections to Services were led.
    behind: Option<Behind>,
    wishes: Wishes,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// No one is done waiting before.
    next: Option<Duration>,
    looked: Duration,
    version: u64,
    stats: Stats,
}

impl Names {
    /// Asks `who`.
    pub fn new(config: Config, who: Box<dyn Who + Send>) -> Self {
        Self {
            config,
            naming: Naming::default(),
            who,
            behind: None,
            wishes: Wishes::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next: None,
            looked: Duration::ZERO,
            version: 0,
            stats: Stats::default(),
        }
    }

    /// Keeps records by another selection from now on. Which labels are known, and what pods may ask for,
    /// was decided at the start: that stays.
    pub fn select(&mut self, mut selection: Selection) {
        let known = &mut self.config.selection;
        for (ends, known) in
            [(&mut selection.only, &mut known.only), (&mut selection.ignore, &mut known.ignore)]
        {
            ends.labels = known.labels.take();
        }
        selection.obeys_annotation = known.obeys_annotation;
        *known = selection;
    }

    /// Also names the pods behind Services' addresses, as far as this one knows.
    pub fn look_behind(&mut self, behind: Behind) {
        self.behind = Some(behind);
    }

    /// Names the ends of `record`, of a `connection` whose client is on its side `client`, begun `at`. Absent if it has to wait: it
    /// will come from [`Self::pop`]; else what is to be done with it.
    pub fn name(
        &mut self,
        record: &mut Record,
        (connection, client): (&Connection, Side),
        fate: Fate,
        at: KernelInstant,
        now: KernelInstant,
    ) -> Option<Fate> {
        self.stats.records += 1;
        let (at, now) = (instant(at), instant(now));
        let local = observed(record);
        debug_assert!(
            connection
                .local
                .is_none_or(|side| (side == client) == (record.observed_at == ObservedAt::Client))
        );
        let (client_end, server_end) = (record.client, record.server);
        let cgroup_id = connection.cgroup_id;
        let mut ends = Ends { client: client_end, server: server_end, local, cgroup_id, real: None, at };
        let mut named = self.naming.name(&mut *self.who, &ends, now);
        let (parties, is_early) = match &named {
            Named::Now(parties) => (parties, false),
            Named::Later(_, parties) => (parties, true),
        };
        let [_, server] = parties;
        let server = server.as_deref();
        let is_service = match server {
            Some(server) => is_bare(server),
            None => is_early && self.behind.is_some() && self.seems_service(&ends, now),
        };
        note(&mut self.behind, record, server);
        if is_service {
            // While it waits others may get its addresses and ports.
            ends.real = find(&mut self.behind, record, (connection, client), true, now);
        }
        if ends.real.is_some() {
            named = self.naming.name(&mut *self.who, &ends, now);
        }
        match named {
            Named::Now(parties) => Some(self.settle(record, parties, fate)),
            Named::Later(until, parties) => {
                let bytes = record.held_bytes();
                if self.waiting.len() >= self.config.max_waiting
                    || self.waiting_bytes + bytes > self.config.max_waiting_bytes
                {
                    self.stats.waits_refused += 1;
                    return Some(self.settle(record, parties, fate));
                }
                self.stats.waited += 1;
                self.waiting_bytes += bytes;
                self.next = Some(self.next.map_or(until, |next| next.min(until)));
                let (record, connection) = (record.clone(), *connection);
                self.waiting.push_back(Waiting { record, connection, client, ends, fate, until, bytes });
                None
            }
        }
    }

    /// Whether more is to be captured of the bodies of a connection than of any: the pod whose socket is observed asks for it, as
    /// far as it is known `now`.
    pub fn wants_more(&mut self, connection: &Connection, now: KernelInstant) -> bool {
        let rules = &self.config.rules;
        let (Some(side), true) = (connection.local, rules.most_body_bytes() > rules.own_body_bytes) else {
            return false;
        };
        let local = if side == Side::Originator { Role::Client } else { Role::Server };
        let [client, server] =
            [connection.originator, connection.responder].map(|end| (end.ip(), end.port()));
        let now = instant(now);
        let ends =
            Ends { client, server, local: Some(local), cgroup_id: connection.cgroup_id, real: None, at: now };
        let (Named::Now(parties) | Named::Later(_, parties)) = self.naming.name(&mut *self.who, &ends, now);
        let pod = pod_of(&parties, Some(local));
        pod.is_some_and(|pod| self.wishes.wants_more(pod, rules))
    }

    /// What pods may ask for.
    pub const fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// Whether [`Self::pop`] may have something at `now`.
    pub fn is_due(&self, now: KernelInstant) -> bool {
        let now = instant(now);
        self.next.is_some_and(|next| next <= now)
            || !self.waiting.is_empty()
                && self.version != self.who.version()
                && self.looked + LOOK_INTERVAL <= now
    }

    /// Hands over all that are done waiting at `now`, or all there are if nothing will come any more.
    pub fn pop(
        &mut self,
        now: KernelInstant,
        is_end: bool,
        tell: &mut impl FnMut(&mut Record, &Connection, Fate),
    ) {
        let now = instant(now);
        (self.looked, self.version, self.next) = (now, self.who.version(), None);
        for _ in 0..self.waiting.len() {
            let Some(mut waiting) = self.waiting.pop_front() else { break };
            let mut named = self.naming.name(&mut *self.who, &waiting.ends, now);
            if waiting.ends.real.is_none()
                && let Named::Now([_, Some(server)]) = &named
                && is_bare(server)
            {
                let Waiting { record, connection, client, .. } = &waiting;
                waiting.ends.real = find(&mut self.behind, record, (connection, *client), false, now);
                if waiting.ends.real.is_some() {
                    named = self.naming.name(&mut *self.who, &waiting.ends, now);
                }
            }
            let parties = match named {
                Named::Now(parties) => parties,
                Named::Later(_, parties) if is_end => parties,
                Named::Later(until, _) => {
                    waiting.until = until;
                    self.next = Some(self.next.map_or(until, |next| next.min(until)));
                    self.waiting.push_back(waiting);
                    continue;
                }
            };
            self.waiting_bytes -= waiting.bytes;
            let fate = self.settle(&mut waiting.record, parties, waiting.fate);
            tell(&mut waiting.record, &waiting.connection, fate);
        }
    }

    /// Records that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let naming::Stats { ends_named, ends_stale, ends_unknown, forgotten } = *self.naming.stats();
        Stats {
            ends_named,
            ends_stale,
            ends_unknown,
            answers_forgotten: forgotten,
            wishes_unreadable: self.wishes.stats.unreadable,
            wishes_limited: self.wishes.stats.limited,
            ..self.stats
        }
    }

    /// What was counted of connections to Services' addresses.
    pub fn behind_stats(&self) -> behind::Stats {
        self.behind.as_ref().map(|behind| *behind.stats()).unwrap_or_default()
    }

    /// Whether the server is a Service, as far as is known, before that is certain.
    fn seems_service(&mut self, ends: &Ends, now: Duration) -> bool {
        match self.who.address(ends.server.into(), ends.at, now) {
            Found::Early(_, Some(Identity { service: Some(_), pod: None, node: None, .. })) => true,
            Found::Early(..) | Found::Held(_) | Found::Stale(_) | Found::Nobody | Found::Several => false,
        }
    }

    /// Puts the names into the record; what is to be done with it by them.
    fn settle(&mut self, record: &mut Record, parties: Parties, fate: Fate) -> Fate {
        self.naming.count(&parties);
        let pod = pod_of(&parties, observed(record));
        self.wishes.apply(pod, record, &self.config.rules);
        [record.client_party, record.server_party] = parties;
        let Self { config, stats, wishes, .. } = self;
        let parties = [&record.client_party, &record.server_party];
        let identities = || parties.into_iter().flatten().map(|party| &party.identity);
        if !config.selection.is_open() && !config.selection.wants(identities()) {
            let is_counted = u64::from(fate == Fate::Keep);
            stats.refused += is_counted;
            if parties.into_iter().all(is_certain) || config.selection.leaves_out(identities()) {
                return Fate::Ignored;
            }
            stats.refused_unknown += is_counted;
            return Fate::RefusedUnknown;
        }
        if fate == Fate::Keep {
            let pods = parties.into_iter().flatten().filter_map(|party| party.identity.pod.as_ref());
            let least = wishes.rate(pods, &config.rules);
            if let Some(rate) = least.filter(|rate| rate.millionths() < config.rate.millionths()) {
                let fate = sampling::decide(record, rate, config.slow);
                stats.sampled_away += u64::from(fate == Fate::SampledAway);
                return fate;
            }
        }
        fate
    }
}

/// Notes the server's own end for the client's, unless it is known to be no pod's. The first exchange of a connection does that: later
/// ones cost nothing.
#[inline]
fn note(behind: &mut Option<Behind>, record: &Record, server: Option<&Party>) {
    let is_first = record.observed_at == ObservedAt::Server && record.index.is_none_or(|index| index == 0);
    if let Some(behind) = behind.as_mut().filter(|_| is_first)
        && server.is_none_or(|server| server.identity.pod.is_some())
    {
        behind.note(key(record), record.server.into());
    }
}

/// Where the connection of `record` was led, whose server is a Service, if somebody knows it. A record that is not fresh has waited.
fn find(
    behind: &mut Option<Behind>,
    record: &Record,
    (connection, client): (&Connection, Side),
    is_fresh: bool,
    now: Duration,
) -> Option<SocketAddr> {
    let behind = behind.as_mut().filter(|_| record.observed_at != ObservedAt::Server)?;
    let (opened, other) = (connection.originator, connection.responder);
    let (client, service) = if client == Side::Originator { (opened, other) } else { (other, opened) };
    behind.find(&Called { key: key(record), client, service, is_fresh }, now)
}

/// The connection, as both ends know it.
fn key(record: &Record) -> u64 {
    mix(record.connection_id ^ u64::from(record.joined_late)).max(1)
}

/// Which end's socket is observed.
fn observed(record: &Record) -> Option<Role> {
    match record.observed_at {
        // The observed socket is a proxy's.
        ObservedAt::Client if record.network_peer.is_some() => None,
        ObservedAt::Client => Some(Role::Client),
        ObservedAt::Server => Some(Role::Server),
        ObservedAt::Path => None,
    }
}

/// Whether it is certain who an end is, and nothing more will be known of it.
fn is_certain(party: &Option<Arc<Party>>) -> bool {
    let by_cgroup_alone = |identity: &Identity| identity.pod.is_none() && identity.place.is_some();
    let is_certain = |party: &Party| !party.is_stale && !by_cgroup_alone(&party.identity) && !is_bare(party);
    party.as_ref().is_some_and(|party| is_certain(party))
}

/// The pod whose socket is observed.
fn pod_of(parties: &Parties, local: Option<Role>) -> Option<&Arc<Pod>> {
    let [client, server] = parties;
    let party = if local? == Role::Client { client } else { server };
    party.as_ref()?.identity.pod.as_ref()
}

const fn instant(time: KernelInstant) -> Duration {
    Duration::from_nanos(time.as_nanos())
}
