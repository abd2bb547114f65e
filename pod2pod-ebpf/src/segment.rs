//! One packet: is it TCP with something to say, whose connection is it, is it wanted, tell it.
//!
//! Knows no hook: the attachers in `main` say direction and source. Everything is inlined into one
//! function a direction: with calls between functions, Linux 5.10 takes every number for precise and walks millions of
//! states.

use core::{arch::asm, hint::cold_path, ptr};

use aya_ebpf::{
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use aya_log_ebpf::debug;
use pod2pod_common::{
    blur,
    counters::Counter,
    flow::{ConnectionState, FlowKey, GATE_OWN, GATE_UNKNOWN, GATE_UNWANTED, SCOPE_COOKIE, SCOPE_INTERFACE},
    gate::{Decision, Facts, Look},
    heads::{Beginning, Window},
    limits::{GATE_BYTES, HEARTBEAT_TIMEOUT_NS},
    portion::Portion,
    segment::{DIRECTION_EGRESS, SOURCE_TC, TCP_SYN},
};

use crate::{
    connection::{self, Found},
    count::Counters,
    emit::{Telling, within},
    headers::{self, Address, Packet},
    icmp, link,
    maps::{CONTROL, OWN_SOCKETS, SCOPE_KIND, VERDICT_EPOCH, VERDICTS},
    tunnel,
};

/// cgroup_skb hands out packets from their network header on.
const CGROUP_NETWORK_OFFSET: u32 = 0;

/// Looks at one packet and tells user space what it has to know. Never touches the packet.
#[inline(always)]
pub(crate) fn observe<const DIRECTION: u8, const SOURCE: u8>(context: &SkBuffContext) {
    let Some(counters) = Counters::of_this_cpu() else { return };
    counters.bump(Counter::PacketsSeen);
    counters.add(Counter::BytesSeen, u64::from(context.len()));
    let network = match SOURCE {
        SOURCE_TC => {
            link::network_offset(context).and_then(|offset| tunnel::innermost(context, offset, counters))
        }
        _ => Ok(CGROUP_NETWORK_OFFSET),
    };
    let packet = match network.and_then(|offset| headers::parse(context, offset)) {
        Ok(packet) => packet,
        Err(reason) => {
            if reason == Counter::NotTcp
                && let Ok(offset) = network
                && icmp::tell::<DIRECTION, SOURCE>(context, offset, counters)
            {
                return;
            }
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
    // Of an IPv6 packet the addresses are told too: the verifier would walk all that is between once for each version.
    let packet = Packet { ip_version: blur::number(u32::from(packet.ip_version)) as u8, ..packet };
    // Not before: reading the clock takes longer than the headers.
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(shed_level) = shed_level(now) else {
        counters.bump(Counter::HeartbeatStale);
        return;
    };
    // SAFETY: the helpers take the context that the program was given.
    let (cookie, cgroup) =
        unsafe { (bpf_get_socket_cookie(context.skb.skb.cast()), bpf_skb_cgroup_id(context.skb.skb)) };
    // SAFETY: the context that the program was given.
    let interface = unsafe { (*context.skb.skb).ifindex };
    let scope_kind = if SOURCE == SOURCE_TC { SCOPE_INTERFACE } else { SCOPE_KIND.load() };
    let end = End { now, cookie, cgroup, interface, scope_kind, shed_level };
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
    /// `SHED_*`.
    pub(crate) shed_level: u32,
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
    if facts.flags & TCP_SYN != 0 && is_own(end) {
        connection::insert_own(&mut key, facts, counters);
        counters.bump(Counter::OwnTraffic);
        return;
    }
    let mut portion = Portion::NONE;
    let mut state = ptr::null_mut();
    if let Some(found) = connection::find_or_insert(&mut key, facts, counters) {
        let sifted = sift::<DIRECTION>(context, packet, facts, end, &mut key, found, counters);
        let Some((told, own)) = sifted else { return };
        portion = told;
        state = own;
    } else {
        counters.add(Counter::BytesUnreadable, u64::from(facts.payload_length));
    }
    count_matched(facts, counters);
    Telling { context, counters, packet, facts, end, key: &key, state }.tell(&portion);
}

/// What is told of a segment whose connection was found, and that connection; absent if nothing is, which is counted.
#[inline(always)]
fn sift<const DIRECTION: u8>(
    context: &SkBuffContext,
    packet: &Packet,
    facts: &Facts,
    end: &End,
    key: &mut FlowKey,
    found: Found,
    counters: Counters,
) -> Option<(Portion, *mut ConnectionState)> {
    // SAFETY: an element of the map; others may write it at once, see `ConnectionState`.
    let state = unsafe { &mut *found.state };
    // Before a look-up: a verdict that is written after it is of a later epoch.
    let epoch = verdict_epoch();
    if !found.linked && state.passes(facts, epoch, end.shed_level) {
        state.note(facts, end.now);
        return Some((forgotten(Portion::whole(facts)), found.state));
    }
    cold_path();
    // Every way to the connection leads on from here as one.
    let facts = &facts.anew();
    let found =
        Found { linked: blur::flag(found.linked), hidden: blur::flag(found.hidden), state: found.state };
    state.follow(facts);
    let facts = &facts.anew();
    // A socket that was registered after its handshake.
    if state.gate == GATE_UNKNOWN && is_own(end) {
        state.gate = GATE_OWN;
    }
    let fate = decide::<DIRECTION>(context, packet, facts, end, key, state, found, epoch, counters);
    state.note(facts, end.now);
    let own = connection::settle(key, found, counters);
    let payload = u64::from(facts.payload_length);
    let (segments, bytes) = match fate {
        Fate::Own => {
            counters.bump(Counter::OwnTraffic);
            return None;
        }
        Fate::Told(portion) => return Some((portion, own)),
        Fate::NotHttp if facts.steers() => {
            counters.add(Counter::BytesNotHttp, payload);
            return Some((Portion::NONE, own));
        }
        Fate::NotHttp => (Counter::SegmentsNotHttp, Counter::BytesNotHttp),
        Fate::Shed => (Counter::SegmentsShedConnections, Counter::BytesShedConnections),
        Fate::Unwanted => (Counter::SegmentsUnwanted, Counter::BytesUnwanted),
        Fate::Skipped => (Counter::SegmentsSkipped, Counter::BytesSkipped),
    };
    count_matched(facts, counters);
    counters.bump(segments);
    counters.add(bytes, payload);
    None
}

/// Whether it is a socket of the agent's.
#[inline(always)]
fn is_own(end: &End) -> bool {
    end.cookie != 0 && OWN_SOCKETS.get_ptr(end.cookie).is_some()
}

/// What becomes of a segment.
enum Fate {
    /// It is the agent's own.
    Own,
    /// Its connection began under overload.
    Shed,
    /// User space does not want its connection.
    Unwanted,
    /// User space does not want what it carries.
    Skipped,
    /// The payload is not HTTP; the segment is told without it if it steers.
    NotHttp,
    /// It is told.
    Told(Portion),
}

#[expect(clippy::too_many_arguments, reason = "inlined: a struct of references would be built on the stack")]
#[inline(always)]
fn decide<const DIRECTION: u8>(
    context: &SkBuffContext,
    packet: &Packet,
    facts: &Facts,
    end: &End,
    key: &mut FlowKey,
    state: &mut ConnectionState,
    found: Found,
    epoch: u16,
    counters: Counters,
) -> Fate {
    if state.gate == GATE_OWN {
        return Fate::Own;
    }
    if state.shed(end.shed_level) {
        counters.bump(Counter::ConnectionsShed);
    }
    if state.is_shed(facts, end.shed_level) {
        return Fate::Shed;
    }
    if state.is_unwanted(facts) {
        return Fate::Unwanted;
    }
    let mut decision = judge::<DIRECTION>(context, packet, facts, state, found, counters);
    decision.marks = blur::number(u32::from(decision.marks)) as u8;
    if !blur::flag(decision.payload) {
        return Fate::NotHttp;
    }
    let mut verdict = None;
    if state.heeds_verdict(facts, epoch) {
        key.scope = after(epoch, key.scope);
        let key: &FlowKey = key;
        // SAFETY: an element of the map that user space replaces whole.
        verdict = VERDICTS.get_ptr(key).map(|verdict| unsafe { &*verdict });
        if verdict.is_none() {
            state.heeded_epoch = epoch;
        }
    }
    if let Some(verdict) = verdict {
        if verdict.ignores_all(state.known_generation()) {
            state.gate = GATE_UNWANTED;
            counters.bump(Counter::GateUnwanted);
            return Fate::Unwanted;
        }
        if verdict.ignores(state.known_generation(), facts.direction) {
            return Fate::Unwanted;
        }
    }
    let portion = state.portion(facts, verdict, end.shed_level);
    if verdict.is_some_and(|verdict| state.takes(verdict)) {
        state.heeded_epoch = epoch;
    }
    if portion.silent {
        return Fate::Skipped;
    }
    Fate::Told(forgotten(Portion { marks: portion.marks | decision.marks, ..portion }))
}

/// The portion without what the verifier knows of it: telling is walked once.
#[inline(always)]
fn forgotten(portion: Portion) -> Portion {
    Portion {
        captured: blur::number(portion.captured),
        skipped: blur::number(portion.skipped),
        marks: blur::number(u32::from(portion.marks)) as u8,
        wakes: blur::flag(portion.wakes),
        ..portion
    }
}

/// `scope`, which cannot be used before the epoch was read: some processors would look into the table of verdicts first, find
/// none that was written between, and note an epoch in which there was one. They wait for what an address is made of (Arm
/// Architecture Reference Manual, B2.3.3), and a key is what the place in the table is made of. User space writes in order too.
#[inline(always)]
fn after(epoch: u16, mut scope: u64) -> u64 {
    let nothing = u64::from(epoch);
    // SAFETY: arithmetic on two registers, which changes neither memory nor the scope.
    unsafe { asm!("{0} &= 0", "{1} |= {0}", inout(reg) nothing => _, inout(reg) scope) };
    scope
}

/// The epoch of verdicts.
#[inline(always)]
fn verdict_epoch() -> u16 {
    // SAFETY: an element of the map, which user space writes whole.
    VERDICT_EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { ptr::read_volatile(epoch) }) as u16
}

/// How much is shed; absent if the agent has not been heard of for so long that it is stopped or dead.
#[inline(always)]
pub(crate) fn shed_level(now: u64) -> Option<u32> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: an element of the map, each word of which user space writes whole.
    let (beat, level) = unsafe {
        (
            ptr::read_volatile(&raw const (*control).heartbeat_ns),
            ptr::read_volatile(&raw const (*control).shed_level),
        )
    };
    if now > beat && now - beat > HEARTBEAT_TIMEOUT_NS { None } else { Some(level) }
}

#[inline(always)]
fn flow_key<const DIRECTION: u8>(packet: &Packet, end: &End) -> FlowKey {
    let outgoing = DIRECTION == DIRECTION_EGRESS;
    FlowKey {
        scope: end.scope(),
        local_address: address_bytes(if outgoing { packet.source } else { packet.destination }),
        remote_address: address_bytes(if outgoing { packet.destination } else { packet.source }),
        local_port: if outgoing { packet.source_port } else { packet.destination_port },
        remote_port: if outgoing { packet.destination_port } else { packet.source_port },
        scope_kind: end.scope_kind,
    }
}

/// An address as a key has it.
#[inline(always)]
pub(crate) const fn address_bytes([first, last]: Address) -> [u8; 16] {
    ((first.to_be() as u128) << 64 | last.to_be() as u128).to_be_bytes()
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
    if look == Look::Middle && found.hidden {
        look = Look::Joined;
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
