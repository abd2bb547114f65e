//! How nice a thread of the agent is to what it watches, by how far the buffer has filled that it empties: a ring, a queue.
//!
//! A thread that always goes first stops both sides of a conversation for as long as its turn lasts, since one waits for the
//! other. So it takes its turn like any other thread, and goes first only before its buffer overflows. As long as there is
//! room it is as nice as it was made by whoever started it.

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// Niceness when the buffer fills faster than it is emptied.
const PRESSED: i32 = -10;

/// The thread is pressed when this part of its buffer is full: for a ring at full load some milliseconds before it overflows.
const PRESSED_SHARE: usize = 4;
/// It is calm again below this part, so that it does not change its mind with every turn.
const CALM_SHARE: usize = 16;

/// Whether a thread is pressed.
#[derive(Clone, Debug)]
pub struct Urgency {
    size: usize,
    pressed: bool,
    /// Its niceness before it was made to go first; present as long as it goes first.
    former: Option<i32>,
    times: u64,
}

/// What a thread's niceness is, and how it is changed.
trait Thread {
    fn niceness(&self) -> Option<i32>;
    /// Whether it may be changed.
    fn make(&mut self, niceness: i32) -> bool;
}

/// A thread of this process, or this one: priority is of one thread only (setpriority(2), C library/kernel differences).
impl Thread for Option<Pid> {
    fn niceness(&self) -> Option<i32> {
        getpriority_process(*self).ok()
    }

    fn make(&mut self, niceness: i32) -> bool {
        setpriority_process(*self, niceness).is_ok()
    }
}

impl Urgency {
    /// Calm, with a buffer of `size` bytes.
    pub const fn new(size: usize) -> Self {
        Self { size, pressed: false, former: None, times: 0 }
    }

    /// Makes `thread`, or this one, go first or not with `filled` bytes in its buffer. Without CAP_SYS_NICE it stays as nice
    /// as it is.
    pub fn follow(&mut self, filled: usize, thread: Option<Pid>) {
        self.follow_by(filled, thread);
    }

    /// How often the thread was made to go first.
    pub const fn times(&self) -> u64 {
        self.times
    }

    fn follow_by(&mut self, filled: usize, mut thread: impl Thread) {
        let share = if self.pressed { CALM_SHARE } else { PRESSED_SHARE };
        let pressed = filled >= self.size / share;
        if pressed == self.pressed {
            return;
        }
        self.pressed = pressed;
        match self.former.take() {
            Some(former) => {
                // To be nicer is always allowed.
                thread.make(former);
            }
            // Whoever is started to go first as it is stays so.
            None if pressed => {
                self.former = thread.niceness().filter(|former| *former > PRESSED && thread.make(PRESSED));
                self.times += u64::from(self.former.is_some());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;
    const QUARTER: usize = SIZE / PRESSED_SHARE;
    const SIXTEENTH: usize = SIZE / CALM_SHARE;

    /// A thread, and whether it may go first.
    struct Made {
        niceness: i32,
        may: bool,
    }

    impl Thread for &mut Made {
        fn niceness(&self) -> Option<i32> {
            Some(self.niceness)
        }

        fn make(&mut self, niceness: i32) -> bool {
            let may = self.may || niceness >= self.niceness;
            if may {
                self.niceness = niceness;
            }
            may
        }
    }

    #[test]
    fn a_quarter_presses_and_a_sixteenth_calms() {
        for started in [0, 7, PRESSED + 1] {
            let (mut urgency, mut thread) = (Urgency::new(SIZE), Made { niceness: started, may: true });
            for (filled, niceness, times) in [
                (0, started, 0),
                (QUARTER - 1, started, 0),
                (QUARTER, PRESSED, 1),
                (SIZE, PRESSED, 1),
                (QUARTER - 1, PRESSED, 1),
                (SIXTEENTH, PRESSED, 1),
                (SIXTEENTH - 1, started, 1),
                (SIXTEENTH, started, 1),
                (QUARTER, PRESSED, 2),
                (0, started, 2),
            ] {
                urgency.follow_by(filled, &mut thread);
                assert_eq!((thread.niceness, urgency.times()), (niceness, times), "{filled}");
            }
        }
    }

    #[test]
    fn who_may_not_go_first_and_who_does_already_are_left_alone() {
        for (started, may) in [(0, false), (7, false), (PRESSED, true), (PRESSED - 5, true)] {
            let (mut urgency, mut thread) = (Urgency::new(SIZE), Made { niceness: started, may });
            for filled in [QUARTER, 0, SIZE, 0] {
                urgency.follow_by(filled, &mut thread);
                assert_eq!((thread.niceness, urgency.times()), (started, 0), "{filled}");
            }
        }
    }

    #[test]
    fn this_thread_is_as_nice_afterwards_as_it_was_before() {
        let nice = || getpriority_process(None).unwrap();
        let started = nice() + 3;
        setpriority_process(None, started).unwrap();
        let mut urgency = Urgency::new(SIZE);
        urgency.follow(SIZE, None);
        assert_eq!(nice(), if urgency.times() == 1 { PRESSED } else { started });
        urgency.follow(0, None);
        assert_eq!(nice(), started);
    }
}
