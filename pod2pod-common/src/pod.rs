//! `aya::Pod` for the types that user space reads from and writes to maps.

use crate::{
    control::Control,
    counters::CounterValues,
    decision::{DecisionCounterValues, Layout},
    flow::{ConnectionState, FlowKey},
    segment::RingState,
    verdict::Verdict,
};

// SAFETY: `repr(C)`, no padding (sizes asserted beside the types), any bit pattern is a value.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for ConnectionState {}
// SAFETY: as above.
unsafe impl aya::Pod for Verdict {}
// SAFETY: as above.
unsafe impl aya::Pod for CounterValues {}
// SAFETY: as above.
unsafe impl aya::Pod for RingState {}
// SAFETY: as above.
unsafe impl aya::Pod for Control {}
// SAFETY: as above.
unsafe impl aya::Pod for DecisionCounterValues {}
// SAFETY: as above.
unsafe impl aya::Pod for Layout {}
