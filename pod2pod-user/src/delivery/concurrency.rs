//! How many batches are under way at once: as many as the target answers without slowing down. Pure: reads no clock.
//!
//! Additive increase, multiplicative decrease, as TCP's congestion avoidance (RFC 5681, section 3.1), by round trip times instead of
//! losses: once every round trip it is looked at how long answers took. The limit falls where they took clearly longer than of late, or
//! the target said that it is too much; it rises by one where the limit was what held batches back.

use std::time::{Duration, Instant};

/// The limit falls to this share.
const DECREASE: f64 = 0.9;
/// How much of what is known of the mean and its deviation comes from the newest look.
const NEWEST_SHARE: f64 = 0.4;
/// The shortest mean comes up to the newest by this part with each look: a target that has become slower for good is believed after
/// some hundred.
const FORGOTTEN_SHARE: f64 = 0.01;
/// Answers are slow that take longer than the shortest mean by so many deviations from look to look.
const SLOW_DEVIATIONS: f64 = 2.5;
/// And by this part of it at least: a steady target has hardly any deviation.
const SLOW_SHARE: f64 = 0.2;
/// A look takes this long at least: of a local target a round trip is too short to judge by.
const MIN_LOOK: Duration = Duration::from_millis(10);

/// What is known of round trip times, of the means of looks: the shortest, the usual one, how far they are from it. Seconds.
#[derive(Clone, Copy, Debug)]
struct Known {
    shortest: f64,
    usual: f64,
    deviation: f64,
}

impl Known {
    /// The shortest and not the usual: who is slowed down by what is asked of it would be found usual after some time.
    fn is_slow(self, mean: f64) -> bool {
        mean > self.shortest + SLOW_SHARE * self.shortest + SLOW_DEVIATIONS * self.deviation
    }

    fn learn(&mut self, mean: f64) {
        self.shortest = mean.min(self.shortest + FORGOTTEN_SHARE * (mean - self.shortest));
        let off = mean - self.usual;
        self.usual += NEWEST_SHARE * off;
        self.deviation += NEWEST_SHARE * (off.abs() - self.deviation);
    }
}

/// Answers since the last look.
#[derive(Clone, Copy, Debug)]
struct Look {
    since: Instant,
    answers: u32,
    seconds: f64,
    /// The target said that it is too much.
    refused: bool,
    /// The limit held a batch back.
    held: bool,
}

impl Look {
    const fn new(since: Instant) -> Self {
        Self { since, answers: 0, seconds: 0.0, refused: false, held: false }
    }
}

/// How many batches may be under way.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    most: usize,
    limit: f64,
    known: Option<Known>,
    look: Look,
}

impl Concurrency {
    /// One at first, `most` at most.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self { most: most.max(1), limit: 1.0, known: None, look: Look::new(now) }
    }

    /// How many may be under way now.
    pub(super) const fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A batch was ready, and the limit held it back.
    pub(super) const fn hold(&mut self) {
        self.look.held = true;
    }

    /// The target said at `now` that it is too much.
    pub(super) fn refused(&mut self, now: Instant) {
        self.look.refused = true;
        self.look_again(now, Duration::ZERO);
    }

    /// The target dealt with a batch at `now`, after `round_trip`. How long it takes to fail says nothing of it.
    pub(super) fn answered(&mut self, now: Instant, round_trip: Duration) {
        self.look.answers += 1;
        self.look.seconds += round_trip.as_secs_f64();
        self.look_again(now, round_trip);
    }

    fn look_again(&mut self, now: Instant, round_trip: Duration) {
        let look = &self.look;
        let usual = self.known.map_or(round_trip, |known| Duration::from_secs_f64(known.usual.max(0.0)));
        if now.saturating_duration_since(look.since) >= usual.max(MIN_LOOK) {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: Instant) {
        let look = std::mem::replace(&mut self.look, Look::new(now));
        let mean = (look.answers > 0).then(|| look.seconds / f64::from(look.answers));
        let is_slow = mean.is_some_and(|mean| self.known.is_some_and(|known| known.is_slow(mean)));
        if look.refused || is_slow {
            self.limit = (self.limit * DECREASE).max(1.0);
        } else if look.held && look.answers > 0 {
            self.limit = (self.limit + 1.0).min(self.most as f64);
        }
        if let Some(mean) = mean {
            match &mut self.known {
                Some(known) => known.learn(mean),
                None => self.known = Some(Known { shortest: mean, usual: mean, deviation: 0.0 }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16;

    /// A target that answers after `answer`, given how many are under way, for so many looks with work for all; the limits.
    fn limits(most: usize, looks: usize, answer: impl Fn(usize) -> Option<Duration>) -> Vec<usize> {
        let mut now = Instant::now();
        let mut concurrency = Concurrency::new(most, now);
        let mut told = Vec::new();
        for _ in 0..looks {
            let limit = concurrency.limit();
            let (round_trip, refused) = match answer(limit) {
                Some(round_trip) => (round_trip, false),
                None => (Duration::from_millis(1), true),
            };
            now += round_trip.max(MIN_LOOK);
            concurrency.hold();
            if refused {
                concurrency.refused(now)
            } else {
                concurrency.answered(now, round_trip)
            }
            told.push(concurrency.limit());
        }
        told
    }

    #[test]
    fn a_target_that_does_not_slow_down_gets_all_that_may_be() {
        let told = limits(MOST, 40, |_| Some(Duration::from_millis(50)));
        assert_eq!((told[0], told.last()), (2, Some(&MOST)));
        assert_eq!(limits(1, 40, |_| Some(Duration::from_millis(50))).iter().max(), Some(&1));
        assert_eq!(limits(0, 3, |_| Some(Duration::from_millis(50))), [1, 1, 1]);
    }

    #[test]
    fn a_target_that_slows_down_beyond_four_gets_about_four() {
        let answer = |under_way: usize| Some(Duration::from_millis(if under_way > 4 { 200 } else { 50 }));
        let told = limits(200, 400, answer);
        let late = &told[200..];
        let mean = late.iter().sum::<usize>() as f64 / late.len() as f64;
        assert!((2.0..12.0).contains(&mean), "{mean}: {late:?}");
    }

    #[test]
    fn a_target_whose_answers_take_as_long_as_they_wait_for_each_other_gets_few() {
        let told = limits(200, 400, |under_way| Some(Duration::from_millis(50 * under_way as u64)));
        assert!(told[100..].iter().all(|limit| *limit <= 12), "{told:?}");
    }

    #[test]
    fn a_target_that_jitters_gets_more_than_one() {
        let mut dice = super::super::backoff::Dice::default();
        let dice = std::cell::RefCell::new(&mut dice);
        let answer = |_| Some(Duration::from_millis(20 + dice.borrow_mut().roll() % 60));
        let told = limits(MOST, 400, answer);
        let mean = told[100..].iter().sum::<usize>() as f64 / 300.0;
        assert!(mean > MOST as f64 / 2.0, "{mean}: {told:?}");
    }

    #[test]
    fn a_target_that_has_become_slower_for_good_is_believed() {
        let looks = std::cell::Cell::new(0);
        let answer = |_| {
            looks.set(looks.get() + 1);
            Some(Duration::from_millis(if looks.get() < 50 { 20 } else { 100 }))
        };
        let told = limits(MOST, 700, answer);
        assert!(told[60..300].contains(&1) && told[600..].iter().all(|limit| *limit == MOST), "{told:?}");
    }

    #[test]
    fn a_target_that_refuses_gets_less_and_never_nothing() {
        let told = limits(MOST, 200, |under_way| (under_way <= 3).then_some(Duration::from_millis(20)));
        assert!(told[50..].iter().all(|limit| (1..=5).contains(limit)), "{told:?}");
        assert_eq!(limits(MOST, 50, |_| None).last(), Some(&1));
    }

    #[test]
    fn without_work_that_waits_the_limit_stays() {
        let mut now = Instant::now();
        let mut concurrency = Concurrency::new(MOST, now);
        for _ in 0..20 {
            now += MIN_LOOK;
            concurrency.answered(now, MIN_LOOK);
        }
        assert_eq!(concurrency.limit(), 1);
    }
}
