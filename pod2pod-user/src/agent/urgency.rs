//! How nice the worker is to what it watches, by how far its ring has filled. Pure: asks for nothing and sets nothing itself.
//!
//! A worker that always goes first stops both sides of a conversation for as long as its turn lasts, since one waits for the
//! other. So it takes its turn like any other thread, and goes first only before the ring overflows.

/// Niceness as long as the ring has room: that of the programs watched.
pub(super) const CALM: i32 = 0;
/// Niceness when the ring fills faster than it is read.
pub(super) const PRESSED: i32 = -10;

/// The worker is pressed when this part of the ring is unread: at full load some milliseconds before it overflows.
const PRESSED_SHARE_OF_RING: usize = 4;
/// It is calm again below this part, so that it does not change its mind with every turn.
const CALM_SHARE_OF_RING: usize = 16;

/// Whether the worker is pressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgency {
    ring_bytes: usize,
    pressed: bool,
}

impl Urgency {
    /// Calm, of a ring of `ring_bytes`.
    pub(super) fn new(ring_bytes: u32) -> Self {
        Self { ring_bytes: ring_bytes as usize, pressed: false }
    }

    /// The niceness from now on, if it changes with `unread` bytes in the ring.
    pub(super) fn after(&mut self, unread: usize) -> Option<i32> {
        let share = if self.pressed { CALM_SHARE_OF_RING } else { PRESSED_SHARE_OF_RING };
        let pressed = unread >= self.ring_bytes / share;
        let changes = pressed != self.pressed;
        self.pressed = pressed;
        changes.then_some(if pressed { PRESSED } else { CALM })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u32 = 1 << 20;

    #[test]
    fn a_quarter_presses_and_a_sixteenth_calms() {
        let mut urgency = Urgency::new(RING);
        let (quarter, sixteenth) = (RING as usize / 4, RING as usize / 16);
        for (unread, told) in [
            (0, None),
            (quarter - 1, None),
            (quarter, Some(PRESSED)),
            (RING as usize, None),
            (quarter - 1, None),
            (sixteenth, None),
            (sixteenth - 1, Some(CALM)),
            (sixteenth, None),
        ] {
            assert_eq!(urgency.after(unread), told, "{unread}");
        }
    }
}
