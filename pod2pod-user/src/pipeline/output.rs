//! What exchanges go through once they are whole: facts, names, metrics, what IPVS did, sinks. Which connections are wanted is the
//! gate's; what names come to is handed back to it.

use super::{SharedSinks, gate::Gate};
use crate::{
    capture::KernelInstant,
    enrich::{Enricher, Fate, WallOffset},
    http::HttpTracker,
    joint::Joint,
    metrics::{HttpMetrics, PairMetrics},
    named::Names,
    pcap::Recorder,
    reassembly::{Attempt, Connection, Side},
    record::Record,
    views::Views,
};

/// One worker's.
pub(super) struct Output {
    pub(super) enricher: Enricher,
    pub(super) wall: WallOffset,
    /// In a cluster.
    pub(super) names: Option<Box<Names>>,
    pub(super) last: Last,
}

/// What a record goes through once it has its names.
pub(super) struct Last {
    pub(super) sinks: SharedSinks,
    pub(super) metrics: Option<HttpMetrics>,
    /// Where exchanges of the same ends are counted together.
    pub(super) pairs: Option<PairMetrics>,
    pub(super) views: Views,
    /// Where IPVS is watched.
    pub(super) joint: Option<Box<Joint>>,
}

impl Output {
    pub(super) fn new(enricher: Enricher, sinks: SharedSinks, metrics: Option<HttpMetrics>) -> Self {
        let last = Last { sinks, metrics, pairs: None, views: Views::default(), joint: None };
        Self { enricher, wall: WallOffset::default(), names: None, last }
    }

    pub(super) fn tell_attempt(&mut self, attempt: &Attempt, now: KernelInstant) {
        let Self { enricher, wall, names, last } = self;
        let (record, fate) = enricher.enrich_attempt(attempt, *wall);
        let connection = &attempt.connection;
        if let (Fate::Ignored | Fate::OverRate, Some(joint)) = (fate, &last.joint) {
            joint.note(record, connection);
        }
        let at = connection.syn_time.unwrap_or(attempt.end);
        if fate == Fate::Keep
            && let Some(fate) = name(names, record, (connection, Side::Originator), fate, at, now)
        {
            last.tell(record, connection, fate, now);
        }
    }

    /// Takes what is new of IPVS.
    #[inline]
    pub(super) fn read_ipvs(&mut self) {
        let Last { joint, sinks, .. } = &mut self.last;
        if let Some(joint) = joint {
            joint.read(&mut sinks.get());
        }
    }

    /// Hands on what has waited long enough at `now`; `gate` hears of connections that turn out to be unwanted.
    pub(super) fn expire(&mut self, now: KernelInstant, gate: &mut Gate) {
        self.tell_named(now, false, |connection| gate.refuse(connection));
        let Last { joint, sinks, .. } = &mut self.last;
        if let Some(joint) = joint {
            joint.expire(now, &mut sinks.get());
        }
    }

    /// Whether [`Self::expire`] has something to do at `now`.
    pub(super) fn is_due(&self, now: KernelInstant) -> bool {
        self.last.joint.as_ref().is_some_and(|joint| joint.is_due(now))
            || self.names.as_ref().is_some_and(|names| names.is_due(now))
    }

    /// Hands on all that waits.
    pub(super) fn finish(&mut self, now: KernelInstant) {
        self.tell_named(now, true, |_| {});
        let Last { joint, sinks, .. } = &mut self.last;
        if let Some(joint) = joint {
            joint.finish(&mut sinks.get());
        }
    }

    fn tell_named(&mut self, now: KernelInstant, is_end: bool, mut refuse: impl FnMut(&Connection)) {
        let Self { names, last, .. } = self;
        if let Some(names) = names {
            names.pop(now, is_end, &mut |record, connection, fate| {
                if fate == Fate::Ignored {
                    refuse(connection);
                } else {
                    last.tell(record, connection, fate, now);
                }
            });
        }
    }

    /// Records that wait.
    pub(super) fn waiting(&self) -> usize {
        self.last.joint.as_ref().map_or(0, |joint| joint.waiting())
            + self.names.as_ref().map_or(0, |names| names.waiting())
    }

    pub(super) fn drain(
        &mut self,
        tracker: &mut HttpTracker,
        gate: &mut Gate,
        recorder: &mut Option<Box<Recorder>>,
        now: KernelInstant,
    ) {
        let Self { enricher, wall, names, last } = self;
        tracker.drain_told(|exchange| {
            if !gate.wants(exchange) {
                return;
            }
            let recorded = recorder.is_some().then_some(exchange.connection);
            let (record, fate) = enricher.enrich(exchange, *wall);
            if !matches!(fate, Fate::Keep | Fate::SampledAway) {
                return;
            }
            if let (Some(recorder), Some(connection)) = (recorder.as_mut(), recorded)
                && !record.in_progress
            {
                recorder.comment(&connection, record);
            }
            let (connection, at) = (&exchange.connection, exchange.start);
            match name(names, record, (connection, exchange.client), fate, at, now) {
                // By the names of its ends: no exchange of the connection is wanted.
                Some(Fate::Ignored) => gate.refuse(connection),
                Some(fate) => last.tell(record, connection, fate, now),
                None => {}
            }
        });
    }
}

impl Last {
    #[inline]
    fn tell(&mut self, record: &mut Record, connection: &Connection, fate: Fate, now: KernelInstant) {
        let Self { sinks, metrics, pairs, views, joint } = self;
        if matches!(fate, Fate::Keep | Fate::SampledAway) {
            record.network_duration = views.meet(record, now);
            metrics.iter_mut().for_each(|metrics| metrics.observe(record));
            pairs.iter_mut().for_each(|pairs| pairs.observe(record));
        }
        match joint {
            _ if fate != Fate::Keep => {}
            None => sinks.get().write(record),
            Some(joint) => joint.write(record, connection, now, &mut sinks.get()),
        }
    }
}

/// Gives a record its names where there are any; what is to be done with it, unless it waits for them.
#[inline]
fn name(
    names: &mut Option<Box<Names>>,
    record: &mut Record,
    connection: (&Connection, Side),
    fate: Fate,
    at: KernelInstant,
    now: KernelInstant,
) -> Option<Fate> {
    match names {
        None => Some(fate),
        Some(names) => names.name(record, connection, fate, at, now),
    }
}
