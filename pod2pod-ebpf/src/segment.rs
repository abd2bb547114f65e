//! One packet: is it TCP with something to say, whose connection is it, is it wanted, tell it.
//!
//! Knows no hook: the attachers in `main` say direction and source. Everything is inlined into one
//! function a direction: with calls between functions, Linux 5.10 takes every number for precise and walks millions of
//! states.

use aya_ebpf::{
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use aya_log_ebpf::debug;
use pod2pod_common::{
    counters::Counter,
    flow::{ConnectionState, FlowKey, GATE_HTTP, GATE_OWN, GATE_UNKNOWN, SCOPE_COOKIE, SCOPE_INTERFACE},
    gate::{Decision, Facts, Look},
    heads::{Beginning, Window},
    limits::{GATE_BYTES, HEARTBEAT_TIMEOUT_NS},
    segment::{DIRECTION_EGRESS, SOURCE_TC, TCP_SYN},
};

use crate::{
    connection::{self, Found},
    count::Counters,
    emit::{Telling, within},
    headers::{self, Packet},
    link,
    maps::{CONTROL, OWN_SOCKETS, SCOPE_KIND, VERDICTS},
};

/// cgroup_skb hands out packets from their network header on.
const CGROUP_NETWORK_OFFSET: u32 = 0;

/// Looks at one packet and tells user space what it has to know. Never touches the packet.
#[inline(always)]
pub(crate) fn observe<const DIRECTION: u8, const SOURCE: u8>(context: &SkBuffContext) {
    let Some(counters) = Counters::of_this_cpu() else { return };
    counters.bump(Counter::PacketsSeen);
    counters.add(Counter::BytesSeen, u64::from(context.len()));
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_stale(now) {
        counters.bump(Counter::HeartbeatStale);
        return;
    }
    let parsed = match SOURCE {
        SOURCE_TC => {
            link::network_offset(context, now).and_then(|offset| headers::parse(context, offset, now))
        }
        _ => headers::parse(context, CGROUP_NETWORK_OFFSET, now),
    };
    let packet = match parsed {
        Ok(packet) => packet,
        Err(reason) => {
            counters.bump(reason);
            return;
        }
    };
    let facts = Facts {
        direction: DIRECTION,
        flags: packet.tcp_flags,
        sequence: packet.sequence,
        acknowledgement: packet.acknowledgement,
        payload_length: packet.payload_length,
    };
    if facts.payload_length == 0 && !facts.steers() {
        counters.bump(Counter::BareAck);
        return;
    }
    // SAFETY: the helpers take the context that the program was given.
    let (cookie, cgroup) =
        unsafe { (bpf_get_socket_cookie(context.skb.skb.cast()), bpf_skb_cgroup_id(context.skb.skb)) };
    // SAFETY: the context that the program was given.
    let interface = unsafe { (*context.skb.skb).ifindex };
    let scope_kind = if SOURCE == SOURCE_TC { SCOPE_INTERFACE } else { SCOPE_KIND.load() };
    let end = End { now, cookie, cgroup, interface, scope_kind, source: SOURCE };
    handle::<DIRECTION>(context, &packet, &facts, &end, counters);
}

/// The socket end that a packet was seen at, and when.
pub(crate) struct End {
    pub(crate) now: u64,
    pub(crate) cookie: u64,
    pub(crate) cgroup: u64,
    pub(crate) interface: u32,
    /// `SCOPE_*`.
    pub(crate) scope_kind: u32,
    /// `SOURCE_*`.
    pub(crate) source: u8,
}

impl End {
    /// Tells its network world apart.
    #[inline(always)]
    pub(crate) fn scope(&self) -> u64 {
        match self.scope_kind {
            SCOPE_INTERFACE => u64::from(self.interface),
            SCOPE_COOKIE => self.cookie,
            _ => self.cgroup,
        }
    }
}

#[inline(always)]
fn handle<const DIRECTION: u8>(
    context: &SkBuffContext,
    packet: &Packet,
    facts: &Facts,
    end: &End,
    counters: Counters,
) {
    let mut key = flow_key::<DIRECTION>(packet, end);
    if end.cookie != 0 && OWN_SOCKETS.get_ptr(end.cookie).is_some() {
        if facts.flags & TCP_SYN != 0 {
            connection::insert_own(&mut key, facts, counters);
        }
        counters.bump(Counter::OwnTraffic);
        return;
    }
    let Some(found) = connection::find_or_insert(&mut key, facts, counters) else {
        count_matched(facts, counters);
        let telling = Telling { context, counters, packet, facts, end, key: &key, state: None };
        telling.count_segment(telling.tell_length());
        counters.add(Counter::BytesUnreadable, u64::from(facts.payload_length));
        return;
    };
    // SAFETY: an element of the map; others may write it at once, see `ConnectionState`.
    let state = unsafe { &mut *found.state };
    state.follow(facts);
    if state.gate == GATE_OWN {
        connection::settle(&key, found, counters);
        counters.bump(Counter::OwnTraffic);
        return;
    }
    count_matched(facts, counters);
    if is_unwanted(state, &key, facts) {
        state.note(facts, end.now);
        counters.bump(Counter::SegmentsUnwanted);
        counters.add(Counter::BytesUnwanted, u64::from(facts.payload_length));
        return;
    }
    let decision = judge::<DIRECTION>(context, packet, facts, state, found, counters);
    state.note(facts, end.now);
    let state = Some(connection::settle(&key, found, counters));
    let telling = Telling { context, counters, packet, facts, end, key: &key, state };
    if decision.payload {
        telling.tell(decision.marks);
        return;
    }
    counters.add(Counter::BytesNotHttp, u64::from(facts.payload_length));
    if facts.steers() {
        telling.count_segment(telling.tell_length());
    } else {
        counters.bump(Counter::SegmentsNotHttp);
    }
}

/// Whether the agent has not been heard of for so long that it is stopped or dead.
#[inline(always)]
fn is_stale(now: u64) -> bool {
    let Some(control) = CONTROL.get_ptr(0) else { return true };
    // SAFETY: an element of the map, one word, written whole by user space.
    let beat = unsafe { core::ptr::read_volatile(&raw const (*control).heartbeat_ns) };
    now > beat && now - beat > HEARTBEAT_TIMEOUT_NS
}

#[inline(always)]
fn flow_key<const DIRECTION: u8>(packet: &Packet, end: &End) -> FlowKey {
    let outgoing = DIRECTION == DIRECTION_EGRESS;
    FlowKey {
        scope: end.scope(),
        local_address: if outgoing { packet.source } else { packet.destination },
        remote_address: if outgoing { packet.destination } else { packet.source },
        local_port: if outgoing { packet.source_port } else { packet.destination_port },
        remote_port: if outgoing { packet.destination_port } else { packet.source_port },
        scope_kind: end.scope_kind,
    }
}

/// Whether user space has said that it does not want this. A SYN is always wanted: it may begin something else.
#[inline(always)]
fn is_unwanted(state: &ConnectionState, key: &FlowKey, facts: &Facts) -> bool {
    if facts.flags & TCP_SYN != 0 || (state.gate != GATE_HTTP && state.gate != GATE_UNKNOWN) {
        return false;
    }
    match VERDICTS.get_ptr(key) {
        // SAFETY: an element of the map that user space replaces whole.
        Some(verdict) => unsafe { &*verdict }.ignores(state.known_generation(), facts.direction),
        None => false,
    }
}

#[inline(always)]
fn judge<const DIRECTION: u8>(
    context: &SkBuffContext,
    packet: &Packet,
    facts: &Facts,
    state: &mut ConnectionState,
    found: Found,
    counters: Counters,
) -> Decision {
    let mut look = state.look(facts);
    if look == Look::None {
        return state.judge_unseen(facts);
    }
    if look == Look::Middle {
        look = found.first_look;
    }
    // Words, not bytes: clearing sixteen bytes would be a call to a loop.
    let mut words = [0_u64; 2];
    let length = within(packet.payload_length, GATE_BYTES as u32);
    // SAFETY: `words` has GATE_BYTES bytes, and length is at most that. An unreadable window stays zero, which begins
    // nothing; the payload is then counted as not HTTP.
    unsafe {
        let to = words.as_mut_ptr().cast();
        bpf_skb_load_bytes(context.skb.skb.cast(), packet.payload_offset, to, length)
    };
    let decision = state.judge(look, &Window::new(words, packet.payload_length));
    if let Some(beginning) = decision.decided {
        let counter = match beginning {
            Beginning::Http => Counter::GateHttp,
            Beginning::Http2 => Counter::GateHttp2,
            Beginning::Tls => Counter::GateTls,
            Beginning::Other => Counter::GateIgnored,
        };
        counters.bump(counter);
        debug!(context, "gate: {} from port {}", counter as u32, packet.source_port);
    }
    decision
}

#[inline(always)]
fn count_matched(facts: &Facts, counters: Counters) {
    counters.bump(Counter::SegmentsMatched);
    counters.add(Counter::BytesMatched, u64::from(facts.payload_length));
}
