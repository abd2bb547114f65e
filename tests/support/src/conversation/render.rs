//! A conversation's script turned into segments: numbers, times and cuts.

use pod2pod_common::segment as contract;
use pod2pod_user::capture::{Direction, KernelInstant, TcpFlags};

use super::{Conversation, OwnedSegment, Speaker, Step, View};

/// Renders a script: the two ends' positions as they go.
pub(super) struct Renderer<'a> {
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
    pub(super) fn new(script: &'a Conversation) -> Self {
        Self {
            script,
            time: script.start,
            next: [script.client_isn.wrapping_add(1), script.server_isn.wrapping_add(1)],
            said: [0; 2],
            heard: [true; 2],
            segments: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Vec<OwnedSegment> {
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
            skipped_before: false,
            generation: None,
            cgroup_id: 0,
            socket_cookie: script.cookie,
            interface_index: script.interface,
            unreachable: None,
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
