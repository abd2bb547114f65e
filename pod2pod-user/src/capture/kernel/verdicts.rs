//! What user space tells the kernel of connections, and asks it: one map value a connection, written here only.
//!
//! Decides nothing about traffic: reassembly says what is wanted. A value is always written whole, so one write carries
//! skip, credit and ignore of both directions. What is over is taken out again: a verdict of an old generation holds for no
//! other, but takes a place in the table.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{Ordering, fence},
    },
};

use aya::maps::{Array, HashMap, MapData};
use aya_obj::generated::BPF_EXIST;
use pod2pod_common::{
    flow::{ConnectionState, FlowKey, GATE_UNWANTED, SCOPE_COOKIE, SCOPE_INTERFACE},
    segment::{DIRECTION_EGRESS, DIRECTION_INGRESS},
    verdict::{ACTION_CREDIT, ACTION_IGNORE, ACTION_SKIP, Verdict, next_epoch},
};

use super::Stats;
use crate::{
    capture::KernelInstant,
    reassembly::{Activity, Connection, Course, Side, Steering, Wanted},
};

/// The maps of connections.
pub(super) struct Verdicts {
    pub(super) verdicts: HashMap<MapData, FlowKey, Verdict>,
    pub(super) connections: HashMap<MapData, FlowKey, ConnectionState>,
    pub(super) epoch: Epoch,
    /// `SCOPE_*` of every key.
    pub(super) scope_kind: u32,
}

/// The epoch of verdicts, which all workers move on: the kernel looks for a verdict that it did not
/// find, or has taken whole, only in another.
#[derive(Clone)]
pub(super) struct Epoch(Arc<Mutex<(Array<MapData, u32>, u16)>>);

impl Epoch {
    /// The epoch before the first.
    pub(super) fn new(map: Array<MapData, u32>) -> Self {
        Self(Arc::new(Mutex::new((map, 0))))
    }

    /// Begins the next epoch, after a verdict was written.
    fn advance(&self) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, epoch) = &mut *shared;
        // The kernel side must not see the epoch before the verdict; a lock that the kernel gave back between is no such order.
        fence(Ordering::Release);
        *epoch = next_epoch(*epoch);
        // The map has one element, which is there from the beginning: this cannot fail.
        let _ = map.set(0, u32::from(*epoch), 0);
    }
}

impl Verdicts {
    /// Tells the kernel what is wanted of a connection.
    pub(super) fn write(&mut self, steering: &Steering, stats: &mut Stats) {
        for local in self.ends(&steering.connection) {
            let mut steering = *steering;
            steering.connection.local = Some(local);
            self.write_of_end(&steering, stats);
        }
        if !matches!(steering.wanted, Wanted::Over) {
            self.epoch.advance();
        }
    }

    fn write_of_end(&mut self, steering: &Steering, stats: &mut Stats) {
        let Some(key) = key_of(&steering.connection, self.scope_kind) else { return };
        let Some(verdict) = verdict_of(steering) else {
            // The table may have had to forget it before.
            stats.verdicts_deleted += u64::from(self.verdicts.remove(&key).is_ok());
            return;
        };
        match self.verdicts.insert(key, verdict, 0) {
            Ok(()) => {
                stats.verdicts_written += 1;
                let skips = verdict.action.iter().any(|action| action & ACTION_SKIP != 0);
                stats.skips_written += u64::from(skips);
            }
            Err(_) => stats.verdicts_refused += 1,
        }
    }

    /// Nothing is said of a socket end any more, and the kernel looks at it as at one that it has just met.
    pub(super) fn meet_anew(&mut self, end: &FlowKey) {
        // First: a segment that comes between would take it for unwanted again.
        let _ = self.verdicts.remove(end);
        if let Ok(state) = self.connections.get(end, 0)
            && state.gate == GATE_UNWANTED
        {
            // What the kernel writes at this moment is lost: the next segment says it again. It may be gone by now, too.
            let _ = self.connections.insert(*end, state.anew(), u64::from(BPF_EXIST));
        }
    }

    /// How a connection stands: the kernel sees also what it does not send. Absent if it has forgotten it.
    pub(super) fn activity(&self, connection: &Connection) -> Option<Activity> {
        self.ends(connection).find_map(|local| {
            let connection = Connection { local: Some(local), ..*connection };
            let key = key_of(&connection, self.scope_kind)?;
            activity_of(&connection, &self.connections.get(&key, 0).ok()?)
        })
    }

    /// The ends by which the kernel may have filed a connection: the observed one. On an interface where neither is, the
    /// kernel takes the one for it whose packets go out there; which that is, user space does not know.
    fn ends(&self, connection: &Connection) -> impl Iterator<Item = Side> + use<> {
        let on_path = connection.local.is_none() && self.scope_kind == SCOPE_INTERFACE;
        let either = [Side::Originator, Side::Responder].into_iter().filter(move |_| on_path);
        connection.local.into_iter().chain(either)
    }
}

/// How a connection stands by what the kernel keeps of it; absent if it was seen on a path.
pub fn activity_of(connection: &Connection, state: &ConnectionState) -> Option<Activity> {
    let local = connection.local?;
    let [ingress, egress] = state.next_sequence;
    let of = |side| Some(if side == local { egress } else { ingress });
    let last = KernelInstant::from_nanos(state.last_time_ns);
    Some(Activity { last, next: [of(Side::Originator), of(Side::Responder)] })
}

/// The key under which the kernel files the observed end.
fn key_of(connection: &Connection, scope_kind: u32) -> Option<FlowKey> {
    let local = connection.local?;
    let (near, far) = (connection.address(local), connection.address(local.other()));
    Some(FlowKey {
        scope: if scope_kind == SCOPE_COOKIE { connection.socket_cookie } else { connection.scope.0 },
        local_address: octets(near),
        remote_address: octets(far),
        local_port: near.port(),
        remote_port: far.port(),
        scope_kind,
    })
}

/// The verdict that says what `steering` says; none if there is nothing to say any more.
pub fn verdict_of(steering: &Steering) -> Option<Verdict> {
    let mut verdict = Verdict {
        generation: steering.generation.unwrap_or(0),
        until_sequence: [0; 2],
        read_sequence: [0; 2],
        action: [0; 2],
        any_generation: u8::from(steering.generation.is_none()),
        reserved: 0,
    };
    match steering.wanted {
        Wanted::Over => return None,
        Wanted::Nothing => verdict.action = [ACTION_IGNORE; 2],
        Wanted::Both([originator, responder]) => {
            let by_originator = steering.connection.local == Some(Side::Originator);
            let (sent, received) =
                if by_originator { (originator, responder) } else { (responder, originator) };
            set(&mut verdict, DIRECTION_EGRESS, sent);
            set(&mut verdict, DIRECTION_INGRESS, received);
        }
    }
    Some(verdict)
}

fn set(verdict: &mut Verdict, direction: u8, course: Course) {
    let Verdict { until_sequence, read_sequence, action, .. } = verdict;
    let at = usize::from(direction);
    if let (Some(slot), Some(action), Some(read)) =
        (read_sequence.get_mut(at), action.get_mut(at), course.read)
    {
        *slot = read;
        *action |= ACTION_CREDIT;
    }
    if let (Some(slot), Some(action), Some(until)) =
        (until_sequence.get_mut(at), action.get_mut(at), course.until)
    {
        *slot = until;
        *action |= ACTION_SKIP;
    }
}

fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
