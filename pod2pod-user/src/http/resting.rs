//! Connections between exchanges: most are, most of the time, and of such a one a few words say all.
//!
//! A connection that speaks is a [`Flow`]; once nothing of it is open or half read, and others spoke since, it is put away
//! as [`Resting`] and made a flow again by its next bytes. What is told does not depend on it.

use std::{collections::VecDeque, net::SocketAddr};

use super::{
    Shared,
    exchange::Outcome,
    fields::Upgrade,
    flow::{Flow, Speech},
    pairing::Pairing,
    reader::{Phase, Reader},
};
use crate::{
    capture::KernelInstant,
    reassembly::{Connection, ConnectionToken, Side},
};

/// Flows that stay though nothing of them is open, so that a few busy connections are never put away: as many as wrk and
/// its like open.
pub(super) const MAX_WARM: usize = 256;

/// A connection of the tracker.
#[derive(Debug)]
pub(super) enum State {
    Resting(Resting),
    Busy(Box<Flow>),
}

impl State {
    /// When it wants to be looked at.
    pub(super) fn armed(&self) -> Option<KernelInstant> {
        match self {
            Self::Resting(resting) => (resting.armed != 0).then(|| KernelInstant::from_nanos(resting.armed)),
            Self::Busy(flow) => flow.armed(),
        }
    }
}

/// What is kept of a connection that rests.
#[derive(Debug)]
pub(super) struct Resting {
    proxied: Option<Box<(SocketAddr, SocketAddr)>>,
    /// Nanoseconds; 0: not armed.
    armed: u64,
    next_index: Option<u32>,
    speech: Speech,
    client: Option<Side>,
    upgrade: Option<Upgrade>,
    foreign_sides: u8,
    tls: bool,
    socks: bool,
    pipelined: bool,
    /// Requests may be outstanding that were not seen.
    may_lack: bool,
    keeps_more: bool,
    originator: Place,
    responder: Place,
}

impl Resting {
    /// Nothing is due of it.
    pub(super) const fn disarm(&mut self) {
        self.armed = 0;
    }
}

/// Where a reader is that has nothing in its hands.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: At,
    opening: bool,
    torn: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Opening,
    Head,
    Lost,
}

impl Place {
    /// Absent if the reader is in the midst of something.
    fn of(reader: &Reader) -> Option<Self> {
        let at = match reader.phase {
            Phase::Opening => At::Opening,
            Phase::Head => At::Head,
            Phase::Lost => At::Lost,
            Phase::Length(_)
            | Phase::Chunked(_)
            | Phase::UntilClose
            | Phase::Skip(_)
            | Phase::Unframed(_) => return None,
        };
        let idle = reader.buffer.is_empty() && !reader.begun && !reader.offers_skip;
        idle.then_some(Self { at, opening: reader.opening, torn: reader.torn })
    }

    fn put_into(self, reader: &mut Reader) {
        reader.phase = match self.at {
            At::Opening => Phase::Opening,
            At::Head => Phase::Head,
            At::Lost => Phase::Lost,
        };
        reader.opening = self.opening;
        reader.torn = self.torn;
    }
}

impl Flow {
    /// What says all of it; absent while something of it is open or half read.
    fn resting(&self) -> Option<Resting> {
        let foreign = self.speech == Speech::Foreign || self.foreign_bytes == 0;
        let originator = Place::of(&self.originator).filter(|_| foreign)?;
        let responder = Place::of(&self.responder)?;
        let may_lack = self.pairing.rests()?;
        Some(Resting {
            proxied: self.proxied.map(Box::new),
            armed: self.armed.map_or(0, KernelInstant::as_nanos),
            next_index: self.pairing.next_index,
            speech: self.speech,
            client: self.client,
            upgrade: self.upgrade,
            foreign_sides: self.foreign_sides,
            tls: self.tls,
            socks: self.socks,
            pipelined: self.pairing.pipelined,
            may_lack,
            keeps_more: self.keeps_more,
            originator,
            responder,
        })
    }

    /// Whether nothing of it is open or half read.
    fn rests(&self) -> bool {
        self.pairing.rests().is_some()
            && (self.speech == Speech::Foreign || self.foreign_bytes == 0)
            && Place::of(&self.originator).is_some()
            && Place::of(&self.responder).is_some()
    }

    fn wake(&mut self, resting: &Resting) {
        self.proxied = resting.proxied.as_deref().copied();
        self.armed = (resting.armed != 0).then(|| KernelInstant::from_nanos(resting.armed));
        self.speech = resting.speech;
        self.upgrade = resting.upgrade;
        self.foreign_sides = resting.foreign_sides;
        self.tls = resting.tls;
        self.socks = resting.socks;
        self.pairing = Pairing::woken(resting.next_index, resting.pipelined, resting.may_lack);
        self.keeps_more = resting.keeps_more;
        if let Some(client) = resting.client {
            self.is_client(client);
        }
        resting.originator.put_into(&mut self.originator);
        resting.responder.put_into(&mut self.responder);
    }

    /// Gives up what is open, for there is no room to follow it: messages of both sides may be missing from here on.
    fn give_up(&mut self, time: KernelInstant, shared: &mut Shared) {
        for side in [Side::Originator, Side::Responder] {
            self.give_up_unframed(side, time, shared);
            self.forget_head(side, shared);
            self.reader(side).offers_skip = false;
        }
        let (pairing, mut teller) = self.split(shared);
        pairing.close(Outcome::Gap, time, &mut teller);
        self.pairing.rest(shared);
        self.pairing = Pairing::new(true, true);
    }
}

/// Flows in use, and those to be used again.
#[derive(Debug, Default)]
pub(super) struct Nursery {
    /// Connections that are flows.
    busy: usize,
    #[expect(clippy::vec_box, reason = "a box is moved between here and a state, its flow is not")]
    spare: Vec<Box<Flow>>,
    /// Connections that were seen to rest, longest ago first; some have spoken or ended since.
    warm: VecDeque<ConnectionToken>,
}

impl Nursery {
    /// A flow for a connection that is new, of whose bodies more is kept or not.
    pub(super) fn begin(&mut self, connection: &Connection, keeps_more: bool) -> State {
        self.busy += 1;
        let mut new = Flow::new(connection);
        new.keeps_more = keeps_more;
        match self.spare.pop() {
            Some(mut flow) => {
                *flow = new;
                State::Busy(flow)
            }
            None => State::Busy(Box::new(new)),
        }
    }

    /// The flow of a connection that speaks.
    pub(super) fn wake<'a>(&mut self, state: &'a mut State, connection: &Connection) -> Option<&'a mut Flow> {
        if let State::Resting(_) = state {
            let resting = std::mem::replace(state, self.begin(connection, false));
            if let (State::Busy(flow), State::Resting(resting)) = (&mut *state, &resting) {
                flow.wake(resting);
            }
        }
        match state {
            State::Busy(flow) => Some(flow),
            State::Resting(_) => None,
        }
    }

    /// A flow is not needed any more.
    pub(super) fn end(&mut self, flow: Box<Flow>) {
        self.busy -= 1;
        if self.spare.len() < MAX_WARM {
            self.spare.push(flow);
        }
    }

    /// Notes that a flow has taken a chunk; the connection that is to be put away for it, if it rests.
    pub(super) fn spoke(&mut self, token: ConnectionToken, flow: &mut Flow) -> Option<ConnectionToken> {
        if flow.warm || !flow.rests() {
            return None;
        }
        flow.warm = true;
        self.warm.push_back(token);
        if self.warm.len() > MAX_WARM { self.warm.pop_front() } else { None }
    }

    /// Puts a connection away if it rests.
    pub(super) fn put_away(&mut self, state: &mut State) {
        let State::Busy(flow) = state else { return };
        flow.warm = false;
        if let Some(resting) = flow.resting()
            && let State::Busy(flow) = std::mem::replace(state, State::Resting(resting))
        {
            self.end(flow);
        }
    }

    /// The connection that rests longest.
    pub(super) fn pop_warm(&mut self) -> Option<ConnectionToken> {
        self.warm.pop_front()
    }

    /// Whether there are more flows than `most`.
    pub(super) const fn is_over(&self, most: usize) -> bool {
        self.busy > most
    }

    /// Gives up what is open of a connection, and puts it away.
    pub(super) fn give_up(&mut self, state: &mut State, time: KernelInstant, shared: &mut Shared) {
        if let State::Busy(flow) = state {
            shared.stats.flows_no_memory += 1;
            flow.give_up(time, shared);
            self.put_away(state);
        }
    }
}
