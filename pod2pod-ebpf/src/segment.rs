//! One packet: read its headers, find its connection, decide, emit. The core shared by all hooks.

use aya_ebpf::{
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id},
    programs::sk_buff::SkBuff,
};
use pod2pod_common::{
    counters::Counter,
    flow::{
        ConnectionState, FlowKey, GATE_HTTP, GATE_IGNORE, GATE_UNKNOWN, SCOPE_CGROUP, SCOPE_COOKIE,
        STATE_LOCAL_IS_CLIENT, STATE_LOST, STATE_SYN_SEEN,
    },
    limits::HEARTBEAT_TIMEOUT_NS,
    segment::{
        DIRECTION_EGRESS, DIRECTION_INGRESS, LAYOUT_VERSION, MARK_CONNECTION_LOST, SegmentHeader, TCP_ACK,
        TCP_FIN, TCP_RST, TCP_SYN,
    },
    verdict::ACTION_IGNORE,
};

use crate::{
    count::{add, count},
    emit::emit,
    gate::{Decision, decide},
    maps::{CONNECTIONS, HEARTBEAT, OWN_SOCKETS, SCOPE_KIND, VERDICTS},
    packet::{Packet, read},
};

/// Where a program is attached.
#[derive(Clone, Copy)]
pub(crate) struct Hook {
    /// `DIRECTION_*`.
    pub(crate) direction: u8,
    /// `SOURCE_*`.
    pub(crate) source: u8,
    /// Offset of the network header in the packet.
    pub(crate) network_header: u32,
}

/// A packet and where it belongs.
struct Sighting {
    packet: Packet,
    hook: Hook,
    now: u64,
    cookie: u64,
    key: FlowKey,
}

/// Looks at one packet. Whatever happens, the packet passes; what happened is counted.
#[inline(always)]
pub(crate) fn observe(skb: &SkBuff, hook: Hook) {
    count(Counter::PacketsSeen);
    add(Counter::BytesSeen, u64::from(skb.len().wrapping_sub(hook.network_header)));
    // SAFETY: no arguments, no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let beat = HEARTBEAT.get(0).copied().unwrap_or(0);
    // A beat "in the future" was stamped on another CPU a moment ago.
    if now > beat && now - beat > HEARTBEAT_TIMEOUT_NS {
        count(Counter::HeartbeatStale);
        return;
    }
    match sight(skb, hook, now) {
        Ok(sighting) => segment(skb, &sighting),
        Err(reason) => count(reason),
    }
}

/// Finds out what packet this is and whose.
#[inline(always)]
fn sight(skb: &SkBuff, hook: Hook, now: u64) -> Result<Sighting, Counter> {
    let packet = read(skb, hook.network_header)?;
    if packet.payload_length == 0 && packet.flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0 {
        return Err(Counter::BareAck);
    }
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(skb.skb.cast()) };
    // SAFETY: the value is only tested for presence.
    if cookie != 0 && unsafe { OWN_SOCKETS.get(cookie) }.is_some() {
        return Err(Counter::OwnTraffic);
    }
    count(Counter::SegmentsMatched);
    add(Counter::BytesMatched, u64::from(packet.payload_length));
    let key = key_of(skb, &packet, hook.direction, cookie);
    Ok(Sighting { packet, hook, now, cookie, key })
}

#[inline(always)]
fn key_of(skb: &SkBuff, packet: &Packet, direction: u8, cookie: u64) -> FlowKey {
    let scope_kind = SCOPE_KIND.load();
    let scope = if scope_kind == SCOPE_COOKIE {
        cookie
    } else {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_cgroup_id(skb.skb) }
    };
    if direction == DIRECTION_EGRESS {
        FlowKey {
            scope,
            local_address: packet.source_address,
            remote_address: packet.destination_address,
            local_port: packet.source_port,
            remote_port: packet.destination_port,
            scope_kind,
        }
    } else {
        FlowKey {
            scope,
            local_address: packet.destination_address,
            remote_address: packet.source_address,
            local_port: packet.destination_port,
            remote_port: packet.source_port,
            scope_kind,
        }
    }
}

/// Judges one segment with payload, SYN, FIN or RST, and sends what is to be sent.
#[inline(always)]
fn segment(skb: &SkBuff, sighting: &Sighting) {
    let pointer = state_of(sighting);
    // SAFETY: a map value, alive for the program's run. Two CPUs may write the two directions of one connection at
    // once: fields are single words, and what a lost update costs is one more look at first bytes.
    let mut state = pointer.map(|pointer| unsafe { &mut *pointer });
    let verdict = match &mut state {
        // The table refused it: a SYN, FIN or RST can still be told, payload cannot be judged.
        None => Ok((Withheld::NotHttp, 0)),
        Some(state) => judge(skb, sighting, state),
    };
    match verdict {
        Ok((withheld, marks)) => send(skb, sighting, state, withheld, marks),
        Err(reason) => {
            if let Some(state) = state {
                state.marks |= STATE_LOST;
            }
            count(reason);
            add(Counter::BytesUnreadable, u64::from(sighting.packet.payload_length));
        }
    }
}

/// Updates the connection's state and says what to do with the payload.
#[inline(always)]
fn judge(skb: &SkBuff, sighting: &Sighting, state: &mut ConnectionState) -> Result<(Withheld, u8), Counter> {
    let packet = &sighting.packet;
    let direction = sighting.hook.direction;
    state.last_time_ns = sighting.now;
    if packet.payload_length == 0 {
        return Ok((Withheld::Nothing, 0));
    }
    let after = packet.sequence.wrapping_add(packet.payload_length);
    if direction == DIRECTION_EGRESS {
        state.next_sequence[usize::from(DIRECTION_EGRESS)] = after;
    } else {
        state.next_sequence[usize::from(DIRECTION_INGRESS)] = after;
    }
    let decision = decide(skb, packet, direction, state)?;
    share_decision(sighting, state);
    Ok(match decision {
        Decision::Send(_) if is_unwanted(&sighting.key, state, direction) => (Withheld::Unwanted, 0),
        Decision::Send(marks) => (Withheld::Nothing, marks),
        Decision::Withhold => (Withheld::NotHttp, 0),
    })
}

/// Why payload is not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Withheld {
    /// It is sent.
    Nothing,
    /// Not HTTP.
    NotHttp,
    /// User space does not want it.
    Unwanted,
}

/// Sends the segment, or the flags of one whose payload is withheld.
#[inline(always)]
fn send(
    skb: &SkBuff,
    sighting: &Sighting,
    state: Option<&mut ConnectionState>,
    withheld: Withheld,
    marks: u8,
) {
    let packet = &sighting.packet;
    let tells_flags = packet.flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0;
    if withheld != Withheld::Nothing {
        let (segments, bytes) = if withheld == Withheld::NotHttp {
            (Counter::SegmentsNotHttp, Counter::BytesNotHttp)
        } else {
            (Counter::SegmentsUnwanted, Counter::BytesUnwanted)
        };
        add(bytes, u64::from(packet.payload_length));
        if !tells_flags {
            return count(segments);
        }
    }
    let mut header = header_of(skb, sighting, marks);
    let mut lost = false;
    if let Some(state) = &state {
        if state.marks & STATE_SYN_SEEN != 0 {
            header.generation = state.generation;
            header.generation_known = 1;
        }
        lost = state.marks & STATE_LOST != 0;
        if lost {
            header.marks |= MARK_CONNECTION_LOST;
        }
    }
    let length = if withheld == Withheld::Nothing { packet.payload_length } else { 0 };
    let result = emit(skb, &mut header, packet.payload_offset, length);
    if let Some(state) = state {
        match result {
            Ok(()) if lost => state.marks &= !STATE_LOST,
            Ok(()) => {}
            Err(()) => state.marks |= STATE_LOST,
        }
    }
}

#[inline(always)]
fn header_of(skb: &SkBuff, sighting: &Sighting, marks: u8) -> SegmentHeader {
    let Sighting { packet, hook, now, cookie, key } = sighting;
    let cgroup_id = if key.scope_kind == SCOPE_CGROUP {
        key.scope
    } else {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_cgroup_id(skb.skb) }
    };
    SegmentHeader {
        time_ns: *now,
        scope: key.scope,
        cgroup_id,
        socket_cookie: *cookie,
        ring_lost: 0,
        local_address: key.local_address,
        remote_address: key.remote_address,
        local_port: key.local_port,
        remote_port: key.remote_port,
        sequence: packet.sequence,
        acknowledgement: packet.acknowledgement,
        payload_length: 0,
        captured_length: 0,
        generation: 0,
        // SAFETY: a field of the program's own context.
        interface_index: unsafe { (*skb.skb).ifindex },
        tcp_flags: packet.flags,
        direction: hook.direction,
        source: hook.source,
        marks,
        version: LAYOUT_VERSION,
        ip_version: packet.ip_version,
        generation_known: 0,
        ring: 0,
        reserved: 0,
    }
}

/// The connection's state, made if there is none. A SYN opens a new generation in it.
#[inline(always)]
fn state_of(sighting: &Sighting) -> Option<*mut ConnectionState> {
    let packet = &sighting.packet;
    let syn = packet.flags & TCP_SYN != 0;
    let key = if syn { handshake_key(sighting) } else { sighting.key };
    if let Some(state) = CONNECTIONS.get_ptr_mut(key) {
        if syn {
            // SAFETY: a map value, alive for the program's run; see `segment` on races.
            reopen(unsafe { &mut *state }, sighting);
        }
        return Some(state);
    }
    if packet.payload_length != 0 && !syn {
        count(Counter::DataWithoutEntry);
    }
    let mut state = ConnectionState {
        last_time_ns: sighting.now,
        generation: 0,
        next_sequence: [0; 2],
        gate: GATE_UNKNOWN,
        marks: 0,
        reserved: 0,
    };
    if syn {
        reopen(&mut state, sighting);
    } else {
        adopt(&mut state, sighting);
    }
    if CONNECTIONS.insert(key, state, 0).is_err() {
        count(Counter::ConnectionsRefused);
        return None;
    }
    count(Counter::ConnectionsInserted);
    CONNECTIONS.get_ptr_mut(key)
}

/// Enters the generation that a SYN or SYN-ACK names. Packets reach the ingress hook before TCP checks them, so the SYN
/// may be forged: a connection known as HTTP stays so, one that was ignored gets another chance.
#[inline(always)]
fn reopen(state: &mut ConnectionState, sighting: &Sighting) {
    let packet = &sighting.packet;
    let answer = packet.flags & TCP_ACK != 0;
    let generation = if answer { packet.acknowledgement.wrapping_sub(1) } else { packet.sequence };
    if state.marks & STATE_SYN_SEEN != 0 && state.generation == generation {
        return;
    }
    let local_is_client = (sighting.hook.direction == DIRECTION_EGRESS) != answer;
    state.generation = generation;
    let kept = state.marks & STATE_LOST;
    state.marks = kept | STATE_SYN_SEEN | if local_is_client { STATE_LOCAL_IS_CLIENT } else { 0 };
    if state.gate == GATE_IGNORE {
        state.gate = GATE_UNKNOWN;
    }
}

/// Where a handshake is remembered. With cookies as scope a server's SYN and SYN-ACK carry the listener's, the rest of
/// the connection the child's: the handshake is kept under cookie 0, where the child's first segment finds it.
#[inline(always)]
fn handshake_key(sighting: &Sighting) -> FlowKey {
    let mut key = sighting.key;
    let answer = sighting.packet.flags & TCP_ACK != 0;
    let local_is_server = (sighting.hook.direction == DIRECTION_INGRESS) != answer;
    if key.scope_kind == SCOPE_COOKIE && local_is_server {
        key.scope = 0;
    }
    key
}

/// Takes over what the handshake of a child socket told, if cookies are the scope.
#[inline(always)]
fn adopt(state: &mut ConnectionState, sighting: &Sighting) {
    if sighting.key.scope_kind != SCOPE_COOKIE {
        return;
    }
    let mut key = sighting.key;
    key.scope = 0;
    // SAFETY: a map value, alive for the program's run, read once.
    if let Some(handshake) = unsafe { CONNECTIONS.get(key) } {
        state.generation = handshake.generation;
        state.marks = handshake.marks & !STATE_LOST;
        state.gate = handshake.gate;
    }
}

/// Tells the handshake's entry what was decided: the request may have come inside the third packet of the handshake,
/// under the listener's cookie.
#[inline(always)]
fn share_decision(sighting: &Sighting, state: &ConnectionState) {
    if sighting.key.scope_kind != SCOPE_COOKIE
        || state.marks & STATE_LOCAL_IS_CLIENT != 0
        || state.marks & STATE_SYN_SEEN == 0
        || sighting.packet.sequence != state.generation.wrapping_add(1)
    {
        return;
    }
    let mut key = sighting.key;
    key.scope = 0;
    if let Some(handshake) = CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: a map value, alive for the program's run; see `segment` on races.
        let handshake = unsafe { &mut *handshake };
        if handshake.generation == state.generation {
            handshake.gate = state.gate;
            handshake.marks |= state.marks & !STATE_LOST;
        }
    }
}

/// Whether user space said that it does not want this direction of this generation.
#[inline(always)]
fn is_unwanted(key: &FlowKey, state: &ConnectionState, direction: u8) -> bool {
    if state.gate != GATE_HTTP {
        return false;
    }
    // SAFETY: a map value, alive for the program's run, read once.
    let Some(verdict) = (unsafe { VERDICTS.get(key) }) else {
        return false;
    };
    let generation_agrees = if state.marks & STATE_SYN_SEEN != 0 {
        verdict.any_generation == 0 && verdict.generation == state.generation
    } else {
        verdict.any_generation != 0
    };
    generation_agrees && {
        let [ingress, egress] = verdict.action;
        let action = if direction == DIRECTION_EGRESS { egress } else { ingress };
        action == ACTION_IGNORE
    }
}
