//! The thread of the watch: polls, what the kernel decides between them, and the figures of both. It lets all others go first.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
    time::{Duration, Instant},
};

use rustix::process::setpriority_process;

use super::{
    Shown,
    following::{Following, REFUSED},
    share::{Shares, join_config},
    telling::Telling,
};
use crate::{
    agent::clock::instant,
    behind,
    ipvs::{
        drain::Drains,
        look::{Look, Reuses},
        series::Series,
    },
    metrics::ipvs::{self as rows, Decided, Polls},
    mode::Mode,
    rights::{self, Feature, Part},
    shutdown::Shutdown,
    sinks::Sinks,
    watch::{
        MAX_POLLED_ENTRIES, MIN_PAUSE,
        board::Board,
        config::Config,
        is_due,
        poller::{self, Poll, Poller},
        source::{Source, SourceError, is_host},
        tell_large, tell_reading,
    },
};

/// Where there is no table, it is looked for this often at most.
const ABSENT_PERIOD: Duration = Duration::from_secs(1);

/// Figures of decisions are shown this often at most.
const SHOWING_PERIOD: Duration = Duration::from_secs(1);

/// Rows of a table between two looks at the decisions: reading may take seconds, and the ring of decisions fills in a tenth of one.
const ROWS_BETWEEN: u32 = 1024;

/// Niceness of the thread: whoever reads packets goes first.
const NICENESS: i32 = 10;

/// What the thread has.
pub(super) struct Watch {
    config: Config,
    poller: Poller,
    series: Series,
    drains: Drains,
    following: Following,
    telling: Telling,
    /// Who looks behind Services.
    pub(super) behind: Option<Arc<behind::Shared>>,
    polls: Polls,
    start: Instant,
    /// When the last poll began, by the clock of segments.
    last: Duration,
    /// The last poll, and when it began; none if there is no table.
    look: Option<Arc<Look>>,
    polled: Option<Instant>,
    shown: Arc<Mutex<Shown>>,
    shown_at: Instant,
    shutdown: Shutdown,
    /// It was said that there is no table.
    is_absent: bool,
    /// It was said that the table is too large for polling, and that it is too large for its memory.
    is_large: bool,
    is_over: bool,
    warned: Option<Instant>,
    slow: Option<Instant>,
}

impl Watch {
    pub(super) fn new(
        config: Config,
        board: Arc<Board>,
        sinks: Sinks,
        shown: Arc<Mutex<Shown>>,
        shutdown: Shutdown,
    ) -> Self {
        let shares = Shares::of(&config);
        let start = Instant::now();
        Self {
            poller: Poller::new(shares.entries, shares.services, config.services.clone()),
            series: Series::with_room(shares.known),
            drains: Drains::with_room(shares.drains),
            following: Following::new(shares.told, config.services.clone(), start),
            telling: Telling::new(board, sinks, shares.held, config.interval),
            config,
            behind: None,
            polls: Polls::default(),
            start,
            last: instant(),
            look: None,
            polled: None,
            shown,
            shown_at: start,
            shutdown,
            is_absent: false,
            is_large: false,
            is_over: false,
            warned: None,
            slow: None,
        }
    }

    /// Watches until the end is asked for, and drops `telling` once all is told.
    pub(super) fn run(mut self, telling: SyncSender<()>) {
        self.give_up();
        // Without it the thread is one among many.
        let _ = setpriority_process(None, NICENESS);
        while !self.shutdown.is_requested() {
            let begin = Instant::now();
            let wait = self.poll(begin);
            self.wait(begin + wait);
        }
        self.take();
        self.telling.finish();
        // Probes take their time to go.
        drop(telling);
    }

    /// What this thread does not need any more.
    fn give_up(&self) {
        let follows = self.config.follows();
        // The module, and with it a table of process 1, may come later.
        let is_elsewhere = self.config.path.is_none() && !is_host();
        let kept = rights::keep(Part::Ipvs, |feature| {
            (feature != Feature::Exact || follows)
                && (feature != Feature::ExactWhereClosed || follows && rights::probes_need_a_right())
                && (feature != Feature::HostNamespace || follows && is_elsewhere)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "rights cannot be given up");
        }
    }

    /// Waits until then, and takes what is decided meanwhile.
    fn wait(&mut self, until: Instant) {
        while !self.shutdown.is_requested() {
            let now = Instant::now();
            let at = now.duration_since(self.start);
            self.telling.release(at);
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return;
            }
            let next = self.telling.next().map_or(left, |next| next.saturating_sub(at));
            if self.following.wait(&self.shutdown, left.min(next)) {
                self.take();
                if self.shown_at.elapsed() >= SHOWING_PERIOD {
                    self.publish();
                    self.shown_at = Instant::now();
                }
                self.shutdown.wait(MIN_PAUSE.min(left));
            }
        }
    }

    /// Takes what was decided so far.
    fn take(&mut self) {
        let Self { following, telling, series, .. } = self;
        following.take(telling, series);
    }

    /// One poll; how long after its beginning the next one is due.
    fn poll(&mut self, begin: Instant) -> Duration {
        let source = self.config.source().until(&self.shutdown);
        self.poller.refresh(&source);
        self.telling.kernel.clone_from(&self.poller.kernel);
        self.following.keep(&source);
        let from = instant();
        let at = begin.duration_since(self.start);
        let Self { poller, series, drains, following, telling, behind, .. } = self;
        let lookups = behind.as_ref().map(|behind| behind.begin_poll());
        series.begin();
        following.poll();
        let mut rows = 0_u32;
        let polled = poller.poll(&source, at, Some(begin), &mut |row, services| {
            series.row(row, services);
            drains.row(row, services);
            if let Some(lookups) = &lookups {
                lookups.row(row.tuple.client, row.tuple.service, row.server);
            }
            rows = rows.wrapping_add(1);
            if rows.is_multiple_of(ROWS_BETWEEN) {
                following.take(telling, series);
            }
        });
        self.take();
        self.polls.count += 1;
        match polled {
            Ok(poll) => {
                if self.is_absent || self.polls.count == 1 {
                    tracing::info!(path = %source.path().display(), "IPVS is watched");
                    if self.config.has_no_room() {
                        tracing::info!(reason = "limits.memory leaves no room for its maps", "{REFUSED}");
                    }
                }
                self.is_absent = false;
                self.warn(&source, &poll, begin);
                let period = poller::period(self.config.interval, poll.busy);
                if period > self.config.interval && is_due(&mut self.slow, begin) {
                    let (rows, period) = (poll.reading.rows, period.as_secs_f64());
                    tracing::info!(
                        rows,
                        period,
                        "reading the IPVS table takes long: polls are further apart"
                    );
                }
                self.tell(poll, at, from, period);
                self.polled = Some(begin);
                self.publish();
                period
            }
            Err(error) => {
                self.polls.failed += 1;
                self.refuse(&error, begin);
                self.config.interval.max(ABSENT_PERIOD)
            }
        }
    }

    /// Tells what a poll proves, which began at `from`, and shows it to those who join connections with it.
    fn tell(&mut self, mut poll: Poll, at: Duration, from: Duration, period: Duration) {
        self.polls.took = poll.took;
        self.polls.damaged += poll.reading.damage.lines;
        let open = self.following.settle(&mut poll.reuses);
        let Self { drains, telling, series, .. } = self;
        drains.finish(at, &poll.reuses, poll.services.as_ref());
        telling.found(open.iter(), series);
        let most = join_config(&self.config, 1).max_suspects;
        let look = Arc::new(Look {
            from: std::mem::replace(&mut self.last, from),
            begin: from,
            end: instant(),
            period,
            closed: self.poller.detector().closed(),
            reuses: Reuses::new(&poll.reuses, most),
            services: poll.services,
            kernel: self.poller.kernel.clone(),
        });
        self.look = Some(Arc::clone(&look));
        self.telling.board.put_look(Some(look));
        self.telling.board.turn();
    }

    /// There is no table.
    fn refuse(&mut self, error: &SourceError, begin: Instant) {
        // Of decisions, since the last poll.
        self.telling.flush();
        match (error.is_missing(), self.config.mode) {
            (true, Mode::Auto | Mode::Off) if !self.is_absent => {
                tracing::info!("no IPVS here: it is not watched until its module comes");
            }
            (true, Mode::On) if !self.is_absent => {
                tracing::warn!(%error, "ipvs.mode is on; it is waited for")
            }
            (true, _) => {}
            (false, _) if is_due(&mut self.warned, begin) => tracing::warn!(%error, "IPVS is not watched"),
            (false, _) => {}
        }
        self.is_absent = error.is_missing();
        (self.look, self.polled) = (None, None);
        self.telling.board.put_look(None);
        self.series.begin();
        self.drains.clear();
        self.publish();
    }

    /// Says what was odd, seldom.
    fn warn(&mut self, source: &Source, poll: &Poll, begin: Instant) {
        if !poll.reading.is_whole() && is_due(&mut self.warned, begin) {
            tell_reading(source.path(), &poll.reading);
        }
        if poll.reading.rows > MAX_POLLED_ENTRIES && !self.is_large {
            tell_large(poll.reading.rows);
            self.is_large = true;
        }
        let left_out = poll.services.as_ref().map_or(0, |services| services.left_out);
        if (self.poller.detector().stats().untracked > 0 || left_out > 0) && !self.is_over {
            tracing::warn!(
                rows = poll.reading.rows,
                memory = self.config.memory,
                remedy =
                    "raise limits.memory, or name ipvs.services; if IPVS came after the start, start again",
                "more of IPVS than there is memory for: the rest is counted, not watched"
            );
            self.is_over = true;
        }
    }

    /// Puts the figures where the housekeeping finds them.
    pub(super) fn publish(&self) {
        let stats = self.poller.detector().stats();
        let services = self.look.as_ref().and_then(|look| look.services.as_ref());
        let mut rows = rows::rows(&self.polls, stats, &self.series, services, &self.drains);
        let (counts, settled) = self.following.counts();
        let told = &self.telling.told;
        rows.extend(rows::decided(&Decided {
            is_followed: self.following.is_on(),
            counts,
            settled,
            found: [("polling", told.polling), ("exact", told.exact)],
            hurried: told.hurried,
            unread: self.telling.board.unread(),
        }));
        let shown = Shown {
            rows: Arc::new(rows),
            polled: self.polled,
            is_present: self.look.is_some(),
            exact: (self.following.turns(), self.following.is_on()),
        };
        let last = std::mem::replace(&mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner), shown);
        drop(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::Overflow,
        ipvs::{
            Tuple,
            exact::{Decision, Met, Outcome},
            parse::Protocol,
            services::Standing,
            state::State,
        },
        sinks::{self, Writer},
    };

    #[test]
    fn what_was_decided_is_handed_on_while_there_is_no_table() {
        let output = sinks::Config { file: Some("/dev/null".into()), ..sinks::Config::default() };
        let shutdown = Shutdown::without_signals().unwrap();
        let writer = Writer::open(&output, Overflow::DropNewest, &shutdown).unwrap();
        let path = Some("/nowhere/ip_vs_conn".into());
        let config = Config { path, interval: Duration::ZERO, ..Config::default() };
        let sinks = Sinks::new(writer, Vec::new());
        let queues = sinks.for_worker();
        let came = || queues.stats()[0].1.reuses;
        let mut watch = Watch::new(config, Arc::default(), sinks, Arc::default(), shutdown);
        let end = |last, port| ([10, 0, 0, last].into(), port);
        let met = Met {
            server: end(9, 8080),
            standing: Standing::Weight(0),
            state: State::TimeWait,
            flags: 0,
            left: Duration::ZERO,
            idle: Duration::ZERO,
            is_controlled: false,
        };
        let tuple = Tuple { protocol: Protocol::TCP, client: end(1, 40_001), service: end(2, 80) };
        let (at, met, outcome) = (Duration::ZERO, Some(met), Outcome::Reused);
        let decision =
            Decision { at, tuple, outcome, is_repeated: None, met, made: None, after: None, isn: 1 };
        watch.telling.decided(&decision, at, &mut watch.series);
        assert_eq!(
            (watch.telling.told.hurried, came()),
            (1, 0),
            "there is no room to wait; it is in a batch"
        );
        watch.poll(Instant::now());
        assert_eq!((watch.polls.failed, came()), (1, 1));
    }
}
