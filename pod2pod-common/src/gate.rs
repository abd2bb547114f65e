//! What the kernel makes of one segment: which generation it belongs to, and whether its payload is sent.
//!
//! Pure, so that it is tested without a kernel; the packet is read, and the record written, by `pod2pod-ebpf`. It
//! forgets nothing by time: the table's eviction does that.

use crate::{
    blur,
    control::SHED_CONNECTIONS,
    flow::{ConnectionState, GATE_HTTP, GATE_IGNORE, GATE_OWN, GATE_SHED, GATE_UNKNOWN, GATE_UNWANTED},
    heads::{Beginning, Window},
    limits::MAX_UNDECIDED_BYTES,
    segment::{
        DIRECTION_EGRESS, DIRECTION_INGRESS, MARK_HTTP2, MARK_TLS, MARK_UNDECIDED, TCP_ACK, TCP_FIN, TCP_RST,
        TCP_SYN,
    },
};

/// What the gate wants to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `DIRECTION_*`.
    pub direction: u8,
    /// `TCP_*` bits.
    pub flags: u8,
    /// As in the TCP header.
    pub sequence: u32,
    /// As in the TCP header.
    pub acknowledgement: u32,
    /// Payload bytes.
    pub payload_length: u32,
}

impl Facts {
    /// The same, without what the verifier has learnt of it on the way here: each way would be another state.
    #[inline(always)]
    pub fn anew(&self) -> Self {
        Self {
            flags: blur::number(u32::from(self.flags)) as u8,
            payload_length: blur::number(self.payload_length),
            ..*self
        }
    }

    /// A SYN that is no SYN-ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// A SYN-ACK.
    #[inline(always)]
    pub const fn answers(&self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK
    }

    /// A SYN or SYN-ACK at the server: where scope is the cookie, the socket is the listener.
    #[inline(always)]
    pub const fn at_listener(&self) -> bool {
        (self.opens() && self.direction == DIRECTION_INGRESS)
            || (self.answers() && self.direction == DIRECTION_EGRESS)
    }

    /// Whether the record is sent whatever the payload is.
    #[inline(always)]
    pub const fn steers(&self) -> bool {
        self.flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0
    }

    /// Sequence number of the first payload byte.
    #[inline(always)]
    pub const fn first_byte(&self) -> u32 {
        self.sequence.wrapping_add((self.flags & TCP_SYN != 0) as u32)
    }
}

/// Which look at the first payload bytes the gate needs before it can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// None.
    None,
    /// The client's first bytes: final.
    ClientFirst,
    /// Bytes of a server before its client spoke: never final against HTTP.
    ServerFirst,
    /// Bytes of a connection whose start another one hid: as generous as a first look, not final.
    Joined,
    /// Bytes from the middle of a connection.
    Middle,
}

/// What becomes of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The payload is sent; without it, the segment is, if it steers.
    pub payload: bool,
    /// `MARK_*` bits for the record.
    pub marks: u8,
    /// The gate opened or closed by this segment, and for what.
    pub decided: Option<Beginning>,
}

impl Decision {
    /// Sent whole.
    pub const SEND: Self = Self { payload: true, marks: 0, decided: None };
    const LEAVE: Self = Self { payload: false, marks: 0, decided: None };
}

impl ConnectionState {
    /// The state of a connection of which nothing was seen before `facts`.
    #[inline(always)]
    pub const fn first_seen(facts: &Facts) -> Self {
        let empty = Self {
            last_time_ns: 0,
            listener_cookie: 0,
            generation: 0,
            pending: 0,
            next_sequence: [0; 2],
            lost: 0,
            told: 0,
            gate: GATE_UNKNOWN,
            generation_known: 0,
            pending_known: 0,
            client_direction: 0,
            read_sequence: [0; 2],
            read_known: [0; 2],
            heeded_epoch: 0,
        };
        if facts.opens() {
            Self {
                generation: facts.sequence,
                generation_known: 1,
                client_direction: facts.direction,
                ..empty
            }
        } else if facts.answers() {
            Self {
                generation: facts.acknowledgement.wrapping_sub(1),
                generation_known: 1,
                client_direction: opposite(facts.direction),
                ..empty
            }
        } else {
            empty
        }
    }

    /// Client's initial sequence number, if it is known.
    #[inline(always)]
    pub const fn known_generation(&self) -> Option<u32> {
        if self.generation_known != 0 { Some(self.generation) } else { None }
    }

    /// Begins a new generation if `facts` proves one.
    ///
    /// A SYN that arrives proves nothing, ingress runs before TCP's own checks: it waits until this kernel answers it or
    /// a byte follows it (design.md section 4). A SYN that this kernel sends is its own proof.
    #[inline(always)]
    pub fn follow(&mut self, facts: &Facts) {
        let egress = facts.direction == DIRECTION_EGRESS;
        if facts.opens() {
            if self.generation_known != 0 && self.generation == facts.sequence {
                return;
            }
            if egress {
                self.begin(facts.sequence, DIRECTION_EGRESS);
            } else {
                self.pending = facts.sequence;
                self.pending_known = 1;
            }
        } else if facts.answers() && egress {
            let pending = self.pending_known != 0 && follows(facts.acknowledgement, self.pending);
            if pending {
                self.begin(self.pending, DIRECTION_INGRESS);
            } else if self.generation_known == 0 || !follows(facts.acknowledgement, self.generation) {
                self.begin(facts.acknowledgement.wrapping_sub(1), DIRECTION_INGRESS);
            }
        } else if self.pending_known != 0 && facts.payload_length > 0 {
            let client_next = if egress { facts.acknowledgement } else { facts.sequence };
            if client_next == self.pending.wrapping_add(1) {
                self.begin(self.pending, DIRECTION_INGRESS);
            }
        }
    }

    /// Closes the gate of a connection of which nothing was captured yet, if connections are shed. Says whether it did.
    #[inline(always)]
    pub fn shed(&mut self, shed_level: u32) -> bool {
        let sheds = shed_level >= SHED_CONNECTIONS && self.gate == GATE_UNKNOWN;
        if sheds {
            self.gate = GATE_SHED;
        }
        sheds
    }

    /// Whether the segment is of a connection that was shed. A SYN begins another one perhaps, so it is only while
    /// connections are shed.
    #[inline(always)]
    pub fn is_shed(&self, facts: &Facts, shed_level: u32) -> bool {
        self.gate == GATE_SHED && (shed_level >= SHED_CONNECTIONS || !facts.opens())
    }

    /// Whether the segment is of a connection that a verdict closed for good. A SYN begins another one perhaps.
    #[inline(always)]
    pub fn is_unwanted(&self, facts: &Facts) -> bool {
        self.gate == GATE_UNWANTED && facts.flags & TCP_SYN == 0
    }

    /// Whether there may be a verdict that matters for the segment, in an epoch of verdicts.
    #[inline(always)]
    pub fn heeds_verdict(&self, facts: &Facts, epoch: u16) -> bool {
        facts.flags & TCP_SYN == 0
            && (self.gate == GATE_HTTP || self.gate == GATE_UNKNOWN)
            && self.heeded_epoch != epoch
    }

    /// Which look at the payload is needed.
    #[inline(always)]
    pub fn look(&self, facts: &Facts) -> Look {
        if self.gate != GATE_UNKNOWN || facts.payload_length == 0 {
            return Look::None;
        }
        if self.generation_known == 0 {
            return Look::Middle;
        }
        if facts.opens() && facts.sequence != self.generation {
            return Look::None;
        }
        if facts.direction != self.client_direction {
            return Look::ServerFirst;
        }
        match facts.first_byte().wrapping_sub(self.generation) {
            1 => Look::ClientFirst,
            distance if distance <= MAX_UNDECIDED_BYTES => Look::None,
            _ => Look::Middle,
        }
    }

    /// Decides on the payload after the look that [`Self::look`] asked for.
    #[inline(always)]
    pub fn judge(&mut self, look: Look, window: &Window) -> Decision {
        match look {
            Look::None => Decision::SEND,
            Look::ClientFirst => self.judge_beginning(window.beginning(), GATE_IGNORE),
            Look::Joined => self.judge_beginning(window.beginning(), GATE_UNKNOWN),
            Look::ServerFirst => self.judge_shape(window.starts_status_line()),
            Look::Middle => self.judge_shape(window.begins_message()),
        }
    }

    /// Notes what was seen: user space reads it before it calls a timeout.
    #[inline(always)]
    pub fn note(&mut self, facts: &Facts, time_ns: u64) {
        self.last_time_ns = time_ns;
        let end = facts
            .first_byte()
            .wrapping_add(facts.payload_length)
            .wrapping_add((facts.flags & TCP_FIN != 0) as u32);
        let [ingress, egress] = &mut self.next_sequence;
        if facts.direction == DIRECTION_EGRESS {
            *egress = end;
        } else {
            *ingress = end;
        }
    }

    /// Whether `facts` belongs to this handshake: the client's next byte is within its first window.
    #[inline(always)]
    pub fn links(&self, facts: &Facts) -> bool {
        let client_next =
            if facts.direction == DIRECTION_EGRESS { facts.acknowledgement } else { facts.first_byte() };
        self.generation_known != 0 && follows(client_next, self.generation)
            || self.pending_known != 0 && follows(client_next, self.pending)
    }

    #[inline(always)]
    fn begin(&mut self, generation: u32, client_direction: u8) {
        self.generation = generation;
        self.client_direction = client_direction;
        self.generation_known = 1;
        self.pending_known = 0;
        self.gate = GATE_UNKNOWN;
        self.read_known = [0; 2];
        // A verdict that was taken held for the generation before.
        self.heeded_epoch = 0;
    }

    /// Decides where no look is needed.
    #[inline(always)]
    pub fn judge_unseen(&self, facts: &Facts) -> Decision {
        // The SYN of another generation is not this generation's to judge.
        if facts.opens() || self.gate == GATE_HTTP || facts.payload_length == 0 {
            Decision::SEND
        } else if self.gate == GATE_IGNORE || self.gate == GATE_OWN {
            Decision::LEAVE
        } else {
            Decision { marks: MARK_UNDECIDED, ..Decision::SEND }
        }
    }

    #[inline(always)]
    fn judge_beginning(&mut self, beginning: Beginning, closed: u8) -> Decision {
        self.gate = if matches!(beginning, Beginning::Http) { GATE_HTTP } else { closed };
        let (payload, marks) = match beginning {
            Beginning::Http => (true, 0),
            Beginning::Http2 => (true, MARK_HTTP2),
            Beginning::Tls => (true, MARK_TLS),
            Beginning::Other => (false, 0),
        };
        Decision { payload, marks, decided: Some(beginning) }
    }

    #[inline(always)]
    fn judge_shape(&mut self, http: bool) -> Decision {
        if http {
            self.gate = GATE_HTTP;
            Decision { decided: Some(Beginning::Http), ..Decision::SEND }
        } else {
            Decision::LEAVE
        }
    }
}

/// Whether `sequence` is the byte after an initial sequence number, or within the first window after it.
#[inline(always)]
const fn follows(sequence: u32, initial: u32) -> bool {
    sequence.wrapping_sub(initial).wrapping_sub(1) < MAX_UNDECIDED_BYTES
}

#[inline(always)]
const fn opposite(direction: u8) -> u8 {
    if direction == DIRECTION_EGRESS { DIRECTION_INGRESS } else { DIRECTION_EGRESS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::TCP_PSH;

    const CLIENT_ISN: u32 = u32::MAX - 3;
    const SERVER_ISN: u32 = 7_000_000;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

    fn segment(
        direction: u8,
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        payload: &[u8],
    ) -> (Facts, &[u8]) {
        let payload_length = payload.len() as u32;
        (Facts { direction, flags, sequence, acknowledgement, payload_length }, payload)
    }

    /// A client's segment at the server: `offset` 0 is its first byte.
    fn request(offset: u32, payload: &[u8]) -> (Facts, &[u8]) {
        let sequence = CLIENT_ISN.wrapping_add(1).wrapping_add(offset);
        segment(DIRECTION_INGRESS, TCP_ACK | TCP_PSH, sequence, SERVER_ISN + 1, payload)
    }

    /// A server's segment at the server, after `acknowledged` bytes of the client.
    fn response(acknowledged: u32, payload: &[u8]) -> (Facts, &[u8]) {
        let acknowledgement = CLIENT_ISN.wrapping_add(1).wrapping_add(acknowledged);
        segment(DIRECTION_EGRESS, TCP_ACK | TCP_PSH, SERVER_ISN + 1, acknowledgement, payload)
    }

    fn syn(isn: u32) -> (Facts, &'static [u8]) {
        segment(DIRECTION_INGRESS, TCP_SYN, isn, 0, b"")
    }

    fn syn_ack(isn: u32) -> (Facts, &'static [u8]) {
        segment(DIRECTION_EGRESS, TCP_SYN | TCP_ACK, SERVER_ISN, isn.wrapping_add(1), b"")
    }

    /// What the kernel side does with a segment.
    fn step(state: &mut ConnectionState, (facts, payload): (Facts, &[u8])) -> Decision {
        state.follow(&facts);
        let look = state.look(&facts);
        let decision = if look == Look::None {
            state.judge_unseen(&facts)
        } else {
            state.judge(look, &Window::of(payload))
        };
        state.note(&facts, 0);
        decision
    }

    fn opened() -> ConnectionState {
        let mut state = ConnectionState::first_seen(&syn(CLIENT_ISN).0);
        assert!(step(&mut state, syn(CLIENT_ISN)).payload);
        assert!(step(&mut state, syn_ack(CLIENT_ISN)).payload);
        state
    }

    #[test]
    fn the_clients_first_bytes_decide() {
        let cases: [(&[u8], bool, u8, u8); 5] = [
            (REQUEST, true, 0, GATE_HTTP),
            (b"G", true, 0, GATE_HTTP),
            (b"\x16\x03\x01", true, MARK_TLS, GATE_IGNORE),
            (b"PRI * HTTP/2.0\r\n", true, MARK_HTTP2, GATE_IGNORE),
            (b"\0\0\0\x2f", false, 0, GATE_IGNORE),
        ];
        for (first, payload, marks, gate) in cases {
            let mut state = opened();
            let decision = step(&mut state, request(0, first));
            let name = first.escape_ascii();
            assert_eq!((decision.payload, decision.marks, state.gate), (payload, marks, gate), "{name}");
            let next = step(&mut state, request(first.len() as u32, REQUEST));
            assert_eq!(next.payload, gate == GATE_HTTP, "{name}");
            assert_eq!(next.decided, None, "decided once: {name}");
        }
    }

    #[test]
    fn a_server_that_speaks_first_decides_for_http_only() {
        let mut state = opened();
        assert!(!step(&mut state, response(0, b"220 mail\r\n")).payload);
        assert_eq!(state.gate, GATE_UNKNOWN);
        assert!(step(&mut state, request(0, REQUEST)).payload);
        let mut state = opened();
        assert!(step(&mut state, response(0, RESPONSE)).payload);
        assert_eq!(state.gate, GATE_HTTP);
    }

    #[test]
    fn what_overtakes_the_first_bytes_is_sent_up_to_a_limit() {
        let mut state = opened();
        let last = step(&mut state, request(MAX_UNDECIDED_BYTES - 1, b"\0\0"));
        assert_eq!((last.payload, last.marks), (true, MARK_UNDECIDED));
        assert!(!step(&mut state, request(MAX_UNDECIDED_BYTES, b"\0\0")).payload);
        assert!(step(&mut state, request(0, REQUEST)).payload);
        assert_eq!(state.gate, GATE_HTTP);
    }

    #[test]
    fn in_the_middle_a_message_is_waited_for() {
        let (facts, _) = request(0, b"some text");
        let mut state = ConnectionState::first_seen(&facts);
        assert_eq!(state.known_generation(), None);
        assert!(!step(&mut state, request(0, b"some text")).payload);
        assert!(!step(&mut state, request(9, b"\x16\x03\x01")).payload);
        assert_eq!(state.gate, GATE_UNKNOWN);
        assert!(step(&mut state, request(12, REQUEST)).payload);
        assert!(step(&mut state, request(30, b"body")).payload);
    }

    #[test]
    fn a_forged_syn_changes_nothing() {
        for first in [REQUEST, b"\0binary"] {
            let mut state = opened();
            step(&mut state, request(0, first));
            let before = state.gate;
            assert!(step(&mut state, syn(99)).payload, "a SYN is always sent");
            let next = step(&mut state, request(first.len() as u32, b"\0\0\0"));
            assert_eq!(state.gate, before);
            assert_eq!(next.payload, before == GATE_HTTP);
            assert_eq!(state.known_generation(), Some(CLIENT_ISN));
        }
    }

    #[test]
    fn an_answered_syn_begins_a_new_generation() {
        let isn = 5000_u32;
        let data = segment(DIRECTION_INGRESS, TCP_ACK, isn + 1, 1, REQUEST);
        let greeting = segment(DIRECTION_EGRESS, TCP_ACK, 1, isn + 1, b"220 x");
        for answer in [syn_ack(isn), data, greeting] {
            let mut state = opened();
            step(&mut state, request(0, b"\0binary"));
            step(&mut state, syn(isn));
            step(&mut state, answer);
            assert_eq!(state.known_generation(), Some(isn), "{answer:?}");
            assert!(step(&mut state, data).payload, "{answer:?}");
        }
    }

    #[test]
    fn a_syn_that_this_kernel_sends_is_its_own_proof() {
        let mut state = opened();
        step(&mut state, request(0, b"\0binary"));
        step(&mut state, segment(DIRECTION_EGRESS, TCP_SYN, 40, 0, b""));
        assert_eq!((state.known_generation(), state.gate), (Some(40), GATE_UNKNOWN));
        assert_eq!(state.client_direction, DIRECTION_EGRESS);
        // Sent again, it changes nothing.
        step(&mut state, segment(DIRECTION_EGRESS, TCP_ACK, 41, 1, REQUEST));
        step(&mut state, segment(DIRECTION_EGRESS, TCP_SYN, 40, 0, b""));
        assert_eq!(state.gate, GATE_HTTP);
    }

    #[test]
    fn data_in_the_syn_decides() {
        let first = segment(DIRECTION_EGRESS, TCP_SYN, 40, 0, REQUEST);
        let mut state = ConnectionState::first_seen(&first.0);
        assert!(step(&mut state, first).payload);
        assert_eq!(state.gate, GATE_HTTP);
    }

    #[test]
    fn a_child_is_linked_within_the_first_window() {
        let state = opened();
        let cases = [
            (request(0, b"x").0, true),
            (request(MAX_UNDECIDED_BYTES - 1, b"x").0, true),
            (request(MAX_UNDECIDED_BYTES, b"x").0, false),
            (request(u32::MAX, b"x").0, false),
            (response(0, b"x").0, true),
            (response(MAX_UNDECIDED_BYTES, b"x").0, false),
        ];
        for (facts, expected) in cases {
            assert_eq!(state.links(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn only_new_connections_are_shed_and_not_their_successors() {
        let mut state = opened();
        step(&mut state, request(0, REQUEST));
        assert!(!state.shed(SHED_CONNECTIONS), "it is captured already");
        let mut state = opened();
        assert!(!state.shed(SHED_CONNECTIONS - 1));
        assert!(state.shed(SHED_CONNECTIONS));
        assert!(!state.shed(SHED_CONNECTIONS), "once");
        for level in [SHED_CONNECTIONS, 0] {
            assert!(state.is_shed(&request(0, REQUEST).0, level));
            assert!(state.is_shed(&syn_ack(CLIENT_ISN).0, level));
            assert_eq!(state.is_shed(&syn(5000).0, level), level == SHED_CONNECTIONS);
        }
        state.follow(&syn(5000).0);
        state.follow(&syn_ack(5000).0);
        assert!(!state.is_shed(&request(0, REQUEST).0, 0), "another generation");
    }

    #[test]
    fn an_unwanted_connection_stays_so_for_its_generation() {
        let mut state = opened();
        state.gate = GATE_UNWANTED;
        assert!(state.is_unwanted(&request(0, REQUEST).0));
        assert!(!state.heeds_verdict(&request(0, REQUEST).0, 1), "the table of verdicts is not asked again");
        assert!(!state.is_unwanted(&syn(5000).0), "a SYN is always sent");
        state.follow(&syn(5000).0);
        assert!(state.is_unwanted(&request(0, REQUEST).0), "a SYN proves nothing");
        state.follow(&syn_ack(5000).0);
        assert!(!state.is_unwanted(&request(0, REQUEST).0));
        assert!(!state.heeds_verdict(&request(0, REQUEST).0, 0), "none was ever written");
        assert!(state.heeds_verdict(&request(0, REQUEST).0, 1));
        state.heeded_epoch = 1;
        assert!(!state.heeds_verdict(&request(0, REQUEST).0, 1), "there was none a moment ago");
        assert!(state.heeds_verdict(&request(0, REQUEST).0, 2));
    }

    #[test]
    fn the_end_of_what_was_seen_is_noted() {
        let mut state = opened();
        assert_eq!(state.next_sequence, [CLIENT_ISN.wrapping_add(1), SERVER_ISN + 1]);
        let (mut facts, _) = request(0, REQUEST);
        facts.flags |= TCP_FIN;
        state.note(&facts, 17);
        let end = CLIENT_ISN.wrapping_add(2 + REQUEST.len() as u32);
        assert_eq!((state.next_sequence[0], state.last_time_ns), (end, 17));
    }
}
