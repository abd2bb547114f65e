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

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pod2pod_common::segment as contract;
use pod2pod_user::capture::{Direction, KernelInstant, Scope, Segment, TcpFlags};

use crate::rng::Rng;

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
    /// As in [`Segment::cgroup_id`].
    pub cgroup_id: u64,
    /// As in [`Segment::socket_cookie`].
    pub socket_cookie: u64,
    /// As in [`Segment::interface_index`].
    pub interface_index: u32,
    /// As in [`Segment::scope_is_cookie`].
    pub scope_is_cookie: bool,
}

impl OwnedSegment {
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
            cgroup_id: self.cgroup_id,
            socket_cookie: self.socket_cookie,
            interface_index: self.interface_index,
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
        packet(self)
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
        Renderer::new(self).run()
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

/// Renders a script: the two ends' positions as they go.
struct Renderer<'a> {
    script: &'a Conversation,
    time: KernelInstant,
    /// Next sequence number of client and server.
    next: [u32; 2],
    /// Payload bytes said so far.
    said: [usize; 2],
    /// Whether the end may acknowledge: not before it has heard a SYN.
    heard: [bool; 2],
    segments: Vec<OwnedSegment>,
}

impl<'a> Renderer<'a> {
    fn new(script: &'a Conversation) -> Self {
        Self {
            script,
            time: script.start,
            next: [script.client_isn.wrapping_add(1), script.server_isn.wrapping_add(1)],
            said: [0; 2],
            heard: [true; 2],
            segments: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<OwnedSegment> {
        for step in &self.script.steps {
            match step {
                Step::Handshake => self.handshake(),
                Step::Say(speaker, bytes) => self.say(*speaker, bytes),
                Step::Fin(speaker) => {
                    self.emit(*speaker, contract::TCP_FIN | contract::TCP_ACK, &[]);
                    self.next[*speaker as usize] = self.next[*speaker as usize].wrapping_add(1);
                }
                Step::Rst(speaker) => self.emit(*speaker, contract::TCP_RST | contract::TCP_ACK, &[]),
                Step::Ack(speaker) => self.emit(*speaker, contract::TCP_ACK, &[]),
                Step::KeepAlive(speaker) => self.keep_alive(*speaker),
                Step::Pause(duration) => self.time = self.time.plus(*duration),
            }
        }
        self.segments
    }

    fn handshake(&mut self) {
        for next in &mut self.next {
            *next = next.wrapping_sub(1);
        }
        self.heard = [false, true];
        self.emit(Speaker::Client, contract::TCP_SYN, &[]);
        self.next[0] = self.next[0].wrapping_add(1);
        self.emit(Speaker::Server, contract::TCP_SYN | contract::TCP_ACK, &[]);
        self.next[1] = self.next[1].wrapping_add(1);
        self.heard = [true, true];
        self.emit(Speaker::Client, contract::TCP_ACK, &[]);
    }

    fn say(&mut self, speaker: Speaker, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = self.piece(speaker, rest.len());
            let (piece, after) = rest.split_at(length);
            self.emit(speaker, contract::TCP_ACK | contract::TCP_PSH, piece);
            self.next[speaker as usize] = self.next[speaker as usize].wrapping_add(length as u32);
            self.said[speaker as usize] += length;
            if self.script.with_acks {
                self.emit(other(speaker), contract::TCP_ACK, &[]);
            }
            rest = after;
        }
    }

    /// How long the next segment is, of `left` bytes.
    fn piece(&self, speaker: Speaker, left: usize) -> usize {
        let cuts = match speaker {
            Speaker::Client => &self.script.client_cuts,
            Speaker::Server => &self.script.server_cuts,
        };
        let said = self.said[speaker as usize];
        let to_cut = cuts.iter().filter(|&&cut| cut > said).min().map_or(left, |cut| cut - said);
        left.min(to_cut).min(self.script.cut_every.unwrap_or(left))
    }

    fn keep_alive(&mut self, speaker: Speaker) {
        self.next[speaker as usize] = self.next[speaker as usize].wrapping_sub(1);
        self.emit(speaker, contract::TCP_ACK, b"\0");
        self.next[speaker as usize] = self.next[speaker as usize].wrapping_add(1);
    }

    fn emit(&mut self, speaker: Speaker, flags: u8, payload: &[u8]) {
        let script = self.script;
        let (source, destination) = match speaker {
            Speaker::Client => (script.client, script.server),
            Speaker::Server => (script.server, script.client),
        };
        let direction = match (script.view, speaker) {
            (View::Path, _) => Direction::Path,
            (View::ClientEnd, Speaker::Client) | (View::ServerEnd, Speaker::Server) => Direction::Egress,
            (View::ClientEnd, Speaker::Server) | (View::ServerEnd, Speaker::Client) => Direction::Ingress,
        };
        let heard = self.heard[speaker as usize];
        self.segments.push(OwnedSegment {
            time: self.time,
            scope: script.scope,
            direction,
            source,
            destination,
            sequence: self.next[speaker as usize],
            acknowledgement: if heard { self.next[other(speaker) as usize] } else { 0 },
            flags: TcpFlags(flags),
            payload_length: payload.len() as u32,
            payload: payload.to_vec(),
            lost_before: false,
            cgroup_id: 0,
            socket_cookie: script.cookie,
            interface_index: script.interface,
            scope_is_cookie: false,
        });
        self.time = self.time.plus(script.step);
    }
}

const fn other(speaker: Speaker) -> Speaker {
    match speaker {
        Speaker::Client => Speaker::Server,
        Speaker::Server => Speaker::Client,
    }
}

/// Gives the segments the times of their present order, `step` apart, beginning with the earliest: as a capture of
/// what arrived in this order would.
pub fn restamp(segments: &mut [OwnedSegment], step: Duration) {
    let mut time = segments.iter().map(|segment| segment.time).min().unwrap_or_default();
    for segment in segments {
        segment.time = time;
        time = time.plus(step);
    }
}

/// Puts the segments from index `from` on in a random order and stamps them in it.
pub fn shuffle_from(segments: &mut [OwnedSegment], from: usize, rng: &mut Rng) {
    let from = from.min(segments.len());
    rng.shuffle(&mut segments[from..]);
    restamp(segments, Duration::from_nanos(STEP_NS));
}

/// Sends about `percent` of the segments a second time, each at a random later place.
pub fn duplicate(segments: &mut Vec<OwnedSegment>, percent: usize, rng: &mut Rng) {
    let copies: Vec<(usize, OwnedSegment)> = segments
        .iter()
        .enumerate()
        .filter(|_| rng.below(100) < percent)
        .map(|(index, segment)| (index, segment.clone()))
        .collect();
    for (index, copy) in copies {
        segments.insert(index + 1 + rng.below(segments.len() - index), copy);
    }
    restamp(segments, Duration::from_nanos(STEP_NS));
}

/// A data segment that covers from `back` bytes before `segment` on, filled with `filler` there: an overlap whose old
/// part differs from what was sent.
pub fn overlapping(segment: &OwnedSegment, back: u32, filler: u8) -> OwnedSegment {
    let mut copy = segment.clone();
    copy.sequence = copy.sequence.wrapping_sub(back);
    copy.payload = vec![filler; back as usize];
    copy.payload.extend_from_slice(&segment.payload);
    copy.payload_length += back;
    copy
}

fn packet(segment: &OwnedSegment) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20 + segment.payload.len());
    tcp.extend_from_slice(&segment.source.port().to_be_bytes());
    tcp.extend_from_slice(&segment.destination.port().to_be_bytes());
    tcp.extend_from_slice(&segment.sequence.to_be_bytes());
    tcp.extend_from_slice(&segment.acknowledgement.to_be_bytes());
    tcp.extend_from_slice(&[5 << 4, segment.flags.0, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend_from_slice(&segment.payload);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (segment.source.ip(), segment.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6]].concat();
            put_tcp_checksum(&mut tcp, &pseudo);
            frame.extend_from_slice(&[8, 0]);
            frame.extend_from_slice(&ipv4_header(source.octets(), destination.octets(), tcp.len()));
        }
        (source, destination) => {
            let (source, destination) = (as_v6(source), as_v6(destination));
            put_tcp_checksum(&mut tcp, &[&source[..], &destination, &[0, 6]].concat());
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[6, 64]);
            frame.extend_from_slice(&source);
            frame.extend_from_slice(&destination);
        }
    }
    frame.extend_from_slice(&tcp);
    frame
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn ipv4_header(source: [u8; 4], destination: [u8; 4], tcp_length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((20 + tcp_length) as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
    header.extend_from_slice(&source);
    header.extend_from_slice(&destination);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn put_tcp_checksum(tcp: &mut [u8], pseudo: &[u8]) {
    let length = (tcp.len() as u16).to_be_bytes();
    let sum = checksum(&[pseudo, &length, tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071); every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
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

    #[test]
    fn packets_have_right_checksums() {
        for (client, server) in [("10.1.2.3:4", "10.1.2.4:80"), ("[fd00::1]:4", "[fd00::2]:80")] {
            let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
            let conversation = Conversation::new().addresses(client, server).client(b"odd");
            for (_, frame) in conversation.to_packets() {
                let (ip, addresses) =
                    if frame[12] == 8 { (20, &frame[26..34]) } else { (40, &frame[22..54]) };
                let tcp = &frame[14 + ip..];
                let length = (tcp.len() as u16).to_be_bytes();
                assert_eq!(checksum(&[addresses, &[0, 6], &length, tcp]), 0);
            }
        }
    }
}
