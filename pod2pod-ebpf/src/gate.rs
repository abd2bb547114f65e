//! Is it HTTP? Decided by a connection's first bytes, once; where those were not seen, by each segment's first bytes
//! until one begins a message.

use aya_ebpf::programs::sk_buff::SkBuff;
use pod2pod_common::{
    counters::Counter,
    flow::{
        ConnectionState, GATE_HTTP, GATE_IGNORE, GATE_UNKNOWN, STATE_CLIENT_SPOKE, STATE_LOCAL_IS_CLIENT,
        STATE_SYN_SEEN,
    },
    heads::{Beginning, FirstBytes},
    limits::OVERTAKING_WINDOW,
    segment::{DIRECTION_EGRESS, MARK_HTTP2, MARK_TLS, MARK_UNDECIDED},
};

use crate::{
    count::count,
    packet::{Packet, load_window},
};

/// What to do with a segment's payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it, with these marks.
    Send(u8),
    /// Count it and leave it alone.
    Withhold,
}

/// Decides on a segment with payload and updates `state`.
///
/// # Errors
/// The payload could not be read.
#[inline(always)]
pub(crate) fn decide(
    skb: &SkBuff,
    packet: &Packet,
    direction: u8,
    state: &mut ConnectionState,
) -> Result<Decision, Counter> {
    if state.gate == GATE_HTTP {
        return Ok(Decision::Send(0));
    }
    if state.gate != GATE_UNKNOWN {
        return Ok(Decision::Withhold);
    }
    let length = if packet.payload_length > 16 { 16 } else { packet.payload_length };
    let bytes = load_window(skb, packet.payload_offset, length)?;
    let first = FirstBytes { bytes, length: length as usize };
    if state.marks & STATE_SYN_SEEN == 0 {
        return Ok(from_the_middle(&first, state));
    }
    let local_is_client = state.marks & STATE_LOCAL_IS_CLIENT != 0;
    if (direction == DIRECTION_EGRESS) != local_is_client {
        // What a server says first does not decide: a server may greet before an HTTP/2 client speaks.
        return Ok(match first.of_server() {
            Beginning::Http => open(state),
            Beginning::Http2 | Beginning::Tls | Beginning::Other => Decision::Withhold,
        });
    }
    if state.marks & STATE_CLIENT_SPOKE != 0 {
        return Ok(from_the_middle(&first, state));
    }
    let ahead = packet.sequence.wrapping_sub(state.generation.wrapping_add(1));
    if ahead != 0 {
        // Overtook the first segment, or the SYN was forged and this is the middle of something.
        return Ok(if ahead < OVERTAKING_WINDOW {
            Decision::Send(MARK_UNDECIDED)
        } else {
            from_the_middle(&first, state)
        });
    }
    state.marks |= STATE_CLIENT_SPOKE;
    Ok(match first.of_client() {
        Beginning::Http => open(state),
        Beginning::Http2 => close(state, Counter::GateHttp2, Decision::Send(MARK_HTTP2)),
        Beginning::Tls => close(state, Counter::GateTls, Decision::Send(MARK_TLS)),
        Beginning::Other => close(state, Counter::GateIgnored, Decision::Withhold),
    })
}

#[inline(always)]
fn from_the_middle(first: &FirstBytes, state: &mut ConnectionState) -> Decision {
    match first.of_middle() {
        Beginning::Http => open(state),
        Beginning::Http2 | Beginning::Tls | Beginning::Other => Decision::Withhold,
    }
}

#[inline(always)]
fn open(state: &mut ConnectionState) -> Decision {
    state.gate = GATE_HTTP;
    count(Counter::GateHttp);
    Decision::Send(0)
}

#[inline(always)]
fn close(state: &mut ConnectionState, counter: Counter, decision: Decision) -> Decision {
    state.gate = GATE_IGNORE;
    count(counter);
    decision
}
