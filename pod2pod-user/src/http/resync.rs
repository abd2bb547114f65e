//! Resynchronisation: finds the next message in a direction whose message borders are not known.
//!
//! A start line begins one if its whole head is clean; the rule is in the stage's head comment. Reads line by line, so
//! where the stream was cut makes no difference.

use super::{
    head,
    reader::{Input, Reader, Room, Step},
    start_line,
};

/// Bytes kept of a long line while a message start is searched for: a start line longer than this is not found.
const MAX_SOUGHT_LINE: usize = 8 * 1024;

impl Reader {
    /// Looks for a start line whose head is clean to its end.
    pub(super) fn lost_step<'a>(&mut self, input: &mut Input<'a>, room: Room) -> Step<'a> {
        let mut skipped = 0;
        loop {
            if self.buffer.len() > self.line_start && self.buffer.last() == Some(&b'\n') {
                skipped += self.lost_line();
                if self.begun && self.line_start == usize::MAX {
                    return self.give_head();
                }
                if skipped > 0 {
                    return Step::Skipped(skipped);
                }
                continue;
            }
            if input.bytes.is_empty() {
                return if skipped > 0 { Step::Skipped(skipped) } else { Step::NeedMore };
            }
            if self.buffer.is_empty() {
                self.place = input.place;
            }
            let (piece, _) = head::split_line(input.bytes);
            let full = self.buffer.len() + piece.len() > room.max_head || piece.len() > room.left;
            if self.begun && full {
                // The candidate is longer than a head may be, or than may be kept: its last line is looked at like any other.
                skipped += self.drop_front(self.line_start);
                self.begun = false;
                self.line_start = 0;
                continue;
            }
            skipped += self.keep_sought(input, piece.len(), room);
        }
    }

    /// Appends a piece of a line, of which the last [`MAX_SOUGHT_LINE`] bytes are kept; bytes that were passed over.
    fn keep_sought(&mut self, input: &mut Input<'_>, length: usize, room: Room) -> u64 {
        self.latest = input.place.time;
        let mut skipped = 0;
        if self.begun {
            self.buffer.extend_from_slice(input.take(length));
            return 0;
        }
        if length > room.left {
            skipped += self.drop_front(self.buffer.len());
            self.torn = true;
            input.take(length);
            return skipped + length as u64;
        }
        let over = (self.buffer.len() + length).saturating_sub(MAX_SOUGHT_LINE);
        let old = over.min(self.buffer.len());
        skipped += self.drop_front(old);
        self.torn |= over > 0;
        let new = over - old;
        if new > 0 {
            input.take(new);
            self.place = input.place;
            skipped += new as u64;
        }
        self.buffer.extend_from_slice(input.take(length - new));
        skipped
    }

    /// Judges the line just completed; bytes that were passed over. `line_start` is `usize::MAX` behind a whole head.
    fn lost_line(&mut self) -> u64 {
        let line = self.buffer.get(self.line_start..).unwrap_or_default();
        if self.begun {
            if head::is_empty_line(line) {
                self.line_start = usize::MAX;
                return 0;
            }
            if head::is_clean_field(line) {
                self.line_start = self.buffer.len();
                return 0;
            }
            let start = std::mem::take(&mut self.line_start);
            self.begun = false;
            return self.drop_front(start);
        }
        match start_line::find(line, self.wanted, std::mem::take(&mut self.torn)) {
            Some(at) => {
                self.begun = true;
                let skipped = self.drop_front(at);
                self.line_start = self.buffer.len();
                skipped
            }
            None => self.drop_front(self.buffer.len()),
        }
    }

    /// Forgets the first bytes of the buffer; how many.
    pub(super) fn drop_front(&mut self, length: usize) -> u64 {
        self.buffer.drain(..length.min(self.buffer.len()));
        self.place.offset = self.place.offset.wrapping_add(length as u64);
        if length > 0 {
            self.place.time = self.place.time.max(self.latest);
        }
        length as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reader::Place;

    /// Whether a message is found whose start line has `length` bytes and comes behind bytes of no message.
    fn finds(length: usize) -> bool {
        let target = "t".repeat(length - "GET / HTTP/1.1\r\n".len());
        let bytes = format!("rubbish\nGET /{target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut input = Input { bytes: bytes.as_bytes(), place: Place::default() };
        let mut reader = Reader::new(true);
        reader.lose();
        let room = Room { max_head: 64 * 1024, left: 64 * 1024 };
        loop {
            match reader.step(&mut input, room) {
                Step::KeptHead(head, place) => return head.starts_with(b"GET") && place.offset == 8,
                Step::NeedMore => return false,
                Step::Head(..)
                | Step::CutHead(..)
                | Step::Body { .. }
                | Step::Broken(..)
                | Step::Proxy(_)
                | Step::Http2(_)
                | Step::Foreign(_)
                | Step::Skipped(_) => {}
            }
        }
    }

    #[test]
    fn a_start_line_at_its_limit_and_one_past() {
        assert!(finds(MAX_SOUGHT_LINE));
        assert!(!finds(MAX_SOUGHT_LINE + 1));
    }
}
