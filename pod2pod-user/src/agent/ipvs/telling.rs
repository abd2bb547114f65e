//! Records of reuses, from both detectors, into the sinks. One of a decision waits a little: the exchange that it breaks fails later.
//!
//! Records go into a batch of this thread's own and from there into the queues, as a worker's do; none is counted as seen before it
//! is in a queue.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    enrich,
    ipvs::{Reuse, exact::Decision, kernel::Kernel, series::Series},
    sinks::Sinks,
    watch::{board::Board, exact::wall_time, line::wall_clock},
};

/// A reuse waits this long at most for the exchange that fails of it: a refused or reset connection does so at once.
const MAX_HOLD: Duration = Duration::from_secs(5);

/// What a reuse takes that waits, in a list that is being made twice as large. Bytes.
pub(super) const HELD_BYTES: usize = 3 * size_of::<Held>();

/// A reuse that waits.
struct Held {
    until: Duration,
    decision: Decision,
}

/// What was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Reuses that polling found.
    pub(super) polling: u64,
    /// Reuses that the kernel was seen to decide on.
    pub(super) exact: u64,
    /// Those of them that did not wait, for want of room.
    pub(super) hurried: u64,
}

/// Tells.
pub(super) struct Telling {
    pub(super) board: Arc<Board>,
    /// What the kernel is set to.
    pub(super) kernel: Kernel,
    pub(super) told: Told,
    sinks: Sinks,
    held: VecDeque<Held>,
    max_held: usize,
    hold: Duration,
}

impl Telling {
    /// With room for so many reuses that wait, until the next poll is due.
    pub(super) fn new(board: Arc<Board>, sinks: Sinks, max_held: usize, interval: Duration) -> Self {
        Self {
            board,
            kernel: Kernel::default(),
            told: Told::default(),
            sinks,
            held: VecDeque::new(),
            max_held,
            hold: interval.min(MAX_HOLD),
        }
    }

    /// The kernel was seen to decide, and it is read `at` that time: counted now and told soon, if an old entry was met.
    pub(super) fn decided(&mut self, decision: &Decision, at: Duration, series: &mut Series) {
        let Some((verdict, (_, severity))) = decision.verdict().zip(decision.situation(&self.kernel)) else {
            return;
        };
        series.reuse(&decision.tuple, verdict, severity);
        self.told.exact += 1;
        self.held.push_back(Held { until: at + self.hold, decision: *decision });
        if self.held.len() > self.max_held
            && let Some(oldest) = self.held.pop_front()
        {
            self.told.hurried += 1;
            self.write(&oldest.decision);
        }
    }

    /// Tells what has waited long enough.
    pub(super) fn release(&mut self, at: Duration) {
        let mut has_any = false;
        while let Some(held) = self.held.pop_front_if(|held| held.until <= at) {
            self.write(&held.decision);
            has_any = true;
        }
        if has_any {
            self.sinks.flush_due();
        }
    }

    /// When something has waited long enough.
    pub(super) fn next(&self) -> Option<Duration> {
        self.held.front().map(|held| held.until)
    }

    /// Tells what polling found.
    pub(super) fn found<'a>(&mut self, reuses: impl Iterator<Item = &'a Reuse>, series: &mut Series) {
        let wall = wall_clock();
        for reuse in reuses {
            series.reuse(&reuse.tuple, reuse.verdict, reuse.severity);
            self.told.polling += 1;
            let mut record = enrich::reuse::record(reuse, &self.kernel, wall);
            let ends = [reuse.tuple.service, reuse.now.server, reuse.before.server];
            if let Some(failed) = self.board.only_failed(reuse.tuple.client, &ends) {
                failed.put(&mut record);
            }
            self.sinks.write(&record);
        }
        self.flush();
    }

    /// Hands on what was written: nothing may come for a while.
    pub(super) fn flush(&mut self) {
        self.sinks.flush();
    }

    /// Tells all that waits.
    pub(super) fn finish(&mut self) {
        self.release(Duration::MAX);
        self.flush();
    }

    fn write(&mut self, decision: &Decision) {
        let time = wall_time(decision.at, wall_clock());
        let Some(mut record) = enrich::reuse::decision(decision, &self.kernel, time) else { return };
        let servers = decision.met.map(|met| met.server).into_iter().chain(decision.server());
        let ends: Vec<_> = [decision.tuple.service].into_iter().chain(servers).collect();
        if let Some(failed) = self.board.failed(decision.tuple.client, &ends, decision.isn) {
            failed.put(&mut record);
        }
        self.sinks.write(&record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::Overflow,
        ipvs::{
            Tuple,
            exact::{Cause, Met, Outcome},
            parse::Protocol,
            services::Standing,
            state::State,
        },
        shutdown::Shutdown,
        sinks::{self, Writer},
    };

    const INTERVAL: Duration = Duration::from_secs(2);

    fn telling(max_held: usize, interval: Duration) -> Telling {
        let config = sinks::Config { file: Some("/dev/null".into()), ..sinks::Config::default() };
        let shutdown = Shutdown::without_signals().unwrap();
        let writer = Writer::open(&config, Overflow::DropNewest, &shutdown).unwrap();
        Telling::new(Arc::default(), Sinks::new(writer, Vec::new()), max_held, interval)
    }

    fn decision(outcome: Outcome) -> Decision {
        let end = |last, port| ([10, 0, 0, last].into(), port);
        let met = Met {
            server: end(9, 8080),
            standing: Standing::Weight(0),
            state: State::TimeWait,
            flags: 0,
            left: INTERVAL,
            idle: INTERVAL,
            is_controlled: false,
        };
        let tuple = Tuple { protocol: Protocol::TCP, client: end(1, 40_001), service: end(2, 80) };
        let met = (outcome != Outcome::New).then_some(met);
        Decision { at: INTERVAL, tuple, outcome, is_repeated: None, met, made: None, after: None, isn: 1 }
    }

    /// Reuses that came to the sink.
    fn came(telling: &Telling) -> u64 {
        telling.sinks.stats()[0].1.reuses
    }

    #[test]
    fn a_reuse_waits_for_its_exchange_as_long_as_there_is_room() {
        const ROOM: usize = 3;
        let (mut telling, mut series) = (telling(ROOM, INTERVAL), Series::default());
        let mut decided = |telling: &mut Telling, outcome, second| {
            telling.decided(&decision(outcome), Duration::from_secs(second), &mut series);
        };
        for outcome in [Outcome::New, Outcome::Repeated, Outcome::PassedOn] {
            decided(&mut telling, outcome, 0);
        }
        assert_eq!((telling.next(), telling.told), (None, Told::default()), "no reuses");
        for second in 0..ROOM as u64 {
            decided(&mut telling, Outcome::Reused, second);
        }
        telling.release(INTERVAL - Duration::from_nanos(1));
        assert_eq!((came(&telling), telling.told), (0, Told { exact: 3, ..Told::default() }));
        assert_eq!(telling.next(), Some(INTERVAL));
        telling.release(INTERVAL);
        assert_eq!((came(&telling), telling.next()), (1, Some(INTERVAL + Duration::from_secs(1))));
        decided(&mut telling, Outcome::Dropped(Cause::RemovedServer), 3);
        assert_eq!(telling.told.hurried, 0, "as many as there is room for");
        decided(&mut telling, Outcome::Rescheduled, 3);
        telling.sinks.flush();
        assert_eq!((came(&telling), telling.told.hurried), (2, 1), "one more, and the oldest leaves");
        telling.finish();
        assert_eq!((came(&telling), telling.told.exact, telling.next()), (5, 5, None));
        let reuses: u64 = series.reuses().map(|(.., count)| count).sum();
        assert_eq!(reuses, 5);
    }

    #[test]
    fn the_longest_wait_is_short() {
        for (interval, hold) in [(INTERVAL, INTERVAL), (MAX_HOLD, MAX_HOLD), (2 * MAX_HOLD, MAX_HOLD)] {
            assert_eq!(telling(1, interval).hold, hold);
        }
    }
}
