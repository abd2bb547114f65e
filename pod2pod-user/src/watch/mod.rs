//! `pod2pod ipvs`: the watch over IPVS alone, live or over saved tables. Needs a readable table only; where eBPF may be used, what
//! the kernel decides is followed too.
//!
//! Files, clock and output are here; what a change proves is decided in `ipvs`.

mod asked;
pub mod board;
pub mod config;
pub mod exact;
pub(crate) mod line;
mod live;
mod object;
pub mod options;
mod overview;
pub mod poller;
pub mod source;

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use pod2pod_common::decision::DecisionCounter;

use crate::{
    enrich, exit,
    ipvs::{
        self,
        exact::settle::{Settle, Settled},
        legacy, selection,
        services::Limits,
        situation::{Severity, Situation},
    },
    record::json::Lines,
    shutdown::Shutdown,
    sinks::{Encoder, text::Columns},
};
use exact::{Exact, Kept, Mode};
use line::{GoTime, wall_clock, wall_time};
use live::Live;
use options::{Format, Options, Rule, Task};
use overview::Overview;
use poller::Poller;
use source::{Reading, Source, SourceError};

/// What is wrong with the table, or that it takes long to read, is said this often at most: it is so in every poll.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// From one look at the kernel's decisions to the next at least: many come in one look where there are many.
pub(crate) const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Entries that polling is enough for. Reading more takes over 2 s (measured on Linux 6.1: 40,000 in 1.0 s, quadratic), so
/// polls are 45 s apart and more, and closed entries, which live one or two minutes, begin to be missed.
pub const MAX_POLLED_ENTRIES: u64 = 60_000;

/// Does what the options say, and says how the program should exit.
pub fn run(options: Options, shutdown: &Shutdown) -> u8 {
    let watch = Watch::new(options);
    let done = match watch.options.task.clone() {
        Task::Watch => watch.watch(shutdown),
        Task::Once => watch.once(),
        Task::Diff(before, after) => watch.diff(Source::saved(before), Source::saved(after)),
    };
    match done {
        Ok(()) => exit::OK,
        Err(End::ReaderGone) => exit::OK,
        Err(End::Source(error)) => {
            exit::tell(&error);
            error.exit_code()
        }
        Err(End::Exact(reason)) => {
            exit::tell(format_args!("exact mode is not to be had: {reason}"));
            exit::PRIVILEGE
        }
        Err(End::Output(error)) => {
            exit::tell(format_args!("cannot write to standard output: {error}"));
            exit::FAILURE
        }
    }
}

/// Why it ended early.
enum End {
    /// Nobody reads on.
    ReaderGone,
    Output(io::Error),
    Source(SourceError),
    /// It was asked for, and cannot be.
    Exact(String),
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::ReaderGone } else { Self::Output(error) }
    }
}

struct Watch {
    options: Options,
    poller: Poller,
    /// Absent if it is not wanted, or the table is not the kernel's.
    exact: Option<Exact>,
    legacy: legacy::Rule,
    /// Where a table is drawn.
    live: Option<Live>,
    start: Instant,
    encoder: Encoder,
    /// Situations that were explained.
    explained: HashSet<&'static str>,
    /// When something of a table was found wrong last that was said, and when it was said to take long.
    warned: Option<Instant>,
    slow: Option<Instant>,
    /// It was said that the table is too large for polling.
    is_large: bool,
    counted: Counted,
    out: Vec<u8>,
}

/// What the line at the end says.
#[derive(Default)]
struct Counted {
    polls: u64,
    rows: u64,
    damaged: u64,
    reuses: u64,
    critical: u64,
    /// Of the reuses.
    exact: u64,
}

impl Watch {
    fn new(mut options: Options) -> Self {
        if options.format == Format::Auto {
            options.format = match (io::stdout().is_terminal(), &options.task, options.rule) {
                (false, ..) => Format::Json,
                (true, Task::Watch, Rule::Exact) => Format::Table,
                (true, ..) => Format::Text,
            };
        }
        let is_watch = options.task == Task::Watch && options.rule == Rule::Exact;
        let draws = options.format == Format::Table && is_watch;
        let live = draws.then(|| Live::new(io::stdout().is_terminal()));
        let encoder = match options.format {
            Format::Text | Format::Table | Format::Auto => Encoder::Text(Box::new(Columns::new(0, false))),
            Format::Json | Format::Legacy => Encoder::Json(Lines::default()),
        };
        Self {
            poller: Poller::new(ipvs::detect::Config::default(), Limits::default(), options.services.clone()),
            exact: None,
            options,
            legacy: legacy::Rule::default(),
            live,
            start: Instant::now(),
            encoder,
            explained: HashSet::new(),
            warned: None,
            slow: None,
            is_large: false,
            counted: Counted::default(),
            out: Vec::new(),
        }
    }

    /// One look at everything.
    fn once(mut self) -> Result<(), End> {
        let source = Source::new(self.options.path.clone());
        let services = source.services(Limits::default());
        let services = services.as_ref();
        let kernel = source.kernel();
        let mut overview = Overview::default();
        let reading = source.read(&mut |_, row| {
            if let Some(row) = row {
                overview.push(row, services);
            }
        })?;
        tell_reading(source.path(), &reading);
        let (time, patterns) = (wall_clock(), self.options.services.as_slice());
        let totals = source.totals();
        let totals = totals.as_ref();
        if self.options.format == Format::Json {
            overview.push_json(&mut self.out, services, patterns, time);
            overview::push_totals(&mut self.out, totals, &kernel, overview.beside(), time);
        } else {
            overview.push_text(&mut self.out, services, patterns, None);
            overview::push_totals_text(&mut self.out, totals, overview.beside());
        }
        self.write()
    }

    /// Two saved tables; settings are those beside the second one.
    fn diff(mut self, before: Source, after: Source) -> Result<(), End> {
        self.poller.set_kernel(after.kernel());
        self.look(&before, Duration::ZERO, wall_time(before.path()))?;
        self.look(&after, self.options.interval, wall_time(after.path()))?;
        self.finish()
    }

    /// Polls until a signal comes, and follows the kernel where it can.
    fn watch(mut self, shutdown: &Shutdown) -> Result<(), End> {
        let source = Source::new(self.options.path.clone());
        let is_legacy = self.options.format == Format::Legacy || self.options.rule == Rule::Legacy;
        if self.options.mode != Mode::Polling && !is_legacy {
            self.exact = Exact::of(source.path(), Settle::default());
            if self.exact.is_none() && self.options.mode == Mode::Exact {
                return Err(End::Exact(format!("{} is no table of this kernel", source.path().display())));
            }
        }
        if self.options.mode == Mode::Exact {
            self.follow(&source, shutdown)
        } else {
            self.polls(&source, shutdown)
        }
    }

    /// Exact mode alone.
    fn follow(mut self, source: &Source, shutdown: &Shutdown) -> Result<(), End> {
        while !shutdown.is_requested() {
            let begin = Instant::now();
            self.poller.refresh(source);
            self.keep()?;
            self.wait(shutdown, begin + self.options.interval)?;
        }
        self.finish()
    }

    fn polls(mut self, source: &Source, shutdown: &Shutdown) -> Result<(), End> {
        let (mut is_first, mut was_refused) = (true, false);
        while !shutdown.is_requested() {
            self.keep()?;
            let (begin, busy_before) = (Instant::now(), poller::thread_time());
            match self.look(source, begin.duration_since(self.start), wall_clock()) {
                Ok(()) => was_refused = false,
                // The module may be loaded later, and what was there once may come again.
                Err(End::Source(error)) if !is_first || error.is_missing() => {
                    if !was_refused {
                        exit::tell(format_args!("{error} It is waited for."));
                    }
                    was_refused = true;
                }
                Err(end) => return Err(end),
            }
            is_first = false;
            let busy = poller::thread_time().saturating_sub(busy_before);
            let period = poller::period(self.options.interval, busy);
            if period > self.options.interval && is_due(&mut self.slow, begin) {
                let (rows, period) = (self.poller.detector().entries(), period.as_secs_f64());
                tracing::info!(
                    rows,
                    period,
                    took = busy.as_secs_f64(),
                    "reading takes long: polls are further apart"
                );
            }
            self.wait(shutdown, begin + period)?;
        }
        self.finish()
    }

    /// Turns exact mode on or off, as it can be, and says so.
    fn keep(&mut self) -> Result<(), End> {
        let start = self.start;
        match self.exact.as_mut().map(|exact| exact.keep(|| start.elapsed())) {
            None | Some(Kept::Same) => {}
            Some(Kept::Began) => exit::tell("exact mode: every SYN that IPVS decides on is followed."),
            Some(Kept::Ended) => exit::tell("exact mode: the module ip_vs is gone. It is waited for."),
            Some(Kept::Refused(reason)) if self.options.mode != Mode::Exact => {
                exit::tell(format_args!("exact mode: {reason}: polling."));
            }
            Some(Kept::Refused(reason)) if reason.may_come() => {
                exit::tell(format_args!("exact mode: {reason}. It is waited for."));
            }
            Some(Kept::Refused(reason)) => return Err(End::Exact(reason.to_string())),
        }
        Ok(())
    }

    /// Waits until then, and tells what is decided meanwhile.
    fn wait(&mut self, shutdown: &Shutdown, until: Instant) -> Result<(), End> {
        while !shutdown.is_requested() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match &self.exact {
                None => shutdown.wait(left),
                Some(exact) => {
                    if exact.wait(shutdown, left) {
                        self.tell_decisions();
                        if self.live.is_none() {
                            self.write()?;
                        }
                        shutdown.wait(MIN_PAUSE.min(left));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells what the kernel decided so far.
    fn tell_decisions(&mut self) {
        let at = self.start.elapsed();
        let Self { exact: Some(exact), options, poller, encoder, explained, counted, out, .. } = self else {
            return;
        };
        let wall = wall_clock();
        exact.drain(at, &mut |decision| {
            let is_wanted = selection::selects(&options.services, decision.tuple.service);
            let time = exact::wall_time(decision.at, wall);
            let record = enrich::reuse::decision(decision, &poller.kernel, time).filter(|_| is_wanted);
            let Some((record, (situation, severity))) = record.zip(decision.situation(&poller.kernel)) else {
                return;
            };
            counted.reuses += 1;
            counted.exact += 1;
            counted.critical += u64::from(severity == Severity::Critical);
            encoder.push(out, &record);
            explain(encoder, explained, situation, out);
        });
    }

    /// A poll: reads the table, and writes what it proves.
    fn look(&mut self, source: &Source, at: Duration, wall: u64) -> Result<(), End> {
        let begin = Instant::now();
        let is_live = self.options.task == Task::Watch;
        let time = GoTime { wall, since_start: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX) };
        let reading = match self.options.rule {
            Rule::Exact => {
                self.exact.iter_mut().for_each(|exact| exact.poll(at));
                let Self { poller, live, .. } = self;
                let live_since = is_live.then(|| self.start + at);
                let poll = poller.poll(source, at, live_since, &mut |row, services| {
                    live.iter_mut().for_each(|live| live.row(row, services));
                })?;
                // What the table shows was decided by now.
                self.tell_decisions();
                self.exact.iter_mut().for_each(|exact| exact.polled(self.start.elapsed()));
                for reuse in &poll.reuses {
                    if self.exact.as_mut().is_none_or(|exact| exact.settle(reuse) == Settled::Open) {
                        self.tell(reuse, time);
                    }
                }
                if let Some(live) = &mut self.live {
                    let services = poll.services.as_ref();
                    let told = self.counted.reuses;
                    live.draw(at, (&poll.reuses, told), services, &self.options.services, &mut self.out);
                }
                poll.reading
            }
            Rule::Legacy => {
                let (reading, findings) = self.legacy_poll(source)?;
                findings.iter().for_each(|finding| self.tell_finding(finding, time));
                reading
            }
        };
        if !reading.is_whole() && (!is_live || is_due(&mut self.warned, begin)) {
            tell_reading(source.path(), &reading);
        }
        if is_live && reading.rows > MAX_POLLED_ENTRIES && !self.is_large {
            tell_large(reading.rows);
            self.is_large = true;
        }
        self.counted.polls += 1;
        self.counted.rows += reading.rows;
        self.counted.damaged += reading.damage.lines;
        self.write()?;
        let ipvs::Stats { missed, doubles, .. } = *self.poller.detector().stats();
        tracing::debug!(rows = reading.rows, reuses = self.counted.reuses, missed, doubles, "polled");
        Ok(())
    }

    fn legacy_poll(&mut self, source: &Source) -> Result<(Reading, Vec<legacy::Finding>), SourceError> {
        let mut findings = Vec::new();
        let Self { options, legacy, .. } = self;
        let is_wanted = |end: legacy::End| {
            let port = u16::try_from(end.port).unwrap_or(0);
            selection::selects(&options.services, (end.address.into(), port))
        };
        legacy.begin();
        let reading = source.read(&mut |line, _| findings.extend(legacy.line(line, is_wanted)))?;
        Ok((reading, findings))
    }

    fn tell(&mut self, reuse: &ipvs::Reuse, time: GoTime) {
        self.counted.reuses += 1;
        self.counted.critical += u64::from(reuse.severity == Severity::Critical);
        if self.options.format == Format::Legacy {
            return line::push_legacy_reuse(&mut self.out, time, reuse);
        }
        self.encoder.push(&mut self.out, &enrich::reuse::record(reuse, &self.poller.kernel, time.wall));
        explain(&self.encoder, &mut self.explained, reuse.situation, &mut self.out);
    }

    fn tell_finding(&mut self, finding: &legacy::Finding, time: GoTime) {
        self.counted.reuses += 1;
        match self.options.format {
            Format::Legacy => line::push_legacy(&mut self.out, time, finding),
            Format::Json | Format::Text | Format::Table | Format::Auto => {
                self.encoder.push(&mut self.out, &enrich::reuse::finding(finding, time.wall));
            }
        }
    }

    /// Writes what is in memory.
    fn write(&mut self) -> Result<(), End> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.out)?;
        stdout.flush()?;
        self.out.clear();
        Ok(())
    }

    /// The last line, on standard error.
    fn finish(self) -> Result<(), End> {
        let Counted { polls, rows, damaged, reuses, critical, exact } = self.counted;
        let stats = self.poller.detector().stats();
        exit::tell(format_args!(
            "polls {polls}, rows {rows}, unparsable {damaged}, reuses {reuses} (critical {critical}); templates {}, not \
             watched {}, doubled {}, missed once {}, ports returned {}, left out {}",
            stats.templates,
            stats.other_protocols + stats.synced,
            stats.doubles,
            stats.missed,
            stats.returned,
            stats.untracked + self.legacy.left_out,
        ));
        if let Some(follower) = &self.exact {
            let (counts, settled) = (follower.counts(), follower.settled().stats());
            let values: Vec<String> = DecisionCounter::ALL
                .iter()
                .map(|counter| format!("{} {}", counter.name().replace('_', " "), counts.kernel.of(*counter)))
                .collect();
            exit::tell(format_args!(
                "exact mode: reuses {exact}; {}, probes missed {}; of polling, told before {}, disproved {}, unexplained {}",
                values.join(", "),
                counts.missed,
                settled.told,
                settled.disproved,
                settled.unexplained,
            ));
        }
        Ok(())
    }
}

/// Says below a line of text what its situation means, the first time.
fn explain(
    encoder: &Encoder,
    explained: &mut HashSet<&'static str>,
    situation: Situation,
    out: &mut Vec<u8>,
) {
    if matches!(encoder, Encoder::Text(_)) && explained.insert(situation.as_str()) {
        out.extend_from_slice(format!("             {}\n", situation.sentence()).as_bytes());
    }
}

/// Whether it is to be said again at `now` what was said at `last`; then that is noted.
pub(crate) fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.duration_since(last) >= WARNING_PERIOD);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Says that polling is not enough for so many entries.
pub(crate) fn tell_large(rows: u64) {
    tracing::warn!(rows, most = MAX_POLLED_ENTRIES, "so many entries that polling misses some reuses");
}

/// Says what of a file was not understood or not read.
pub(crate) fn tell_reading(path: &Path, reading: &Reading) {
    let file = path.display();
    if reading.damage.lines > 0 {
        let first = String::from_utf8_lossy(&reading.damage.first);
        tracing::warn!(%file, rows = reading.damage.lines, first = ?first, "rows that cannot be parsed");
    }
    if let Some(cut) = &reading.cut {
        tracing::warn!(%file, "{cut}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_in_every_poll_is_said_once_a_minute() {
        let (start, mut last) = (Instant::now(), None);
        let said = [0, 5, 55, 59, 60, 65, 119, 120]
            .map(|second| is_due(&mut last, start + Duration::from_secs(second)));
        assert_eq!(said, [true, false, false, false, true, false, false, true]);
        assert_eq!(WARNING_PERIOD, Duration::from_secs(60));
    }
}
