//! How nice a thread of the agent is to what it watches, by how far the buffer has filled that it empties: a ring, a queue.
//!
//! A thread that always goes first stops both sides of a conversation for as long as its turn lasts, since one waits for the
//! other. So it takes its turn like any other thread, and goes first only before its buffer overflows.

use rustix::process::{Pid, setpriority_process};

/// Niceness as long as the buffer has room: that of the programs watched.
const CALM: i32 = 0;
/// Niceness when the buffer fills faster than it is emptied.
const PRESSED: i32 = -10;

/// The thread is pressed when this part of its buffer is full: for a ring at full load some milliseconds before it overflows.
const PRESSED_SHARE: usize = 4;
/// It is calm again below this part, so that it does not change its mind with every turn.
const CALM_SHARE: usize = 16;

/// Whether a thread is pressed.
#[derive(Clone, Copy, Debug)]
pub struct Urgency {
    size: usize,
    pressed: bool,
}

impl Urgency {
    /// Calm, with a buffer of `size` bytes.
    pub const fn new(size: usize) -> Self {
        Self { size, pressed: false }
    }

    /// Makes `thread`, or this one, as nice as it should be with `filled` bytes in its buffer. Without CAP_SYS_NICE it stays
    /// as nice as others.
    pub fn follow(&mut self, filled: usize, thread: Option<Pid>) {
        if let Some(niceness) = self.after(filled) {
            // Of one thread only (setpriority(2), C library/kernel differences).
            let _ = setpriority_process(thread, niceness);
        }
    }

    /// The niceness from now on, if it changes with `filled` bytes in the buffer.
    fn after(&mut self, filled: usize) -> Option<i32> {
        let share = if self.pressed { CALM_SHARE } else { PRESSED_SHARE };
        let pressed = filled >= self.size / share;
        let changes = pressed != self.pressed;
        self.pressed = pressed;
        changes.then_some(if pressed { PRESSED } else { CALM })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn a_quarter_presses_and_a_sixteenth_calms() {
        let mut urgency = Urgency::new(SIZE);
        let (quarter, sixteenth) = (SIZE / PRESSED_SHARE, SIZE / CALM_SHARE);
        for (filled, told) in [
            (0, None),
            (quarter - 1, None),
            (quarter, Some(PRESSED)),
            (SIZE, None),
            (quarter - 1, None),
            (sixteenth, None),
            (sixteenth - 1, Some(CALM)),
            (sixteenth, None),
        ] {
            assert_eq!(urgency.after(filled), told, "{filled}");
        }
    }
}
