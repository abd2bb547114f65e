//! What the kernel makes of one segment: which generation it belongs to, and whether its payload is sent.
//!
//! Pure, so that it is tested without a kernel; the packet is read, and the record written, by `pod2pod-ebpf`. It
//! forgets nothing by time: the table's eviction does that.

use crate::{
    flow::{ConnectionState, GATE_HTTP, GATE_IGNORE, GATE_OWN, GATE_UNKNOWN},
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
            reserved: 0,
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
