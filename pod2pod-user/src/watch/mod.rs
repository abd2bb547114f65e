//! `pod2pod ipvs`: the watch over IPVS alone, live or over saved tables. Needs no eBPF, only a readable table.
//!
//! Files, clock and output are here; what a change proves is decided in `ipvs`.

mod line;
pub mod options;
mod overview;
pub mod source;

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    exit,
    ipvs::{
        self, Detector,
        kernel::Kernel,
        legacy, selection,
        services::Services,
        situation::{Severity, Situation},
    },
    shutdown::Shutdown,
};
use line::GoTime;
use options::{Format, Options, Rule, Task};
use overview::Overview;
use source::{Reading, Source, SourceError};

/// Settings of the kernel are read again after so long.
const SETTINGS_PERIOD: Duration = Duration::from_secs(60);

/// What is wrong with the table, or that it takes long to read, is said this often at most: it is so in every poll.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Reading takes at most one part in so many of the time: 5 %.
const READING_SHARE: u32 = 20;

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
    detector: Detector,
    legacy: legacy::Rule,
    kernel: Kernel,
    start: Instant,
    /// Situations that were explained.
    explained: HashSet<Situation>,
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
}

impl Watch {
    fn new(mut options: Options) -> Self {
        if options.format == Format::Auto {
            options.format = if io::stdout().is_terminal() { Format::Text } else { Format::Json };
        }
        Self {
            options,
            detector: Detector::new(ipvs::detect::Config::default()),
            legacy: legacy::Rule::default(),
            kernel: Kernel::default(),
            start: Instant::now(),
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
        let services = source.services();
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
            overview.push_text(&mut self.out, services, patterns);
            overview::push_totals_text(&mut self.out, totals, overview.beside());
        }
        self.write()
    }

    /// Two saved tables; the services are those beside the second one.
    fn diff(mut self, before: Source, after: Source) -> Result<(), End> {
        self.kernel = after.kernel();
        self.look(&before, None, Duration::ZERO, wall_time(before.path()))?;
        let services = after.services();
        self.look(&after, services.as_ref(), self.options.interval, wall_time(after.path()))?;
        self.finish()
    }

    /// Polls until a signal comes.
    fn watch(mut self, shutdown: &Shutdown) -> Result<(), End> {
        let source = Source::new(self.options.path.clone());
        let mut settings_at = None;
        let mut was_missing = false;
        while !shutdown.is_requested() {
            let begin = Instant::now();
            if settings_at.is_none_or(|at: Instant| begin.duration_since(at) >= SETTINGS_PERIOD) {
                self.kernel = source.kernel();
                settings_at = Some(begin);
            }
            let services = source.services();
            match self.look(&source, services.as_ref(), begin.duration_since(self.start), wall_clock()) {
                Ok(()) => was_missing = false,
                // The module may be loaded later.
                Err(End::Source(error @ SourceError::Missing(_))) => {
                    if !was_missing {
                        exit::tell(format_args!("{error} It is waited for."));
                    }
                    was_missing = true;
                }
                Err(end) => return Err(end),
            }
            let took = begin.elapsed();
            let period = self.options.interval.max(took * READING_SHARE);
            if period > self.options.interval && is_due(&mut self.slow, begin) {
                let (rows, period) = (self.detector.entries(), period.as_secs_f64());
                tracing::info!(
                    rows,
                    period,
                    took = took.as_secs_f64(),
                    "reading takes long: polls are further apart"
                );
            }
            wait(shutdown, period.saturating_sub(took));
        }
        self.finish()
    }

    /// A poll: reads the table, and writes what it proves.
    fn look(
        &mut self,
        source: &Source,
        services: Option<&Services>,
        at: Duration,
        wall: u64,
    ) -> Result<(), End> {
        let begin = Instant::now();
        let mut findings = Vec::new();
        let rule = self.options.rule;
        match rule {
            Rule::Exact => self.detector.begin(at),
            Rule::Legacy => self.legacy.begin(),
        }
        let Self { options, detector, legacy, .. } = self;
        let patterns = options.services.as_slice();
        let reading = source.read(&mut |line, row| match (rule, row) {
            (Rule::Exact, Some(row)) if selection::selects(patterns, row.tuple.service) => detector.push(row),
            (Rule::Exact, _) => {}
            (Rule::Legacy, _) => {
                let is_wanted = |end: legacy::End| {
                    let port = u16::try_from(end.port).unwrap_or(0);
                    selection::selects(patterns, (end.address.into(), port))
                };
                findings.extend(legacy.line(line, is_wanted));
            }
        })?;
        if !reading.is_whole() && (self.options.task != Task::Watch || is_due(&mut self.warned, begin)) {
            tell_reading(source.path(), &reading);
        }
        if self.options.task == Task::Watch && reading.rows > MAX_POLLED_ENTRIES && !self.is_large {
            let rows = reading.rows;
            tracing::warn!(
                rows,
                most = MAX_POLLED_ENTRIES,
                "so many entries that polling misses some reuses"
            );
            self.is_large = true;
        }
        self.counted.polls += 1;
        self.counted.rows += reading.rows;
        self.counted.damaged += reading.damage.lines;
        let live = if self.options.task == Task::Watch { begin.elapsed() } else { Duration::ZERO };
        let time = GoTime { wall, since_start: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX) };
        if rule == Rule::Exact {
            let reuses = self.detector.finish(live, services, &self.kernel);
            for reuse in &reuses {
                self.tell(reuse, time);
            }
        }
        for finding in &findings {
            self.tell_finding(finding, time);
        }
        self.write()?;
        tracing::debug!(rows = reading.rows, reuses = self.counted.reuses, "polled");
        Ok(())
    }

    fn tell(&mut self, reuse: &ipvs::Reuse, time: GoTime) {
        self.counted.reuses += 1;
        self.counted.critical += u64::from(reuse.severity == Severity::Critical);
        match self.options.format {
            Format::Legacy => line::push_legacy_reuse(&mut self.out, time, reuse),
            Format::Json => line::push_json(&mut self.out, reuse, &self.kernel, time.wall),
            Format::Text | Format::Auto => {
                line::push_text(&mut self.out, reuse, time.wall);
                if self.explained.insert(reuse.situation) {
                    line::push_explanation(&mut self.out, reuse.situation);
                }
            }
        }
    }

    fn tell_finding(&mut self, finding: &legacy::Finding, time: GoTime) {
        self.counted.reuses += 1;
        match self.options.format {
            Format::Legacy => line::push_legacy(&mut self.out, time, finding),
            Format::Json => line::push_finding(&mut self.out, finding, time.wall),
            Format::Text | Format::Auto => line::push_finding_text(&mut self.out, finding, time.wall),
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
        let Counted { polls, rows, damaged, reuses, critical } = self.counted;
        let stats = self.detector.stats();
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
        Ok(())
    }
}

/// Whether it is to be said again at `now` what was said at `last`; then that is noted.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.duration_since(last) >= WARNING_PERIOD);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Says what of a file was not understood or not read.
fn tell_reading(path: &Path, reading: &Reading) {
    let file = path.display();
    if reading.damage.lines > 0 {
        let first = String::from_utf8_lossy(&reading.damage.first);
        tracing::warn!(%file, rows = reading.damage.lines, first = ?first, "rows that cannot be parsed");
    }
    if let Some(cut) = &reading.cut {
        tracing::warn!(%file, "{cut}");
    }
}

/// Nanoseconds since 1970.
fn wall_clock() -> u64 {
    nanoseconds(SystemTime::now())
}

/// When a saved file was written; now if that cannot be told.
fn wall_time(path: &Path) -> u64 {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    nanoseconds(modified.unwrap_or_else(|_| SystemTime::now()))
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for so long, or for the end of the program.
fn wait(shutdown: &Shutdown, time: Duration) {
    let until = Instant::now() + time;
    while !shutdown.is_requested() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        // Whatever it says, the conditions above are asked again.
        let _ = poll(&mut [PollFd::new(shutdown.as_fd(), PollFlags::POLLIN)], timeout);
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
