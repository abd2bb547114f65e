//! One SYN's way through IPVS: noted at the look-up, completed by what the hook does, told at the hook's end.
//!
//! Who is noted is found by the stack that the hook runs on. A note that is still there when the hook is entered anew at the same
//! depth was left behind by a probe that was missed: it is counted as lost.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64},
    programs::{ProbeContext, RetProbeContext},
};
use pod2pod_common::{
    decision::{
        DecisionCounter, DecisionRecord, ENTRY_TEMPLATE, Field, Outcome, SEEN_CONTROLLED, SEEN_EXPIRED,
        SEEN_LOOKED, SEEN_MADE, SEEN_MADE_SERVER, SEEN_MET, SEEN_MET_SERVER, SEEN_NO_SERVER, SEEN_REPEATED,
        outcome,
    },
    segment::{TCP_ACK, TCP_RST, TCP_SYN},
};

use crate::{
    count::bump,
    maps::{DECISIONS, NAMESPACE, PENDING, Pending, TELL_ALL},
    memory::{address, bytes, number, place},
    repeated,
    stack::Place,
};

/// linux/in.h.
const TCP: u16 = 6;
/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// A packet is looked up: if it is a SYN of the namespace watched, it is noted.
#[inline(always)]
pub(crate) fn look_up(context: &ProbeContext) {
    let here = Place::of(context.regs);
    forget_what_is_over(here);
    let (Some(instance), Some(family), Some(packet), Some(header)) =
        (context.arg::<u64>(0), context.arg::<u64>(1), context.arg::<u64>(2), context.arg::<u64>(3))
    else {
        return;
    };
    if number::<u16>(header, Field::HeaderProtocol) != TCP
        || number::<u16>(header, Field::HeaderFragment) != 0
        // Quoted in an ICMP message.
        || number::<u32>(header, Field::HeaderFlags) != 0
    {
        return;
    }
    let offset = number::<u32>(header, Field::HeaderLength);
    let linear = number::<u32>(packet, Field::PacketLength)
        .wrapping_sub(number::<u32>(packet, Field::PacketDataLength));
    if linear < offset.wrapping_add(TCP_HEADER) {
        bump(DecisionCounter::Unreadable);
        return;
    }
    let mut tcp = [0_u8; TCP_HEADER as usize];
    bytes(number::<u64>(packet, Field::PacketData).wrapping_add(u64::from(offset)), &mut tcp);
    if tcp[13] & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN {
        return;
    }
    let namespace = number::<u32>(number::<u64>(instance, Field::InstanceNamespace), Field::NamespaceInode);
    if NAMESPACE.load() != 0 && NAMESPACE.load() != namespace {
        return;
    }
    bump(DecisionCounter::Syns);
    // SAFETY: the helper reads a clock.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let mut record = DecisionRecord {
        time_ns,
        namespace,
        isn: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        client_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        service_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        ..DecisionRecord::default()
    };
    address(place(header, Field::HeaderSource), family as u16, &mut record.client);
    address(place(header, Field::HeaderDestination), family as u16, &mut record.service);
    // One that is not over has been interrupted by this one, on its own stack.
    if noted(here).is_some() {
        bump(DecisionCounter::Lost);
    }
    let pending = Pending { stack: here.address(), packet, family, entry: 0, made: 0, record };
    if PENDING.insert(here.stack(), pending, 0).is_err() {
        bump(DecisionCounter::Lost);
    }
}

/// The SYN that is on its way on this stack.
#[inline(always)]
fn noted(here: Place) -> Option<&'static mut Pending> {
    let pending = PENDING.get_ptr_mut(here.stack())?;
    // SAFETY: an element of the map; only programs on this stack write to it, one after the other.
    Some(unsafe { &mut *pending })
}

/// A note that an earlier packet left on this stack, at this depth or a greater one, will not be completed.
#[inline(always)]
fn forget_what_is_over(here: Place) {
    if noted(here).is_some_and(|pending| here.is_past(pending.stack)) {
        bump(DecisionCounter::Lost);
        let _ = PENDING.remove(here.stack());
    }
}

/// The look-up is over: the entry that it found, if any, as it is before the SYN.
#[inline(always)]
pub(crate) fn found(context: &RetProbeContext) {
    let here = Place::of(context.regs);
    let Some(pending) = noted(here) else { return };
    if pending.record.seen & SEEN_LOOKED != 0 || !here.is_return_of(pending.stack) {
        return;
    }
    pending.record.seen |= SEEN_LOOKED;
    let entry: u64 = context.ret();
    if entry == 0 {
        return;
    }
    pending.entry = entry;
    let record = &mut pending.record;
    record.seen |= SEEN_MET;
    record.state = number(entry, Field::EntryState);
    record.entry_flags = number(entry, Field::EntryFlags);
    record.timeout = number(entry, Field::EntryTimeout);
    record.left = left(entry);
    if number::<u64>(entry, Field::EntryControl) != 0 {
        record.seen |= SEEN_CONTROLLED;
    }
    let server = server_of(entry, &mut record.met_port, &mut record.met_server);
    if server != 0 {
        record.seen |= SEEN_MET_SERVER;
        record.met_weight = number::<u32>(server, Field::ServerWeight) as i32;
        record.met_flags = number(server, Field::ServerFlags);
    }
}

/// An entry's time is ended: is it the one that was found?
#[inline(always)]
pub(crate) fn expire(context: &ProbeContext) {
    let Some(pending) = noted(Place::of(context.regs)) else { return };
    if pending.entry != 0 && context.arg::<u64>(0) == Some(pending.entry) {
        pending.record.seen |= SEEN_EXPIRED;
    }
}

/// An entry was made: is it for the SYN? Templates are not, nor are those of packets that came meanwhile.
#[inline(always)]
pub(crate) fn make(context: &RetProbeContext) {
    let Some(pending) = noted(Place::of(context.regs)) else { return };
    let entry: u64 = context.ret();
    if entry == 0 || number::<u32>(entry, Field::EntryFlags) & ENTRY_TEMPLATE != 0 {
        return;
    }
    let record = &mut pending.record;
    let mut client = [0; 16];
    address(place(entry, Field::EntryClient), pending.family as u16, &mut client);
    if client != record.client
        || u16::from_be(number(entry, Field::EntryClientPort)) != record.client_port
        || u16::from_be(number(entry, Field::EntryServicePort)) != record.service_port
    {
        return;
    }
    pending.made = entry;
    record.seen |= SEEN_MADE;
    let server = server_of(entry, &mut record.made_port, &mut record.made_server);
    if server != 0 {
        record.seen |= SEEN_MADE_SERVER;
        record.made_weight = number::<u32>(server, Field::ServerWeight) as i32;
    }
}

/// Port and address of an entry's real server, and where that is in its service; 0 if it is in none.
#[inline(always)]
fn server_of(entry: u64, port: &mut u16, server: &mut [u8; 16]) -> u64 {
    *port = u16::from_be(number(entry, Field::EntryServerPort));
    address(place(entry, Field::EntryServer), number(entry, Field::EntryServerFamily), server);
    number(entry, Field::EntryDestination)
}

/// Ticks that an entry has left.
#[inline(always)]
fn left(entry: u64) -> u64 {
    // SAFETY: the helper reads a clock.
    number::<u64>(entry, Field::EntryExpires).wrapping_sub(unsafe { bpf_jiffies64() })
}

/// There is no real server for a packet: is it the SYN?
#[inline(always)]
pub(crate) fn leave(context: &ProbeContext) {
    let Some(pending) = noted(Place::of(context.regs)) else { return };
    if context.arg::<u64>(1) == Some(pending.packet) {
        pending.record.seen |= SEEN_NO_SERVER;
    }
}

/// The hook is over: the decision is known.
#[inline(always)]
pub(crate) fn end(context: &RetProbeContext) {
    let here = Place::of(context.regs);
    let Some(pending) = noted(here) else { return };
    if !here.is_return_of_caller(pending.stack) {
        return;
    }
    let entry = if pending.made == 0 { pending.entry } else { pending.made };
    if entry != 0 {
        pending.record.state_after = number(entry, Field::EntryState);
        pending.record.left_after = left(entry);
    }
    decided(&mut pending.record, context.ret::<u64>() as u32);
    let _ = PENDING.remove(here.stack());
}

/// Counts a decision, and tells it if somebody wants to know.
#[inline(always)]
fn decided(record: &mut DecisionRecord, verdict: u32) {
    record.verdict = verdict;
    if outcome(record) == Outcome::NotOurs {
        bump(DecisionCounter::NotOurs);
        return;
    }
    // Of one that was not seen whole too: sent again, it meets its own entry.
    record.seen |= repeated::note(record);
    let (counter, is_told) = match outcome(record) {
        Outcome::NotOurs => return,
        Outcome::Unseen => {
            bump(DecisionCounter::Lost);
            return;
        }
        // One that is made for a SYN sent again follows one that was dropped.
        Outcome::New => (DecisionCounter::New, record.seen & SEEN_REPEATED != 0),
        Outcome::Repeated => (DecisionCounter::Repeated, false),
        Outcome::Reused => (DecisionCounter::Reused, true),
        Outcome::Rescheduled => (DecisionCounter::Rescheduled, true),
        Outcome::Dropped => (DecisionCounter::Dropped, true),
        Outcome::PassedOn => (DecisionCounter::PassedOn, true),
    };
    bump(counter);
    if !is_told && TELL_ALL.load() == 0 {
        return;
    }
    match DECISIONS.reserve::<DecisionRecord>(0) {
        Some(mut told) => {
            told.write(*record);
            told.submit(0);
        }
        None => bump(DecisionCounter::RingFull),
    }
}
