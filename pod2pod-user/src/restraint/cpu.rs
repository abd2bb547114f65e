//! Processor time of the agent: its own threads, and its programs in the kernel.
//!
//! The programs run in other processes' time. The kernel measures them if `kernel.bpf_stats_enabled` is set; else they are
//! estimated from what they counted.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use pod2pod_common::counters::{Counter, CounterValues};

/// What a packet costs that is seen and let go by, ns. An assumption: machines differ severalfold, and one that measures
/// (`kernel.bpf_stats_enabled`) does not use it.
pub const SEEN_NS: u64 = 120;
/// What a record costs beside, ns. An assumption likewise.
pub const RECORD_NS: u64 = 450;

/// Processor time of all threads of this process, user and system.
pub fn of_process() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let time = |value: nix::sys::time::TimeVal| {
        let micros = value.tv_sec() * 1_000_000 + value.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// What the programs that this process holds have taken since they were loaded: zero unless `kernel.bpf_stats_enabled` is set.
pub fn of_programs() -> Duration {
    Duration::from_nanos(super::descriptors("prog_id", |text| super::of_fdinfo(text, "run_time_ns")))
}

/// What the programs have taken, if the kernel does not say.
pub fn estimated(counters: &CounterValues) -> Duration {
    let seen = counters.of(Counter::PacketsSeen) * SEEN_NS;
    Duration::from_nanos(seen + counters.of(Counter::RecordsSent) * RECORD_NS)
}

/// All that was taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By the process.
    pub process: Duration,
    /// By the programs, as the kernel measured it.
    pub measured: Duration,
    /// By the programs, as [`estimated`].
    pub estimated: Duration,
}

/// Time taken between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    last: Option<(Duration, Totals)>,
}

/// One window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// How long it was.
    pub length: Duration,
    /// Time of the process.
    pub process: Duration,
    /// Time of the programs.
    pub programs: Duration,
}

impl Window {
    /// All time taken, in thousandths of one core.
    pub fn millicores(&self) -> u64 {
        let taken = (self.process + self.programs).as_nanos() * 1000;
        u64::try_from(taken.checked_div(self.length.as_nanos()).unwrap_or_default()).unwrap_or(u64::MAX)
    }
}

impl Meter {
    /// The window that ends `now`, with the totals so far; none with the first look. What the kernel measured counts; what
    /// is estimated where it measured nothing.
    pub fn window(&mut self, now: Duration, totals: Totals) -> Option<Window> {
        let (then, last) = self.last.replace((now, totals))?;
        let measured = totals.measured.saturating_sub(last.measured);
        let estimated = totals.estimated.saturating_sub(last.estimated);
        Some(Window {
            length: now.saturating_sub(then),
            process: totals.process.saturating_sub(last.process),
            programs: if measured.is_zero() { estimated } else { measured },
        })
    }
}

#[cfg(test)]
mod tests {
    use pod2pod_common::counters::COUNTERS;

    use super::*;

    #[test]
    fn a_window_is_the_difference_of_two_looks() {
        let ms = Duration::from_millis;
        let totals = |process, measured, estimated| Totals {
            process: ms(process),
            measured: ms(measured),
            estimated: ms(estimated),
        };
        let mut meter = Meter::default();
        assert_eq!(meter.window(ms(1000), totals(50, 0, 7)), None);
        let window = meter.window(ms(2000), totals(150, 0, 107)).unwrap();
        assert_eq!(window, Window { length: ms(1000), process: ms(100), programs: ms(100) });
        assert_eq!(window.millicores(), 200);
        // Measured from here on.
        assert_eq!(meter.window(ms(3000), totals(150, 30, 207)).unwrap().programs, ms(30));
        // Statistics that were switched off begin anew, which is no time given back.
        assert_eq!(meter.window(ms(4000), totals(150, 0, 207)).unwrap().millicores(), 0);
        assert_eq!(Window::default().millicores(), 0);
    }

    #[test]
    fn programs_are_estimated_by_what_they_did() {
        let mut counters = CounterValues([0; COUNTERS]);
        counters.0[Counter::PacketsSeen as usize] = 1_000_000;
        counters.0[Counter::RecordsSent as usize] = 100_000;
        assert_eq!(estimated(&counters), Duration::from_nanos(SEEN_NS * 1_000_000 + RECORD_NS * 100_000));
    }

    #[test]
    fn this_process_takes_time() {
        let before = of_process();
        while of_process() == before {
            std::hint::black_box(());
        }
    }
}
