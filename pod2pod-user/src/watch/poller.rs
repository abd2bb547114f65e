//! A poll: the table through the detector, with the services and settings of that moment. Tells nobody; keeps no rhythm.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::source::{Reading, Source, SourceError};
use crate::ipvs::{
    Detector, Reuse, detect,
    kernel::Kernel,
    parse::Row,
    selection::{self, Pattern},
    services::{Limits, Services},
};

/// Settings of the kernel are read again after so long.
const SETTINGS_PERIOD: Duration = Duration::from_secs(60);

/// Polls take at most one part in so many of a processor's time: 5 %.
const READING_SHARE: u32 = 20;

/// What polls share.
#[derive(Debug)]
pub struct Poller {
    limits: Limits,
    patterns: Vec<Pattern>,
    detector: Detector,
    /// What the kernel is set to.
    pub kernel: Kernel,
    settings_at: Option<Instant>,
}

/// One poll.
#[derive(Debug)]
pub struct Poll {
    /// What it proves.
    pub reuses: Vec<Reuse>,
    /// What reading was like.
    pub reading: Reading,
    /// The services, as they were just before.
    pub services: Option<Services>,
    /// How long all of it took.
    pub took: Duration,
    /// Processor time of it.
    pub busy: Duration,
}

impl Poller {
    /// Nothing was polled yet; services that no pattern selects are left alone.
    pub fn new(config: detect::Config, limits: Limits, patterns: Vec<Pattern>) -> Self {
        Self {
            limits,
            patterns,
            detector: Detector::new(config),
            kernel: Kernel::default(),
            settings_at: None,
        }
    }

    /// Reads the table of `source`, `at` after some moment that stays the same; each row of a watched service is also handed to
    /// `each`. `live` is what `at` was by the clock: until the reading begins, time goes on. A saved table was read in no time.
    ///
    /// # Errors
    /// There is no table.
    pub fn poll(
        &mut self,
        source: &Source,
        at: Duration,
        live: Option<Instant>,
        each: &mut impl FnMut(&Row<'_>, Option<&Services>),
    ) -> Result<Poll, SourceError> {
        let (begin, busy_before) = (Instant::now(), thread_time());
        self.refresh(source);
        let services = source.services(self.limits);
        let Self { patterns, detector, kernel, .. } = self;
        // Asking for services may take a while, and a thread that goes last may wait: whatever is between this and the end of the
        // reading is allowed for.
        let reading_from = Instant::now();
        detector.begin(at + live.map_or(Duration::ZERO, |live| reading_from.saturating_duration_since(live)));
        let reading = source.read(&mut |_, row| {
            if let Some(row) = row.filter(|row| selection::selects(patterns, row.tuple.service)) {
                detector.push(row);
                each(row, services.as_ref());
            }
        })?;
        let reading_took = live.map_or(Duration::ZERO, |_| reading_from.elapsed());
        let reuses = detector.finish(reading_took, services.as_ref(), kernel);
        let (took, busy) = (begin.elapsed(), thread_time().saturating_sub(busy_before));
        Ok(Poll { reuses, reading, services, took, busy })
    }

    /// Reads the settings again, if it is time.
    pub fn refresh(&mut self, source: &Source) {
        let now = Instant::now();
        if self.settings_at.is_none_or(|at| now.duration_since(at) >= SETTINGS_PERIOD) {
            self.kernel = source.kernel();
            self.settings_at = Some(now);
        }
    }

    /// Takes the settings from here, for as long as they last.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        (self.kernel, self.settings_at) = (kernel, Some(Instant::now()));
    }

    /// What was seen in all polls.
    pub const fn detector(&self) -> &Detector {
        &self.detector
    }
}

/// Processor time of the calling thread so far: what reading costs, however busy the machine is.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// From one poll to the next, if polls take that much processor time and should be `interval` apart.
pub fn period(interval: Duration, took: Duration) -> Duration {
    interval.max(took * READING_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_takes_no_time_of_the_processor() {
        let (begin, clock) = (thread_time(), Instant::now());
        std::thread::park_timeout(Duration::from_millis(20));
        while clock.elapsed() < Duration::from_millis(20) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let waited = thread_time() - begin;
        assert!(waited < Duration::from_millis(20), "{waited:?}");
        while thread_time() - begin < waited + Duration::from_millis(1) {}
    }

    #[test]
    fn what_comes_before_the_reading_is_no_time_between_two() {
        let folder = std::env::temp_dir().join(format!("pod2pod-poller-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("ip_vs_conn");
        let source = Source::new(path.clone());
        let (second, now) = (Duration::from_secs, Instant::now);
        let mut poller = Poller::new(detect::Config::default(), Limits::default(), Vec::new());
        let mut found = |left: u32, at: u64, waited: u64| {
            let row = format!("TCP 0AF40102 C351 0A60000A 0050 0AF40203 1F90 TIME_WAIT   {left:>7}\n");
            std::fs::write(
                &path,
                format!("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires\n{row}"),
            )
            .unwrap();
            let begun = now().checked_sub(second(waited)).unwrap();
            let poll = poller.poll(&source, second(at), Some(begun), &mut |_, _| {}).unwrap();
            (poll.reading.rows, poll.reuses.len())
        };
        // The first reading comes 20 s late: so the second one comes a second after it, and not 21.
        assert_eq!(found(105, 0, 20), (1, 0));
        assert_eq!(found(104, 21, 0), (1, 0));
        // 20 s later it has as much left as before.
        assert_eq!(found(104, 41, 0), (1, 1));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn polls_move_apart_when_they_take_long() {
        let interval = Duration::from_secs(5);
        for (took, expected) in [(0, 5000), (250, 5000), (251, 5020), (2000, 40_000)] {
            let expected = Duration::from_millis(expected);
            assert_eq!(period(interval, Duration::from_millis(took)), expected, "{took}");
        }
    }
}
