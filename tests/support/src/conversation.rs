//! The conversation builder: what two ends say, rendered as the Segments (or packets) that an observer sees.
//!
//! A [`Conversation`] is a script: it holds what is said and how it is cut and seen, and is rendered by
//! [`Conversation::segments`]. What a network does to the result (loss, order, copies, overlap) is done to the
//! rendered list by the functions at the foot. It knows nothing of HTTP and never judges what reassembly makes of it.
//!
//! ```
//! use support::conversation::Conversation;
//! let segments = Conversation::new().client(b"GET / HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 204 x\r\n\r\n").close().segments();
//! assert_eq!(segments.len(), 3 + 2 + 3);
//! ```

mod frame;
mod network;
mod render;

use std::{net::SocketAddr, time::Duration};

use pod2pod_user::capture::{Direction, KernelInstant, Scope, Segment, TcpFlags, Unreachable};

pub use network::{duplicate, overlapping, restamp, shuffle_from};

/// Client's initial sequence number unless [`Conversation::isns`] says otherwise.
pub const CLIENT_ISN: u32 = 1_000;
/// Server's initial sequence number unless [`Conversation::isns`] says otherwise.
pub const SERVER_ISN: u32 = 7_000_000;
/// Time of the first segment unless [`Conversation::start_at`] says otherwise, ns.
pub const START_NS: u64 = 1_700_000_000_000_000_000;
/// Time between two segments unless [`Conversation::step`] says otherwise, ns.
pub const STEP_NS: u64 = 1_000_000;

/// A [`Segment`] that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedSegment {
    /// As in [`Segment::time`].
    pub time: KernelInstant,
    /// As in [`Segment::scope`].
    pub scope: Scope,
    /// As in [`Segment::direction`].
    pub direction: Direction,
    /// As in [`Segment::source`].
    pub source: SocketAddr,
    /// As in [`Segment::destination`].
    pub destination: SocketAddr,
    /// As in [`Segment::sequence`].
    pub sequence: u32,
    /// As in [`Segment::acknowledgement`].
    pub acknowledgement: u32,
    /// As in [`Segment::flags`].
    pub flags: TcpFlags,
    /// As in [`Segment::payload_length`].
    pub payload_length: u32,
    /// As in [`Segment::payload`].
    pub payload: Vec<u8>,
    /// As in [`Segment::lost_before`].
    pub lost_before: bool,
    /// As in [`Segment::skipped_before`].
    pub skipped_before: bool,
    /// As in [`Segment::generation`].
    pub generation: Option<u32>,
    /// As in [`Segment::cgroup_id`].
    pub cgroup_id: u64,
    /// As in [`Segment::socket_cookie`].
    pub socket_cookie: u64,
    /// As in [`Segment::interface_index`].
    pub interface_index: u32,
    /// As in [`Segment::unreachable`].
    pub unreachable: Option<Unreachable>,
    /// As in [`Segment::scope_is_cookie`].
    pub scope_is_cookie: bool,
}

impl OwnedSegment {
    /// A copy of `segment`.
    pub fn of(segment: &Segment<'_>) -> Self {
        Self {
            time: segment.time,
            scope: segment.scope,
            direction: segment.direction,
            source: segment.source,
            destination: segment.destination,
            sequence: segment.sequence,
            acknowledgement: segment.acknowledgement,
            flags: segment.flags,
            payload_length: segment.payload_length,
            payload: segment.payload.to_vec(),
            lost_before: segment.lost_before,
            skipped_before: segment.skipped_before,
            generation: segment.generation,
            cgroup_id: segment.cgroup_id,
            socket_cookie: segment.socket_cookie,
            interface_index: segment.interface_index,
            unreachable: segment.unreachable,
            scope_is_cookie: segment.scope_is_cookie,
        }
    }

    /// The Segment that a stage takes.
    pub fn borrow(&self) -> Segment<'_> {
        Segment {
            time: self.time,
            scope: self.scope,
            direction: self.direction,
            source: self.source,
            destination: self.destination,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            flags: self.flags,
            payload_length: self.payload_length,
            payload: &self.payload,
            lost_before: self.lost_before,
            skipped_before: self.skipped_before,
            generation: self.generation,
            cgroup_id: self.cgroup_id,
            socket_cookie: self.socket_cookie,
            interface_index: self.interface_index,
            unreachable: self.unreachable,
            scope_is_cookie: self.scope_is_cookie,
        }
    }

    /// The same segment with only its first `length` payload bytes captured.
    pub fn cut_to(mut self, length: usize) -> Self {
        self.payload.truncate(length);
        self
    }

    /// The segment as an Ethernet frame, checksums right.
    pub fn to_packet(&self) -> Vec<u8> {
        frame::packet(self)
    }
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

/// Where the observer sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Path,
    ClientEnd,
    ServerEnd,
}

#[derive(Clone, Debug)]
enum Step {
    Handshake,
    Say(Speaker, Vec<u8>),
    Fin(Speaker),
    Rst(Speaker),
    Ack(Speaker),
    KeepAlive(Speaker),
    Pause(Duration),
}

/// What is said on one TCP connection, and how it is seen.
#[derive(Clone, Debug)]
pub struct Conversation {
    client: SocketAddr,
    server: SocketAddr,
    client_isn: u32,
    server_isn: u32,
    start: KernelInstant,
    step: Duration,
    scope: Scope,
    cookie: u64,
    interface: u32,
    view: View,
    cut_every: Option<usize>,
    client_cuts: Vec<usize>,
    server_cuts: Vec<usize>,
    with_acks: bool,
    steps: Vec<Step>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self::new()
    }
}

impl Conversation {
    /// 10.0.0.1:40000 connects to 10.0.0.2:80; seen whole on a path.
    pub fn new() -> Self {
        let mut conversation = Self::joined_in_the_middle();
        conversation.steps.push(Step::Handshake);
        conversation
    }

    /// As [`Conversation::new`], but the handshake is not seen.
    pub fn joined_in_the_middle() -> Self {
        Self {
            client: SocketAddr::from(([10, 0, 0, 1], 40_000)),
            server: SocketAddr::from(([10, 0, 0, 2], 80)),
            client_isn: CLIENT_ISN,
            server_isn: SERVER_ISN,
            start: KernelInstant::from_nanos(START_NS),
            step: Duration::from_nanos(STEP_NS),
            scope: Scope(0),
            cookie: 0,
            interface: 0,
            view: View::Path,
            cut_every: None,
            client_cuts: Vec::new(),
            server_cuts: Vec::new(),
            with_acks: false,
            steps: Vec::new(),
        }
    }

    /// The client says `bytes`.
    pub fn client(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Say(Speaker::Client, bytes.as_ref().to_vec()));
        self
    }

    /// The server says `bytes`.
    pub fn server(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Say(Speaker::Server, bytes.as_ref().to_vec()));
        self
    }

    /// The client has said everything.
    pub fn client_fin(mut self) -> Self {
        self.steps.push(Step::Fin(Speaker::Client));
        self
    }

    /// The server has said everything.
    pub fn server_fin(mut self) -> Self {
        self.steps.push(Step::Fin(Speaker::Server));
        self
    }

    /// Client, then server finish, and the last acknowledgement.
    pub fn close(mut self) -> Self {
        self = self.client_fin().server_fin();
        self.steps.push(Step::Ack(Speaker::Client));
        self
    }

    /// The client resets.
    pub fn client_rst(mut self) -> Self {
        self.steps.push(Step::Rst(Speaker::Client));
        self
    }

    /// The server resets.
    pub fn server_rst(mut self) -> Self {
        self.steps.push(Step::Rst(Speaker::Server));
        self
    }

    /// The client acknowledges what it has, without data.
    pub fn client_ack(mut self) -> Self {
        self.steps.push(Step::Ack(Speaker::Client));
        self
    }

    /// The server acknowledges what it has, without data.
    pub fn server_ack(mut self) -> Self {
        self.steps.push(Step::Ack(Speaker::Server));
        self
    }

    /// The client sends a keep-alive probe: one old byte (RFC 9293 3.8.4).
    pub fn client_keep_alive(mut self) -> Self {
        self.steps.push(Step::KeepAlive(Speaker::Client));
        self
    }

    /// The server sends a keep-alive probe: one old byte.
    pub fn server_keep_alive(mut self) -> Self {
        self.steps.push(Step::KeepAlive(Speaker::Server));
        self
    }

    /// Nothing is said for `duration`.
    pub fn pause(mut self, duration: Duration) -> Self {
        self.steps.push(Step::Pause(duration));
        self
    }

    /// Both ends' addresses; on a clone of a conversation, what is seen behind a NAT.
    pub fn addresses(mut self, client: SocketAddr, server: SocketAddr) -> Self {
        (self.client, self.server) = (client, server);
        self
    }

    /// Initial sequence numbers.
    pub fn isns(mut self, client: u32, server: u32) -> Self {
        (self.client_isn, self.server_isn) = (client, server);
        self
    }

    /// Time of the first segment, ns.
    pub fn start_at(mut self, nanoseconds: u64) -> Self {
        self.start = KernelInstant::from_nanos(nanoseconds);
        self
    }

    /// Time between two segments.
    pub fn step(mut self, duration: Duration) -> Self {
        self.step = duration;
        self
    }

    /// Network world.
    pub fn scope(mut self, scope: u64) -> Self {
        self.scope = Scope(scope);
        self
    }

    /// Cookie of the observed socket.
    pub fn cookie(mut self, cookie: u64) -> Self {
        self.cookie = cookie;
        self
    }

    /// Interface of every segment.
    pub fn interface(mut self, index: u32) -> Self {
        self.interface = index;
        self
    }

    /// Seen at the client's socket.
    pub fn seen_by_client(mut self) -> Self {
        self.view = View::ClientEnd;
        self
    }

    /// Seen at the server's socket.
    pub fn seen_by_server(mut self) -> Self {
        self.view = View::ServerEnd;
        self
    }

    /// No segment carries more than `bytes` (at least 1).
    pub fn cut_every(mut self, bytes: usize) -> Self {
        self.cut_every = Some(bytes.max(1));
        self
    }

    /// Each side's stream is cut before these of its bytes, counted from 0 over the whole connection.
    pub fn cut_at(self, points: &[usize]) -> Self {
        self.cut_client_at(points).cut_server_at(points)
    }

    /// As [`Conversation::cut_at`], the client's stream only.
    pub fn cut_client_at(mut self, points: &[usize]) -> Self {
        self.client_cuts.extend_from_slice(points);
        self
    }

    /// As [`Conversation::cut_at`], the server's stream only.
    pub fn cut_server_at(mut self, points: &[usize]) -> Self {
        self.server_cuts.extend_from_slice(points);
        self
    }

    /// Every data segment is followed by a bare ACK of the other end, as on a wire.
    pub fn with_acks(mut self) -> Self {
        self.with_acks = true;
        self
    }

    /// Bytes that the client says in all.
    pub fn client_bytes(&self) -> Vec<u8> {
        self.bytes_of(Speaker::Client)
    }

    /// Bytes that the server says in all.
    pub fn server_bytes(&self) -> Vec<u8> {
        self.bytes_of(Speaker::Server)
    }

    /// The segments, in the order sent.
    pub fn segments(&self) -> Vec<OwnedSegment> {
        render::Renderer::new(self).run()
    }

    /// The segments as Ethernet frames with their times, for capture files.
    pub fn to_packets(&self) -> Vec<(KernelInstant, Vec<u8>)> {
        self.segments().iter().map(|segment| (segment.time, segment.to_packet())).collect()
    }

    fn bytes_of(&self, speaker: Speaker) -> Vec<u8> {
        let said = self.steps.iter().filter_map(|step| match step {
            Step::Say(who, bytes) if *who == speaker => Some(bytes.as_slice()),
            Step::Say(..)
            | Step::Handshake
            | Step::Fin(_)
            | Step::Rst(_)
            | Step::Ack(_)
            | Step::KeepAlive(_)
            | Step::Pause(_) => None,
        });
        said.flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_once_however_it_is_cut() {
        let whole = Conversation::new().client(b"abcdef").server(b"0123456789").client(b"gh").close();
        for cut in [whole.clone(), whole.clone().cut_every(1), whole.clone().cut_at(&[2, 3, 7])] {
            let mut streams = [Vec::new(), Vec::new()];
            for segment in cut.segments() {
                streams[usize::from(segment.source.port() == 80)].extend_from_slice(&segment.payload);
            }
            assert_eq!(streams, [b"abcdefgh".to_vec(), b"0123456789".to_vec()]);
        }
        assert_eq!(whole.clone().cut_client_at(&[2, 7]).segments().len(), whole.segments().len() + 2);
    }

    #[test]
    fn numbers_follow_from_the_isns() {
        let segments = Conversation::new().isns(u32::MAX, 9).client(b"ab").server(b"c").close().segments();
        let numbers: Vec<_> = segments.iter().map(|s| (s.flags.0, s.sequence, s.acknowledgement)).collect();
        let expected = [
            (0x02, u32::MAX, 0),
            (0x12, 9, 0),
            (0x10, 0, 10),
            (0x18, 0, 10),
            (0x18, 10, 2),
            (0x11, 2, 11),
            (0x11, 11, 3),
            (0x10, 3, 12),
        ];
        assert_eq!(numbers, expected);
    }
}
