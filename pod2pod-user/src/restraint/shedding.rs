//! How much is shed: a level that rises while too much is taken and falls when there has been room for a while.
//!
//! Told once a second what was taken; reads no clock and measures nothing itself. One step at a time, so that what costs
//! the least knowledge goes first: bodies, then headers, then new connections.

use pod2pod_common::control::{SHED_BODIES, SHED_CONNECTIONS, SHED_HEADERS, SHED_NONE};

/// What is shed. Each level sheds also what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Nothing,
    /// Bodies: payload far ahead of what was read.
    Bodies,
    /// Headers too: what is not at the beginning of its segment.
    Headers,
    /// New connections too.
    Connections,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Bodies, Self::Headers, Self::Connections];

    /// As the kernel side knows it.
    pub const fn of_kernel(self) -> u32 {
        match self {
            Self::Nothing => SHED_NONE,
            Self::Bodies => SHED_BODIES,
            Self::Headers => SHED_HEADERS,
            Self::Connections => SHED_CONNECTIONS,
        }
    }

    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bodies => "bodies",
            Self::Headers => "bodies and headers",
            Self::Connections => "bodies, headers and new connections",
        }
    }

    const fn above(self) -> Self {
        match self {
            Self::Nothing => Self::Bodies,
            Self::Bodies => Self::Headers,
            Self::Headers | Self::Connections => Self::Connections,
        }
    }

    const fn below(self) -> Self {
        match self {
            Self::Nothing | Self::Bodies => Self::Nothing,
            Self::Headers => Self::Bodies,
            Self::Connections => Self::Headers,
        }
    }
}

/// The level rises when more than this share of a limit was taken. Per cent: memory is limited by what may never be
/// passed, so it has to be acted on before.
pub const MEMORY_HIGH: u64 = 92;
/// There is room when no more than this share was taken. Per cent.
pub const MEMORY_LOW: u64 = 85;
/// As [`MEMORY_HIGH`]: a budget of time is kept on average, so it may be used up.
pub const CPU_HIGH: u64 = 100;
/// As [`MEMORY_LOW`]: what a level sheds is seldom a third of the work, so the one below does not rise at once again.
pub const CPU_LOW: u64 = 65;
/// Windows in a row with room before the level falls by a step.
pub const CALM_WINDOWS: u32 = 5;

/// The level for one limit.
#[derive(Clone, Copy, Debug)]
pub struct Shedder {
    high: u64,
    low: u64,
    level: Level,
    calm: u32,
}

impl Shedder {
    /// For a limit of memory.
    pub const fn of_memory() -> Self {
        Self { high: MEMORY_HIGH, low: MEMORY_LOW, level: Level::Nothing, calm: 0 }
    }

    /// For a limit of processor time.
    pub const fn of_cpu() -> Self {
        Self { high: CPU_HIGH, low: CPU_LOW, level: Level::Nothing, calm: 0 }
    }

    /// A window in which `taken` of `limit` was taken, in any unit. Gives the level from here on.
    pub fn window(&mut self, taken: u64, limit: u64) -> Level {
        let share = u128::from(taken) * 100;
        let limit = u128::from(limit);
        if share > limit * u128::from(self.high) {
            self.calm = 0;
            self.level = self.level.above();
        } else if share <= limit * u128::from(self.low) {
            self.calm += 1;
            if self.calm >= CALM_WINDOWS {
                self.calm = 0;
                self.level = self.level.below();
            }
        } else {
            self.calm = 0;
        }
        self.level
    }

    /// The level now.
    pub const fn level(&self) -> Level {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels after each window, as digits.
    fn run(mut shedder: Shedder, windows: &[u64]) -> String {
        let digit = |taken: &u64| char::from(b'0' + shedder.window(*taken, 100).of_kernel() as u8);
        windows.iter().map(digit).collect()
    }

    #[test]
    fn a_level_rises_a_step_a_window_and_no_further_than_there_are_levels() {
        assert_eq!(run(Shedder::of_cpu(), &[CPU_HIGH, CPU_HIGH + 1, 300, 300, 300]), "01233");
        assert_eq!(run(Shedder::of_memory(), &[MEMORY_HIGH, MEMORY_HIGH + 1]), "01");
        let words: Vec<_> = Level::ALL.iter().map(|level| level.of_kernel()).collect();
        assert_eq!(words, [SHED_NONE, SHED_BODIES, SHED_HEADERS, SHED_CONNECTIONS]);
    }

    #[test]
    fn it_falls_a_step_after_a_while_with_room() {
        let calm = vec![CPU_LOW; CALM_WINDOWS as usize];
        let windows = [vec![200, 200], calm.clone(), calm.clone(), calm].concat();
        assert_eq!(run(Shedder::of_cpu(), &windows), "12222211111000000");
    }

    #[test]
    fn between_the_thresholds_nothing_moves() {
        let mut windows = vec![200];
        windows.extend([CPU_LOW + 1; 20]);
        assert!(run(Shedder::of_cpu(), &windows).chars().all(|level| level == '1'));
        // A window without room begins the wait anew.
        let four = [CPU_LOW; CALM_WINDOWS as usize - 1];
        let windows = [&[200][..], &four, &[CPU_LOW + 1], &four].concat();
        assert!(run(Shedder::of_cpu(), &windows).chars().all(|level| level == '1'));
        let windows = [&[200][..], &[MEMORY_LOW; CALM_WINDOWS as usize]].concat();
        assert_eq!(run(Shedder::of_memory(), &windows), "111110");
    }

    #[test]
    fn without_a_budget_everything_is_too_much() {
        assert_eq!(Shedder::of_cpu().window(1, 0), Level::Bodies);
        assert_eq!(Shedder::of_cpu().window(0, 0), Level::Nothing);
    }
}
