//! Packets that wait to be written, until the HTTP stage has said what their bytes are.
//!
//! Pure. Of a packet's payload only bytes are shown that were disclosed, at their place, with their value; all others are
//! blank. A packet waits for [`MAX_AGE`], or until the packets behind it need its room; then it goes as it is, so whatever
//! was not understood by then is blank for good. Order is the order of arrival.

use std::{collections::VecDeque, net::SocketAddr, ops::AddAssign, time::Duration};

use hashbrown::HashMap;

use super::{block::Way, cover::COVER, packet::Facts};
use crate::{
    capture::{Direction, KernelInstant, Scope, Segment},
    http::Disclosure,
    reassembly::{Connection, Side, Start},
};

/// Stands for every payload byte that nobody has disclosed.
pub const BLANK: u8 = 0;

/// How long a packet waits: longer than the default time-out of a request, so that what timed out can be named, and
/// than a hole in a stream usually lasts.
pub const MAX_AGE: Duration = Duration::from_secs(15);

/// Packets of one connection that a disclosure is looked for in, the latest ones: a head of the largest kind has some fifty.
pub const MAX_LOOK_BACK: usize = 1024;

/// Comments of one packet, bytes: hundreds of pipelined exchanges; more are left out.
pub const MAX_COMMENT_BYTES: usize = 32 * 1024;

/// A packet's place in the queue, bytes; a queue that grows is there twice, the second time twice as long.
const PLACE: usize = 3 * size_of::<Option<Box<Held>>>();

/// What a packet takes beside its place and its payload if it is the only one of its connection, bytes: an entry in a table
/// that may be half empty, a list, and what an allocator adds.
const OVERHEAD: usize = 384;

/// A connection: its network world, and both ends, the lower address first. Generations are not told apart: a byte is shown
/// only where it is the byte that was disclosed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name(Scope, SocketAddr, SocketAddr);

impl Name {
    /// Of a segment. Where worlds are told apart by cookies, a handshake has another one than what follows.
    fn of(segment: &Segment<'_>) -> Self {
        let scope = if segment.scope_is_cookie { Scope::default() } else { segment.scope };
        Self::between(scope, segment.source, segment.destination)
    }

    fn between(scope: Scope, one: SocketAddr, other: SocketAddr) -> Self {
        Self(scope, one.min(other), one.max(other))
    }

    /// The names that segments of `connection` can have.
    fn candidates(connection: &Connection) -> [Self; 2] {
        [connection.scope, Scope::default()]
            .map(|scope| Self::between(scope, connection.originator, connection.responder))
    }
}

/// A packet that waits.
#[derive(Debug)]
pub struct Held {
    /// When it was seen.
    pub time: KernelInstant,
    /// The same by the wall clock, nanoseconds since 1970.
    pub wall: u64,
    /// What is known of it.
    pub facts: Facts,
    /// Which way it went.
    pub way: Way,
    /// Exchanges that it completed.
    pub comments: Vec<String>,
    name: Name,
    payload: Vec<u8>,
    /// What is to be written of the payload; empty if that is the payload itself.
    shown: Vec<u8>,
}

impl Held {
    /// The payload as it is to be written.
    pub fn payload(&self) -> &[u8] {
        if self.shown.is_empty() { &self.payload } else { &self.shown }
    }

    fn cost(&self) -> usize {
        let comments: usize = self.comments.iter().map(|comment| comment.capacity() + OVERHEAD).sum();
        PLACE + OVERHEAD + size_of::<Self>() + self.payload.capacity() + self.shown.capacity() + comments
    }

    /// Shows what `covered` has of this payload; `sequence` is that of its first byte.
    fn show(&mut self, sequence: u32, covered: &[u8]) {
        // Positive if the packet begins inside what is disclosed.
        let ahead = self.facts.first_byte().wrapping_sub(sequence).cast_signed();
        let (skip, from) = match usize::try_from(ahead) {
            Ok(ahead) => (0, ahead),
            Err(_) => (ahead.unsigned_abs() as usize, 0),
        };
        let covered = covered.get(from..).unwrap_or_default();
        let places = self.shown.iter_mut().zip(&self.payload).skip(skip);
        for ((shown, own), covered) in places.zip(covered) {
            *shown = if own == covered { *covered } else { COVER };
        }
    }
}

/// Packets of one connection that wait.
#[derive(Debug, Default)]
struct Conversation {
    numbers: VecDeque<u64>,
    is_wanted: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets taken.
    pub packets: u64,
    /// Packets that went before their time, because those behind needed the room.
    pub hurried: u64,
    /// Packets left out: their connection is not wanted, or nothing was known of it when they had to go.
    pub left_out: u64,
    /// Exchanges named in a comment.
    pub comments: u64,
    /// Exchanges without a packet to name them at.
    pub comments_lost: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, part: Self) {
        let Self { packets, hurried, left_out, comments, comments_lost } = part;
        self.packets += packets;
        self.hurried += hurried;
        self.left_out += left_out;
        self.comments += comments;
        self.comments_lost += comments_lost;
    }
}

/// What the hold may do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Memory for packets that wait, bytes.
    pub held_bytes: usize,
    /// Payload goes as it is.
    pub is_raw: bool,
    /// Connections are judged: only packets of those are written that are said to be wanted.
    pub is_judged: bool,
}

/// The packets that wait. See the module's head.
#[derive(Debug)]
pub struct Hold {
    config: Config,
    packets: VecDeque<Option<Box<Held>>>,
    /// Number of the first packet.
    first: u64,
    conversations: HashMap<Name, Conversation, foldhash::fast::RandomState>,
    bytes: usize,
    stats: Stats,
}

impl Hold {
    /// Nothing waits.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            packets: VecDeque::new(),
            first: 0,
            conversations: HashMap::default(),
            bytes: 0,
            stats: Stats::default(),
        }
    }

    /// Takes a segment; `wall` is its time by the wall clock.
    pub fn take(&mut self, segment: &Segment<'_>, wall: u64) {
        let facts = Facts {
            source: segment.source,
            destination: segment.destination,
            sequence: segment.sequence,
            acknowledgement: segment.acknowledgement,
            flags: segment.flags,
            payload_length: segment.payload_length,
        };
        let way = match segment.direction {
            Direction::Ingress => Way::In,
            Direction::Egress => Way::Out,
            Direction::Path => Way::Unknown,
        };
        let payload = segment.payload.to_vec();
        let shown = if self.config.is_raw { Vec::new() } else { vec![BLANK; payload.len()] };
        let (name, comments) = (Name::of(segment), Vec::new());
        let held = Held { time: segment.time, wall, facts, way, comments, name, payload, shown };
        self.stats.packets += 1;
        self.bytes += held.cost();
        let number = self.first + self.packets.len() as u64;
        let conversation = self.conversations.entry(name).or_default();
        conversation.numbers.push_back(number);
        self.packets.push_back(Some(Box::new(held)));
    }

    /// Shows what is disclosed: `covered` is the disclosure's bytes as they may be seen.
    pub fn disclose(&mut self, disclosure: &Disclosure, covered: &[u8]) {
        let Disclosure { connection, sender, offset, .. } = disclosure;
        let Some(sequence) = sequence_of(connection, *sender, *offset) else { return };
        let source = connection.address(*sender);
        let Some(name) = self.name_of(connection) else { return };
        let Some(conversation) = self.conversations.get(&name) else { return };
        for number in conversation.numbers.iter().rev().take(MAX_LOOK_BACK) {
            let held = usize::try_from(number - self.first).ok().and_then(|at| self.packets.get_mut(at));
            if let Some(Some(held)) = held
                && held.facts.source == source
                && !held.shown.is_empty()
            {
                held.show(sequence, covered);
            }
        }
    }

    /// Names an exchange at the latest packet of its connection.
    pub fn comment(&mut self, connection: &Connection, text: String) {
        let conversation = self.name_of(connection).and_then(|name| self.conversations.get(&name));
        let latest = conversation.and_then(|conversation| conversation.numbers.back());
        let held = latest.and_then(|number| self.packets.get_mut(usize::try_from(number - self.first).ok()?));
        let held = held.and_then(Option::as_mut);
        let room = |held: &&mut Box<Held>| {
            held.comments.iter().map(String::len).sum::<usize>() + text.len() <= MAX_COMMENT_BYTES
        };
        let Some(held) = held.filter(room) else {
            self.stats.comments_lost += 1;
            return;
        };
        self.stats.comments += 1;
        self.bytes += text.capacity() + OVERHEAD;
        held.comments.push(text);
    }

    /// The connection is wanted.
    pub fn want(&mut self, connection: &Connection) {
        if let Some(name) = self.name_of(connection)
            && let Some(conversation) = self.conversations.get_mut(&name)
        {
            conversation.is_wanted = true;
        }
    }

    /// The connection is not wanted: what waits of it is left out.
    pub fn refuse(&mut self, connection: &Connection) {
        let name = self.name_of(connection);
        let Some(conversation) = name.and_then(|name| self.conversations.remove(&name)) else { return };
        for number in conversation.numbers {
            let place = usize::try_from(number - self.first).ok().and_then(|at| self.packets.get_mut(at));
            if let Some(held) = place.and_then(Option::take) {
                // Its place is free once those before it have gone.
                self.bytes -= held.cost() - PLACE;
                self.stats.left_out += 1;
            }
        }
    }

    /// The next packet that need not wait any more at `now`; without `now`, the next one.
    pub fn pop(&mut self, now: Option<KernelInstant>) -> Option<Box<Held>> {
        loop {
            let Some(first) = self.packets.front()? else {
                self.packets.pop_front();
                self.first += 1;
                self.bytes -= PLACE;
                continue;
            };
            let is_full = self.bytes > self.config.held_bytes;
            let is_due = now.is_none_or(|now| now.since(first.time) >= MAX_AGE);
            if !is_due && !is_full {
                return None;
            }
            self.stats.hurried += u64::from(!is_due);
            let held = self.packets.pop_front().flatten()?;
            self.first += 1;
            self.bytes -= held.cost();
            if self.leave(held.name) {
                return Some(held);
            }
            self.stats.left_out += 1;
        }
    }

    /// The name under which packets of `connection` wait.
    fn name_of(&self, connection: &Connection) -> Option<Name> {
        Name::candidates(connection).into_iter().find(|name| self.conversations.contains_key(name))
    }

    /// Takes the first packet of `name` off its list; whether it is wanted.
    fn leave(&mut self, name: Name) -> bool {
        let Some(conversation) = self.conversations.get_mut(&name) else { return false };
        let is_wanted = conversation.is_wanted || !self.config.is_judged;
        conversation.numbers.pop_front();
        if conversation.numbers.is_empty() {
            self.conversations.remove(&name);
        }
        is_wanted
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What is held now, bytes.
    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }
}

/// The sequence number of a stream offset, where both are known.
fn sequence_of(connection: &Connection, sender: Side, offset: u64) -> Option<u32> {
    let isn = match (connection.start, sender) {
        (Start::Middle, _) => 0,
        (Start::Handshake, Side::Originator) => connection.originator_isn?,
        (Start::Handshake, Side::Responder) => connection.responder_isn?,
    };
    Some(isn.wrapping_add(offset as u32))
}
