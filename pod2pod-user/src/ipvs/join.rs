//! The join: which connection met an old entry. In come SYNs, polls and decisions; whoever has a record of a connection asks.
//!
//! A SYN whose tuple the last poll had closed is in question; the next poll, or a decision of the kernel that was watched,
//! settles it. A record of such a connection waits for that poll and no longer; all others leave at once. Instants are
//! durations after a moment that stays the same. What is never done: guess. A connection that was not seen to begin is not joined.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;

use super::{
    Confidence,
    exact::{Decision, Outcome},
    kernel::Kernel,
    look::{Key, Look, Settled, keys},
    met::{Met, decided},
};

/// The two ends of a connection, and what balances between them, see one SYN within this time.
const SAME_SYN: Duration = Duration::from_secs(1);

/// The next poll may be so late on a busy machine, or one interval if that is shorter; who waits for it, waits for that too.
const LATE: Duration = Duration::from_secs(1);

/// What one suspect takes, with its key and its places. Bytes.
pub const SUSPECT_BYTES: usize = 768;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections that are in question, or did meet an old entry.
    pub max_suspects: usize,
    /// Records that wait.
    pub max_waiting: usize,
    /// Bytes of records that wait.
    pub max_waiting_bytes: usize,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// SYNs that came to a closed entry of the last poll.
    pub questioned: u64,
    /// Connections of which a poll said that they met an old entry.
    pub met_by_poll: u64,
    /// The same of decisions of the kernel.
    pub met_by_kernel: u64,
    /// Connections in question that met none.
    pub cleared: u64,
    /// Connections of which nothing was ever said: they stay probable.
    pub unsettled: u64,
    /// Connections forgotten because there were too many.
    pub forgotten: u64,
    /// Records that waited.
    pub waited: u64,
    /// Records that would have waited, had there been room: they left as probable.
    pub waits_refused: u64,
    /// Records that waited for their whole time in vain.
    pub waits_timed_out: u64,
}

/// What is known of a record's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It met no old entry, as far as is known.
    No,
    /// It is in question.
    InQuestion,
    /// It did.
    Met(Met),
}

/// A connection that may have met an old entry.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    met: Met,
    /// Its SYNs came from then to then.
    first: Duration,
    last: Duration,
    /// Sequence number of the last one, if it was seen.
    isn: Option<u32>,
    /// More than one connection of the tuple came between two polls: which of them it was is not known.
    several: bool,
    in_question: bool,
    /// The closed entry that it came to may be its own: a poll that proves nothing else clears it.
    may_be_own: bool,
    /// Ordinal of its coming.
    stamp: u64,
}

impl Suspect {
    const fn new(met: Met, (first, last): (Duration, Duration), isn: Option<u32>, in_question: bool) -> Self {
        Self { met, first, last, isn, several: false, in_question, may_be_own: false, stamp: 0 }
    }
}

/// A record that waits.
#[derive(Debug)]
struct Waiting<W> {
    key: Key,
    syn: Duration,
    until: Duration,
    bytes: usize,
    met: Met,
    /// Its connection was forgotten.
    is_forgotten: bool,
    what: W,
}

/// Joins. `W` is what waits.
#[derive(Debug)]
pub struct Join<W> {
    config: Config,
    look: Option<Arc<Look>>,
    suspects: HashMap<Key, Suspect, foldhash::fast::RandomState>,
    /// In the order of their coming; those that were replaced since have another stamp.
    order: VecDeque<(Key, u64)>,
    stamps: u64,
    /// In the order of their coming, which is that of their time.
    waiting: VecDeque<Waiting<W>>,
    waiting_bytes: usize,
    stats: Stats,
}

impl<W> Join<W> {
    /// Nothing was seen yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            look: None,
            suspects: HashMap::default(),
            order: VecDeque::new(),
            stamps: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stats: Stats::default(),
        }
    }

    /// What was seen.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Records that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A SYN from `client`, by which it may meet an old entry.
    pub fn syn(&mut self, client: SocketAddr, to: SocketAddr, isn: u32, time: Duration) {
        let Some(look) = &self.look else { return };
        let key = (client, to);
        if let Some(known) = self.suspects.get_mut(&key) {
            if known.isn == Some(isn) {
                // Sent again.
                (known.first, known.last) = (known.first.min(time), known.last.max(time));
                return;
            }
            let is_of_look = time <= look.end && known.first > look.from;
            if known.in_question || is_of_look {
                (known.last, known.isn, known.several) = (known.last.max(time), Some(isn), true);
                known.met.confidence = Confidence::Probable;
                return;
            }
        }
        let found = match look.reuses.0.get(&key) {
            // It comes late: the poll after it is over. That it was the first one since the poll before is not known.
            Some(reuse) if time > look.from && time <= look.end => {
                Some((Met { confidence: Confidence::Probable, ..Met::of(reuse) }, false, false))
            }
            _ => look.in_question(key, time).map(|(met, may_be_own)| (met, true, may_be_own)),
        };
        let Some((met, in_question, may_be_own)) = found else { return };
        self.stats.questioned += u64::from(in_question);
        self.stats.met_by_poll += u64::from(!in_question);
        self.insert(key, Suspect { may_be_own, ..Suspect::new(met, (time, time), Some(isn), in_question) });
    }

    /// What is known of a connection whose first SYN was seen at `syn`.
    pub fn ask(&self, client: SocketAddr, to: SocketAddr, syn: Option<Duration>) -> Answer {
        if self.suspects.is_empty() {
            return Answer::No;
        }
        match (self.suspects.get(&(client, to)), syn) {
            (Some(suspect), Some(syn)) if suspect.first <= syn && syn <= suspect.last => {
                if suspect.in_question { Answer::InQuestion } else { Answer::Met(suspect.met) }
            }
            _ => Answer::No,
        }
    }

    /// Has `what`, of `bytes`, wait for what is said of its connection, which is in question at `now`.
    ///
    /// # Errors
    /// There is no room; it comes back with what is probable.
    pub fn wait(
        &mut self,
        key: Key,
        syn: Duration,
        what: W,
        bytes: usize,
        now: Duration,
    ) -> Result<(), (W, Option<Met>)> {
        let met = self.suspects.get(&key).map(|suspect| suspect.met);
        let (Some(met), Some(look)) = (met, &self.look) else { return Err((what, met)) };
        let has_room = self.waiting.len() < self.config.max_waiting
            && self.waiting_bytes.saturating_add(bytes) <= self.config.max_waiting_bytes;
        if !has_room {
            self.stats.waits_refused += 1;
            return Err((what, Some(met)));
        }
        self.stats.waited += 1;
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting {
            key,
            syn,
            until: now + look.period + LATE.min(look.period),
            bytes,
            met,
            is_forgotten: false,
            what,
        });
        Ok(())
    }

    /// A poll is over: settles what it can, and hands over what waited for that, with what its connection met.
    pub fn look(&mut self, look: Arc<Look>, tell: &mut impl FnMut(W, Option<Met>)) {
        let stats = &mut self.stats;
        self.suspects.retain(|key, suspect| {
            if !suspect.in_question {
                return true;
            }
            let settled = look.settle(*key, suspect.met, suspect.first, suspect.last);
            let is_proven = matches!(settled, Settled::Met(_)) && look.reuses.0.contains_key(key);
            match settled {
                Settled::Open => {}
                _ if suspect.may_be_own && !is_proven => {
                    stats.cleared += 1;
                    return false;
                }
                Settled::Cleared => {
                    stats.cleared += 1;
                    return false;
                }
                Settled::Unknown => {
                    stats.unsettled += 1;
                    suspect.in_question = false;
                }
                Settled::Met(met) => {
                    stats.met_by_poll += 1;
                    let confidence = if suspect.several { Confidence::Probable } else { met.confidence };
                    let idle = suspect.met.idle.or(met.idle);
                    (suspect.met, suspect.in_question) = (Met { confidence, idle, ..met }, false);
                }
            }
            true
        });
        // Whose SYN was not at a closed entry of the poll before: it was open then. That of two connections the later one met it
        // was not seen. What is only probable may be a late packet of the connection that is known.
        for (key, reuse) in &look.reuses.0 {
            let is_newer =
                |known: &Suspect| known.last <= look.from && reuse.confidence == Confidence::Certain;
            if self.suspects.get(key).is_none_or(is_newer) {
                let met = Met { confidence: Confidence::Probable, ..Met::of(reuse) };
                self.insert(*key, Suspect::new(met, (look.from, look.end), None, false));
            }
        }
        self.look = Some(look);
        self.release(tell);
    }

    /// There is no table any more: what is in question stays probable.
    pub fn lose(&mut self, tell: &mut impl FnMut(W, Option<Met>)) {
        for suspect in self.suspects.values_mut().filter(|suspect| suspect.in_question) {
            suspect.in_question = false;
            self.stats.unsettled += 1;
        }
        self.look = None;
        self.release(tell);
    }

    /// The kernel was seen to decide on a SYN.
    pub fn settle(&mut self, decision: &Decision, kernel: &Kernel, tell: &mut impl FnMut(W, Option<Met>)) {
        let Decision { tuple, isn, at, outcome, .. } = *decision;
        if outcome == Outcome::Repeated {
            return;
        }
        let met = decided(decision, kernel);
        let server = decision.server().or(met.map(|met| met.server));
        let keys = keys(&tuple, server.unwrap_or(tuple.service));
        for key in if server.is_some() { &keys[..] } else { &keys[..1] } {
            let (known, before) = match self.suspects.get(key).copied() {
                Some(suspect) if suspect.isn == Some(isn) => (Some(suspect), None),
                // Of the tuple's connection before, if its SYN was seen.
                suspect => (None, suspect.filter(|suspect| suspect.isn.is_some() && suspect.last < at)),
            };
            let Some(met) = met else {
                // One that was dropped once met it, whatever became of the second SYN.
                if known.is_some_and(|known| known.in_question) {
                    self.stats.cleared += 1;
                    self.suspects.remove(key);
                }
                continue;
            };
            // A SYN that is sent again may meet the entry that the first one made: what counts is what that met.
            let met = match known.filter(|known| !known.in_question && known.met.verdict == met.verdict) {
                Some(known) if known.met.confidence == Confidence::Certain => known.met,
                _ => met,
            };
            let since = before.map_or(Duration::ZERO, |before| before.last + Duration::from_nanos(1));
            let around = (at.saturating_sub(SAME_SYN).max(since), at + SAME_SYN);
            let (first, last) = known.map_or(around, |known| (known.first.min(at), known.last.max(at)));
            self.stats.met_by_kernel += u64::from(key.1 == tuple.service.into());
            self.insert(*key, Suspect::new(met, (first, last), Some(isn), false));
        }
        self.release(tell);
    }

    /// When something waits no longer.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// Hands over what has waited long enough at `now`, as probable.
    pub fn expire(&mut self, now: Duration, tell: &mut impl FnMut(W, Option<Met>)) {
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now) {
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= waiting.bytes;
            self.stats.waits_timed_out += 1;
            tell(waiting.what, Some(waiting.met));
        }
    }

    /// Hands over all that waits.
    pub fn finish(&mut self, tell: &mut impl FnMut(W, Option<Met>)) {
        self.expire(Duration::MAX, tell);
    }

    fn insert(&mut self, key: Key, suspect: Suspect) {
        let Self { config, suspects, order, waiting, stats, .. } = self;
        self.stamps += 1;
        suspects.insert(key, Suspect { stamp: self.stamps, ..suspect });
        order.push_back((key, self.stamps));
        let is_current = |suspects: &HashMap<Key, Suspect, _>, (key, stamp): &(Key, u64)| {
            suspects.get(key).is_some_and(|known: &Suspect| known.stamp == *stamp)
        };
        while suspects.len() > config.max_suspects {
            let Some(oldest) = order.pop_front() else { break };
            if is_current(suspects, &oldest) {
                let forgotten = suspects.remove(&oldest.0);
                stats.forgotten += 1;
                if forgotten.is_some_and(|forgotten| forgotten.in_question) {
                    let own = waiting.iter_mut().filter(|waiting| waiting.key == oldest.0);
                    own.for_each(|waiting| waiting.is_forgotten = true);
                }
            }
        }
        if order.len() > 2 * config.max_suspects {
            order.retain(|place| is_current(suspects, place));
        }
    }

    /// Hands over what is not in question any more.
    fn release(&mut self, tell: &mut impl FnMut(W, Option<Met>)) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { return };
            let (client, to) = waiting.key;
            let met = match self.ask(client, to, Some(waiting.syn)) {
                Answer::InQuestion => {
                    self.waiting.push_back(waiting);
                    continue;
                }
                Answer::Met(met) => Some(met),
                // Forgotten is not cleared.
                Answer::No => waiting.is_forgotten.then_some(waiting.met),
            };
            self.waiting_bytes -= waiting.bytes;
            tell(waiting.what, met);
        }
    }
}
