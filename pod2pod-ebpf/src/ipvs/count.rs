//! Counters of decisions, of the CPU that runs the program.

use pod2pod_common::decision::{DECISION_COUNTERS as COUNT, DecisionCounter};

use crate::{atomic::atomic_add, maps::DECISION_COUNTERS};

/// Adds one, atomically: an interrupt may count too.
#[inline(always)]
pub(crate) fn bump(counter: DecisionCounter) {
    let index = counter as usize;
    if let Some(values) = DECISION_COUNTERS.get_ptr_mut(0)
        && index < COUNT
    {
        // SAFETY: the map's value holds COUNT words, and index is below that.
        unsafe { atomic_add(values.cast::<u64>().add(index), 1) };
    }
}
