//! One direction of a connection: where its stream stands, what came before its turn, where it ends.
//!
//! Offsets are 64 bits: sequence numbers are extended by their distance from the next expected one, so streams pass
//! 4 GiB unharmed. Delivers nothing itself and knows nothing of the other direction but the offsets that its own
//! pieces must wait for.

use std::collections::BTreeMap;

use super::{
    Course,
    config::{HELD_OVERHEAD, JOIN_REACH, MAX_WINDOW, PIECE_OVERHEAD, SIGHTING_WINDOW},
};
use crate::capture::{Direction, KernelInstant, Segment};

/// What a held piece carries.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Box<[u8]>),
    /// Bytes that the capture cut.
    Cut(u64),
}

/// Bytes that came before their turn. Pieces never overlap: the first copy of a byte keeps its place.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) content: Content,
    pub(super) mark: Mark,
}

impl Piece {
    pub(super) fn length(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Cut(length) => *length,
        }
    }

    fn cost(&self) -> usize {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() + PIECE_OVERHEAD,
            Content::Cut(_) => PIECE_OVERHEAD,
        }
    }
}

/// What comes with a segment, for its bytes and its FIN alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Packet time.
    pub(super) time: KernelInstant,
    /// When reassembly took it.
    pub(super) arrived: KernelInstant,
    /// Offset that the other direction must have reached first.
    pub(super) after: u64,
}

/// The end of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fin {
    pub(super) offset: u64,
    pub(super) mark: Mark,
}

/// A payload segment that was sighted, to tell a second sighting from a retransmission.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    sequence: u32,
    length: u32,
    time: KernelInstant,
}

/// What came before its turn; there is something.
#[derive(Debug, Default)]
struct Held {
    pieces: BTreeMap<u64, Piece>,
    /// Of the pieces.
    cost: usize,
    /// Where the sender ends, once seen and until delivered.
    fin: Option<Fin>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.fin.is_none()
    }

    fn insert(&mut self, offset: u64, piece: Piece) {
        self.cost += piece.cost();
        self.pieces.insert(offset, piece);
    }
}

// What a tree's first node takes is counted with what holds it (alloc::collections::btree: eleven entries).
const _: () = assert!(
    HELD_OVERHEAD >= size_of::<Held>() + 11 * size_of::<(u64, Piece)>() + 32
        && PIECE_OVERHEAD >= 2 * size_of::<(u64, Piece)>()
);

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Sequence number of offset 0.
    base: u32,
    /// Sequence number that the numbering began with.
    pub(super) first: u32,
    /// Numbering is known: a sequence number of this direction, or its acknowledgement, was seen.
    pub(super) known: bool,
    /// A segment of this direction was taken: until then the numbering is what the other end acknowledged.
    pub(super) heard: bool,
    /// Joined: where the stream begins is not settled, and that nothing comes before it is no gap.
    pub(super) joining: bool,
    /// FIN was delivered; `next` is one past it.
    pub(super) finished: bool,
    /// Offset of the next byte to deliver.
    pub(super) next: u64,
    /// End of what was seen.
    pub(super) highest: u64,
    /// Highest offset that the other end acknowledged.
    pub(super) acknowledged: u64,
    /// When `acknowledged` went past `next`; absent while it is not.
    pub(super) acknowledged_at: Option<KernelInstant>,
    /// What came before its turn: of most connections, most of the time, nothing.
    held: Option<Box<Held>>,
    /// The capture was told to leave out what is below this offset.
    pub(super) cut_below: u64,
    /// How far the capture was told that this direction was read.
    told_read: u64,
    /// Our own capture lost something below this offset.
    lost_below: u64,
    /// The last gap: bytes that come later after all are late, not seen again.
    last_gap: (u64, u64),
    /// Of a connection seen on a path.
    sightings: Option<Box<[Sighting; 4]>>,
    sighting: u8,
}

impl Half {
    /// Fixes the numbering: `sequence` is the next byte's and gets `offset`.
    pub(super) fn begin(&mut self, sequence: u32, offset: u64) {
        self.base = sequence.wrapping_sub(offset as u32);
        self.first = sequence;
        self.known = true;
        self.next = offset;
        self.highest = offset;
        self.told_read = offset;
        self.acknowledged = offset;
        self.acknowledged_at = None;
    }

    /// As [`Self::begin`], but bytes up to [`JOIN_REACH`] before are taken for a while.
    pub(super) fn join(&mut self, sequence: u32, offset: u64) {
        self.begin(sequence, offset);
        self.next = offset.saturating_sub(u64::from(JOIN_REACH));
        self.acknowledged = self.next;
        self.joining = self.next < offset;
    }

    /// Nothing more is expected before the stream's first byte.
    pub(super) fn settle_start(&mut self, start: u64) {
        self.advance(start.saturating_sub(self.next));
    }

    /// The offset of a sequence number, extended by its distance from the next expected one. Negative: before 0.
    pub(super) fn offset_of(&self, sequence: u32) -> i64 {
        let distance = sequence.wrapping_sub(self.base).wrapping_sub(self.next as u32) as i32;
        self.next as i64 + i64::from(distance)
    }

    /// Whether `offset` is so near that a segment there can be true.
    pub(super) fn believes(&self, offset: i64) -> bool {
        let next = self.next as i64;
        let furthest = next.max(self.cut_below as i64) + i64::from(MAX_WINDOW);
        offset >= next - i64::from(MAX_WINDOW) && offset <= furthest
    }

    /// Notes that what is missing below `offset` is left out on purpose. At most half the sequence space ahead.
    pub(super) fn expect_cut(&mut self, offset: u64) {
        let begins = !self.is_skipping();
        self.cut_below = self.cut_below.max(offset.min(self.next + u64::from(u32::MAX / 2 - MAX_WINDOW)));
        if begins && self.acknowledged > self.next {
            self.acknowledged -= self.may_be_finish(self.acknowledged);
            self.acknowledged_at = self.acknowledged_at.filter(|_| self.acknowledged > self.next);
        }
    }

    /// Whether the capture leaves out what comes next.
    pub(super) const fn is_skipping(&self) -> bool {
        self.cut_below > self.next
    }

    /// Whether `offset` lies ahead, within what the capture leaves out.
    pub(super) const fn skips(&self, offset: u64) -> bool {
        self.next < offset && offset <= self.cut_below
    }

    /// Notes that the sender has sent everything below `offset`: what is missing was left out on purpose, as far as that was
    /// asked for.
    pub(super) fn note_sent(&mut self, offset: u64, mark: Mark) {
        let end = offset.min(self.cut_below);
        if end > self.next {
            self.hold(self.next, &[], end - self.next, mark);
        }
    }

    /// Bytes read that the capture does not know of.
    pub(super) const fn untold(&self) -> u64 {
        self.highest.saturating_sub(self.told_read)
    }

    /// What the capture is to know; from here on it does.
    pub(super) fn course(&mut self) -> Course {
        if !self.known {
            return Course::default();
        }
        self.told_read = self.highest;
        let sequence = |offset: u64| self.base.wrapping_add(offset as u32);
        let until = (self.cut_below > self.highest).then(|| sequence(self.cut_below));
        Course { read: Some(sequence(self.highest)), until }
    }

    /// How many bytes from `next` on were left out on purpose, as far as later ones or an acknowledgement show it.
    pub(super) fn left_out(&self) -> u64 {
        let shown = self.hole_end().unwrap_or(0);
        let shown = if shown == 0 && self.acknowledged_at.is_some() { self.acknowledged } else { shown };
        shown.min(self.cut_below).saturating_sub(self.next)
    }

    /// The sequence number of the next byte.
    pub(super) const fn next_sequence(&self) -> u32 {
        self.base.wrapping_add(self.next as u32)
    }

    /// The offset that an acknowledgement of this direction stands for, if it can be true.
    pub(super) fn acknowledgement(&self, number: u32) -> Option<u64> {
        let offset = self.offset_of(number);
        let end = match self.fin() {
            Some(fin) => fin.offset + 1,
            None if self.finished => self.next,
            None => u64::MAX,
        };
        (self.believes(offset) && offset >= 0 && offset as u64 <= end).then_some(offset as u64)
    }

    /// Notes that the other end has everything below `offset`.
    pub(super) fn note_acknowledged(&mut self, offset: u64, now: KernelInstant) {
        self.acknowledged = self.acknowledged.max(offset - self.may_be_finish(offset));
        if self.acknowledged > self.next && self.acknowledged_at.is_none() {
            self.acknowledged_at = Some(now);
        }
    }

    /// 1 if what ends before `offset` may be a FIN, which has a number and is no byte: inside a skip nobody can tell.
    fn may_be_finish(&self, offset: u64) -> u64 {
        u64::from(self.skips(offset) && offset < self.cut_below)
    }

    /// Notes that our own capture lost something below `offset`.
    pub(super) fn note_lost(&mut self, offset: u64) {
        self.lost_below = self.lost_below.max(offset);
    }

    /// Whether the bytes at `next` were there: our own capture is known to have lost, or the receiver has them.
    pub(super) fn is_loss_ours(&self) -> bool {
        self.lost_below > self.next || self.acknowledged > self.next
    }

    /// The FIN is delivered: nothing of this direction follows. Gives the bytes that were held beyond it.
    pub(super) fn finish(&mut self) -> u64 {
        self.finished = true;
        self.next += 1;
        self.highest = self.next;
        self.acknowledged = self.acknowledged.min(self.next);
        self.acknowledged_at = None;
        self.held.take().map_or(0, |held| held.pieces.values().map(Piece::length).sum())
    }

    /// Moves past `length` bytes that were delivered or given up.
    pub(super) fn advance(&mut self, length: u64) {
        self.joining = false;
        self.next += length;
        self.highest = self.highest.max(self.next);
        if self.acknowledged_at.is_some() && self.acknowledged <= self.next {
            self.acknowledged_at = None;
        }
    }

    /// Moves past a gap.
    pub(super) fn give_up(&mut self, length: u64) {
        self.last_gap = (self.next, self.next + length);
        self.advance(length);
    }

    /// How many of the bytes from `start` to `end`, all below `next`, were given up before they came.
    pub(super) fn late(&self, start: i64, end: u64) -> u64 {
        let start = u64::try_from(start).unwrap_or(0).max(self.last_gap.0);
        end.min(self.last_gap.1).saturating_sub(start)
    }

    /// Whether everything below `offset` was told or never will be: after a FIN nothing comes, whatever was acknowledged.
    /// Inside a skip, a last number that may be a FIN's is not waited for.
    pub(super) const fn is_past(&self, offset: u64) -> bool {
        self.finished || self.next >= offset || (self.is_skipping() && self.next + 1 >= offset)
    }

    /// Nothing waits in this direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.held.is_none() && self.acknowledged_at.is_none()
    }

    /// What is held costs so much; nothing if nothing is.
    pub(super) fn held_cost(&self) -> usize {
        self.held.as_ref().map_or(0, |held| HELD_OVERHEAD + held.cost)
    }

    pub(super) fn held_pieces(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.pieces.len())
    }

    /// The first held piece.
    pub(super) fn front(&self) -> Option<(u64, &Piece)> {
        self.held.as_ref()?.pieces.first_key_value().map(|(offset, piece)| (*offset, piece))
    }

    /// Where the sender ends, once seen and until delivered.
    pub(super) fn fin(&self) -> Option<Fin> {
        self.held.as_ref()?.fin
    }

    /// Notes where the sender ends.
    pub(super) fn hold_fin(&mut self, fin: Fin) {
        self.held.get_or_insert_default().fin = Some(fin);
    }

    /// Lets the first held piece and the FIN go without waiting for the other direction.
    pub(super) fn release_front(&mut self) {
        let Some(held) = &mut self.held else { return };
        if let Some(mut entry) = held.pieces.first_entry() {
            entry.get_mut().mark.after = 0;
        }
        if let Some(fin) = &mut held.fin {
            fin.mark.after = 0;
        }
    }

    /// Takes the first held piece out.
    pub(super) fn take_front(&mut self) -> Option<Piece> {
        let held = self.held.as_mut()?;
        let (_, piece) = held.pieces.pop_first()?;
        held.cost -= piece.cost();
        if held.is_empty() {
            self.held = None;
        }
        Some(piece)
    }

    /// Whether a held piece has the byte at `offset`.
    pub(super) fn holds(&self, offset: u64) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let last = held.pieces.range(..=offset).next_back();
            last.is_some_and(|(start, piece)| start + piece.length() > offset)
        })
    }

    /// Where the first held piece or the FIN is: the end of the hole at `next`, if there is one.
    pub(super) fn hole_end(&self) -> Option<u64> {
        let piece = self.front().map(|(offset, _)| offset);
        let fin = self.fin().map(|fin| fin.offset);
        piece.into_iter().chain(fin).min()
    }

    /// Holds the bytes of a segment that have no copy yet: `length` bytes from `start` on, of which `bytes` were
    /// captured. Gives how many had no copy.
    pub(super) fn hold(&mut self, start: u64, bytes: &[u8], length: u64, mark: Mark) -> u64 {
        let captured_end = start + bytes.len() as u64;
        let end = start + length;
        let mut new = 0;
        let mut at = start.max(self.next);
        let held = self.held.get_or_insert_default();
        if let Some((offset, piece)) = held.pieces.range(..=at).next_back() {
            at = at.max(offset + piece.length());
        }
        while at < end {
            let (stop, resume) = match held.pieces.range(at..end).next() {
                Some((offset, piece)) => (*offset, offset + piece.length()),
                None => (end, end),
            };
            new += stop - at;
            let cut_at = captured_end.clamp(at, stop);
            let range = (at - start) as usize..(cut_at - start) as usize;
            if let Some(bytes) = bytes.get(range).filter(|bytes| !bytes.is_empty()) {
                held.insert(at, Piece { content: Content::Bytes(bytes.into()), mark });
            }
            if stop > cut_at {
                held.insert(cut_at, Piece { content: Content::Cut(stop - cut_at), mark });
            }
            at = resume;
        }
        if held.is_empty() {
            self.held = None;
        }
        self.highest = self.highest.max(end);
        new
    }

    /// Notes the first sighting of a payload segment; a socket end sees none twice.
    pub(super) fn note_sighting_of(&mut self, segment: &Segment<'_>) {
        if segment.direction == Direction::Path {
            self.note_sighting(segment.sequence, segment.payload_length, segment.time);
        }
    }

    fn note_sighting(&mut self, sequence: u32, length: u32, time: KernelInstant) {
        let sightings = self.sightings.get_or_insert_default();
        if let Some(entry) = sightings.get_mut(usize::from(self.sighting)) {
            *entry = Sighting { sequence, length, time };
        }
        self.sighting = (self.sighting + 1) % 4;
    }

    /// Whether a segment that was seen whole is a packet's second sighting.
    pub(super) fn is_second_sighting(&self, sequence: u32, length: u32, time: KernelInstant) -> bool {
        self.sightings.iter().flat_map(|sightings| sightings.iter()).any(|first| {
            first.sequence == sequence
                && first.length == length
                && first.length > 0
                && time.since(first.time).max(first.time.since(time)) <= SIGHTING_WINDOW
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark =
        Mark { time: KernelInstant::from_nanos(0), arrived: KernelInstant::from_nanos(0), after: 0 };

    fn contents(half: &mut Half) -> Vec<(u64, String)> {
        let mut contents = Vec::new();
        while let Some((offset, _)) = half.front() {
            let piece = half.take_front().unwrap();
            contents.push(match piece.content {
                Content::Bytes(bytes) => (offset, String::from_utf8(bytes.into()).unwrap()),
                Content::Cut(length) => (offset, "-".repeat(length as usize)),
            });
        }
        assert_eq!(half.held_cost(), 0);
        contents
    }

    fn check(segments: &[(u64, &str, u64)], expected: &[(u64, &str)]) {
        let mut half = Half::default();
        half.begin(500, 1);
        for (start, bytes, length) in segments {
            half.hold(*start, bytes.as_bytes(), *length, MARK);
        }
        let expected: Vec<_> = expected.iter().map(|(offset, text)| (*offset, (*text).to_owned())).collect();
        assert_eq!(contents(&mut half), expected);
    }

    #[test]
    fn first_copy_of_each_byte_keeps_its_place() {
        check(&[(5, "abc", 3), (5, "XXX", 3)], &[(5, "abc")]);
        check(&[(5, "abc", 3), (4, "XXXXX", 5)], &[(4, "X"), (5, "abc"), (8, "X")]);
        check(&[(5, "abc", 3), (6, "XXXX", 4)], &[(5, "abc"), (8, "XX")]);
        check(
            &[(5, "a", 1), (7, "b", 1), (9, "c", 1), (4, "XXXXXXX", 7)],
            &[(4, "X"), (5, "a"), (6, "X"), (7, "b"), (8, "X"), (9, "c"), (10, "X")],
        );
        check(&[(0, "XYZ", 3)], &[(1, "YZ")]);
        check(&[(5, "ab", 4), (6, "XXXX", 4)], &[(5, "ab"), (7, "--"), (9, "X")]);
        check(&[(7, "c", 1), (5, "a", 5)], &[(5, "a"), (6, "-"), (7, "c"), (8, "--")]);
    }

    #[test]
    fn offsets_pass_the_wrap_in_both_directions() {
        let mut half = Half::default();
        half.begin(u32::MAX, 1);
        assert_eq!(half.offset_of(u32::MAX), 1);
        assert_eq!(half.offset_of(0), 2);
        assert_eq!(half.offset_of(u32::MAX - 2), -1);
        half.advance(5 << 32);
        assert_eq!(half.offset_of(1), (5 << 32) + 3);
        assert_eq!(half.offset_of(u32::MAX - 1), 5 << 32);
    }

    #[test]
    fn an_acknowledgement_beyond_the_end_or_the_window_is_not_believed() {
        let mut half = Half::default();
        half.begin(100, 1);
        assert_eq!(half.acknowledgement(100 + MAX_WINDOW), Some(1 + u64::from(MAX_WINDOW)));
        assert_eq!(half.acknowledgement(101 + MAX_WINDOW), None);
        half.hold_fin(Fin { offset: 4, mark: MARK });
        assert_eq!(half.acknowledgement(104), Some(5));
        assert_eq!(half.acknowledgement(105), None);
    }
}
