//! The clsact way of attaching, for kernels without tcx: a queueing discipline that holds filters, and our filters in it.
//!
//! A filter outlives its program's loader. So each carries its program's name, and one whose program has not been told
//! for long that its agent lives is taken away by whichever agent meets it. Others' filters and disciplines are left
//! alone.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramFd, loaded_programs},
};
use nix::time::{ClockId, clock_gettime};
use pod2pod_common::{control::Control, names};

use super::interfaces_socket::Questions;
use crate::netlink::{Request, attributes, text, u32_at};

/// linux/pkt_sched.h: handle and parent of the clsact discipline, and of the filters at its two hooks.
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// linux/pkt_cls.h.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// Bytes of `struct tcmsg`.
const TC_BODY: usize = 20;

/// Priorities to try, lowest number first to run: before those that tc gives by itself (49152 and below) and whose verdict
/// would end the chain, but none of the small round ones that people and network plugins choose (1, 2, 10, 100).
const PRIORITIES: std::ops::RangeInclusive<u16> = 7..=9;
/// Handles to try at a priority: one for each agent of the interface.
const HANDLES: std::ops::RangeInclusive<u32> = 0x7032_0001..=0x7032_0010;

/// An agent that has not said for so long that it lives is dead, whatever keeps the machine busy. Its programs have returned
/// at once for most of that time.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(10);

/// Where packets are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// They come in from the wire, or out of the pod behind.
    Ingress,
    /// They go out to it.
    Egress,
}

impl Hook {
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => CLSACT_INGRESS,
            Self::Egress => CLSACT_EGRESS,
        }
    }
}

/// A filter in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    interface: u32,
    hook: Hook,
    priority: u16,
    handle: u32,
}

impl Filter {
    /// Puts `program` at a hook of an interface that has the discipline.
    pub(super) fn add(
        questions: &mut Questions,
        interface: u32,
        hook: Hook,
        program: &ProgramFd,
        name: &str,
    ) -> io::Result<Self> {
        let number = program.as_fd().as_raw_fd();
        let mut refused = io::Error::from_raw_os_error(libc::EEXIST);
        for priority in PRIORITIES {
            for handle in HANDLES {
                let filter = Self { interface, hook, priority, handle };
                match questions.ask(filter.addition(number, name), |_| {}) {
                    Ok(()) => return Ok(filter),
                    // Another agent's.
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => refused = error,
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(error),
                    // The priority is of another kind of filter.
                    Err(error) => {
                        refused = error;
                        break;
                    }
                }
            }
        }
        Err(refused)
    }

    /// Takes it away; nothing is to be done if it is gone, with its interface or without.
    pub(super) fn remove(&self, questions: &mut Questions) {
        let request = Request::new(libc::RTM_DELTFILTER, libc::NLM_F_ACK, &self.body());
        let _ = questions.ask(request, |_| {});
    }

    fn addition(&self, program: i32, name: &str) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let name = [name.as_bytes(), b"\0"].concat();
        Request::new(libc::RTM_NEWTFILTER, flags, &self.body()).with(libc::TCA_KIND, b"bpf\0").with_nested(
            libc::TCA_OPTIONS,
            &[
                (TCA_BPF_FD, &program.to_ne_bytes()),
                (TCA_BPF_NAME, &name),
                (TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
            ],
        )
    }

    fn body(&self) -> [u8; TC_BODY] {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let info = u32::from(self.priority) << 16 | u32::from(protocol);
        tc_body(self.interface, self.handle, self.hook.parent(), info)
    }
}

/// Gives an interface the discipline; whether it had none.
pub(super) fn add_discipline(questions: &mut Questions, interface: u32) -> io::Result<bool> {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let body = tc_body(interface, CLSACT_HANDLE, CLSACT_PARENT, 0);
    let request = Request::new(libc::RTM_NEWQDISC, flags, &body).with(libc::TCA_KIND, b"clsact\0");
    match questions.ask(request, |_| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the discipline away if nobody's filter hangs on it. To be called for one that we added only: what is empty may
/// still be another's, who is about to use it.
pub(super) fn remove_empty_discipline(questions: &mut Questions, interface: u32) {
    let mut empty = true;
    for hook in [Hook::Ingress, Hook::Egress] {
        let told = questions.ask(filters(interface, hook), |_| empty = false);
        empty &= told.is_ok();
    }
    if empty {
        let body = tc_body(interface, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let _ = questions.ask(Request::new(libc::RTM_DELQDISC, libc::NLM_F_ACK, &body), |_| {});
    }
}

/// Takes away what agents that were killed left on an interface; how many filters that were. `own` are the ids of our own
/// programs, which may have been given no heartbeat while this process was stopped.
pub(super) fn remove_stale(questions: &mut Questions, interface: u32, own: &[u32]) -> u64 {
    let mut found = Vec::new();
    for hook in [Hook::Ingress, Hook::Egress] {
        // An interface without the discipline has no filters.
        let _ = questions.ask(filters(interface, hook), |message| {
            found.extend(ours(interface, hook, message.body));
        });
    }
    found.retain(|(_, program)| !own.contains(program) && is_abandoned(*program));
    for (filter, _) in &found {
        filter.remove(questions);
    }
    found.len() as u64
}

fn filters(interface: u32, hook: Hook) -> Request {
    let body = tc_body(interface, 0, hook.parent(), 0);
    Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &body)
}

/// The filter of an RTM_NEWTFILTER body and its program's id, if it is an agent's.
fn ours(interface: u32, hook: Hook, body: &[u8]) -> Option<(Filter, u32)> {
    let (handle, info) = (u32_at(body, 8)?, u32_at(body, 16)?);
    let mut options = attributes(body.get(TC_BODY..)?).filter(|(kind, _)| *kind == libc::TCA_OPTIONS);
    let (_, options) = options.next()?;
    let find = |wanted| attributes(options).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let name = text(find(TCA_BPF_NAME)?);
    let known = [names::PROGRAM_TC_INGRESS, names::PROGRAM_TC_EGRESS].contains(&name.as_str());
    let filter = Filter { interface, hook, priority: (info >> 16) as u16, handle };
    known.then_some((filter, u32_at(find(TCA_BPF_ID)?, 0)?))
}

/// Whether the program has not heard of its agent for longer than an agent ever needs. What cannot be told is in use.
fn is_abandoned(program: u32) -> bool {
    heartbeat(program)
        .is_some_and(|beat| Duration::from_nanos(monotonic_ns().saturating_sub(beat)) > ABANDONED_AFTER)
}

/// The last heartbeat that a loaded program was given.
fn heartbeat(program: u32) -> Option<u64> {
    let program = loaded_programs().filter_map(Result::ok).find(|loaded| loaded.id() == program)?;
    let maps = program.map_ids().ok()??;
    let is_control =
        |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(names::MAP_CONTROL));
    let map = MapData::from_id(maps.into_iter().find(is_control)?).ok()?;
    let control = Array::<_, Control>::try_from(Map::Array(map)).ok()?.get(&0, 0).ok()?;
    Some(control.heartbeat_ns)
}

fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn tc_body(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; TC_BODY] {
    let mut body = [0; TC_BODY];
    let fields = [interface, handle, parent, info];
    for (place, byte) in body.iter_mut().skip(4).zip(fields.iter().flat_map(|field| field.to_ne_bytes())) {
        *place = byte;
    }
    body
}
