//! What all workers counted, added up.

use super::worker::Worker;
use std::sync::Arc;

use crate::{
    admin::Troubled,
    behind,
    capture::kernel,
    delivery::{SinkStats, TroubleKind},
    enrich, filter, http,
    ipvs::join,
    metrics::{Counted, counters, routes, stages},
    named, pcap, pipeline, reassembly,
    sinks::tail::TailStats,
    views,
};

/// Sums over workers.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) reader: kernel::Stats,
    reassembly: reassembly::Stats,
    filter: filter::Stats,
    http: http::Stats,
    open_exchanges: usize,
    open_attempts: usize,
    enrich: enrich::Stats,
    routes: routes::Stats,
    pub(super) packets: pcap::Stats,
    label_overflows: u64,
    pairs_overflowed: Option<u64>,
    views: views::Stats,
    waiting: usize,
    join: join::Stats,
    names: named::Stats,
    behind: behind::Stats,
    /// Of each sink; the queues are shared, what is being filled is not.
    pub(super) sinks: Vec<(Arc<str>, SinkStats)>,
    /// Of who looks on.
    tail: TailStats,
}

impl Totals {
    /// What `workers` counted so far.
    pub(super) fn of<'a>(workers: impl Iterator<Item = &'a Worker>) -> Self {
        let mut totals = Self::default();
        for worker in workers {
            totals.add(worker);
        }
        totals
    }

    fn add(&mut self, worker: &Worker) {
        let pipeline::Stats {
            reassembly,
            filter,
            http,
            open_exchanges,
            open_attempts,
            enrich,
            routes,
            packets,
            label_overflows,
            pairs_overflowed,
            views,
            waiting,
            join,
            names,
            behind,
        } = worker.pipeline.stats();
        counters::add_reader(&mut self.reader, worker.reader.stats());
        counters::add_reassembly(&mut self.reassembly, reassembly);
        counters::add_filter(&mut self.filter, filter);
        counters::add_http(&mut self.http, http);
        self.open_exchanges += open_exchanges;
        self.open_attempts += open_attempts;
        self.enrich += enrich;
        counters::add_routes(&mut self.routes, &routes);
        self.packets += packets;
        self.label_overflows += label_overflows;
        if let Some(count) = pairs_overflowed {
            *self.pairs_overflowed.get_or_insert_default() += count;
        }
        counters::add_views(&mut self.views, &views);
        self.waiting += waiting;
        counters::add_join(&mut self.join, &join);
        counters::add_names(&mut self.names, &names);
        counters::add_behind(&mut self.behind, &behind);
        let sinks = worker.sinks.get();
        self.tail = sinks.tail();
        if self.sinks.is_empty() {
            self.sinks = sinks.stats();
        } else {
            sinks.add_filling(&mut self.sinks);
        }
    }

    /// What the stages counted.
    pub(super) const fn stages(&self) -> pipeline::Stats<'_> {
        pipeline::Stats {
            reassembly: &self.reassembly,
            filter: &self.filter,
            http: &self.http,
            open_exchanges: self.open_exchanges,
            open_attempts: self.open_attempts,
            enrich: self.enrich,
            routes: self.routes,
            packets: self.packets,
            label_overflows: self.label_overflows,
            pairs_overflowed: self.pairs_overflowed,
            views: self.views,
            waiting: self.waiting,
            join: self.join,
            names: self.names,
            behind: self.behind,
        }
    }

    /// Sinks whose targets take nothing.
    pub(super) fn troubled(&self) -> Vec<Troubled> {
        let troubled = self.sinks.iter().filter_map(|(sink, stats)| Some((sink, stats.trouble?)));
        let told = |(sink, (kind, since)): (&Arc<str>, (TroubleKind, _))| Troubled {
            sink: Arc::clone(sink),
            kind: kind.as_str(),
            since,
        };
        troubled.map(told).collect()
    }

    /// As rows.
    pub(super) fn rows(&self) -> Vec<Counted> {
        let mut rows = counters::reader(&self.reader);
        rows.extend(stages::pipeline(&self.stages()));
        rows.extend(stages::sinks(&self.sinks));
        rows.extend(stages::tail(self.tail));
        rows
    }
}
