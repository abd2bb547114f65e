//! One worker's way from segments to the queue of the file: holds them, shows what may be seen, and makes packets of them.
//!
//! Owns what waits; touches no file.

use super::{
    Config, Output, Stats,
    block::{self, Packet},
    comment,
    cover::Cover,
    hold::{self, Held, Hold},
    packet,
};
use crate::{
    capture::{KernelInstant, Segment},
    delivery::Batch,
    enrich::{Redaction, WallOffset},
    http::{self, Disclosure},
    reassembly::Connection,
    record::Record,
};

/// A batch is handed on at this size, bytes: large enough that a write costs nothing a packet.
const BATCH_BYTES: usize = 64 * 1024;

/// What decides how packets are written.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Whether secrets are covered.
    pub redaction: Redaction,
    /// Which fields records show.
    pub http: &'a http::Config,
    /// Connections are judged by a filter.
    pub is_judged: bool,
}

/// A worker's part of the writing.
#[derive(Debug)]
pub struct Recorder {
    hold: Hold,
    /// Absent if everything may be seen.
    cover: Option<Cover>,
    batch: Batch,
    output: Output,
}

impl Recorder {
    /// Writes to `output` by `rules`.
    pub fn new(config: &Config, rules: &Rules<'_>, output: Output) -> Self {
        let is_raw = rules.redaction == Redaction::Off;
        let hold = hold::Config { held_bytes: config.held_bytes, is_raw, is_judged: rules.is_judged };
        let cover = (!is_raw).then(|| Cover::new(rules.http));
        Self { hold: Hold::new(hold), cover, batch: Batch::default(), output }
    }

    /// Whether it has to be told what bytes are.
    pub const fn wants_disclosures(&self) -> bool {
        self.cover.is_some()
    }

    /// Takes a segment, before any stage has seen it.
    pub fn take(&mut self, segment: &Segment<'_>, wall: WallOffset) {
        self.release(segment.time);
        self.hold.take(segment, wall.wall_nanos(segment.time));
    }

    /// Takes what the HTTP stage knows of bytes.
    pub fn disclose(&mut self, disclosure: &Disclosure) {
        if let Some(cover) = &self.cover {
            self.hold.disclose(disclosure, &cover.apply(disclosure));
        }
    }

    /// Names the exchange of `record`, on `connection`, at the packet that completed it.
    pub fn comment(&mut self, connection: &Connection, record: &Record) {
        self.hold.comment(connection, comment::of(record));
    }

    /// A connection is wanted.
    pub fn want(&mut self, connection: &Connection) {
        self.hold.want(connection);
    }

    /// A connection is not wanted.
    pub fn refuse(&mut self, connection: &Connection) {
        self.hold.refuse(connection);
    }

    /// Hands on what has waited long enough at `now`.
    pub fn release(&mut self, now: KernelInstant) {
        while let Some(held) = self.hold.pop(Some(now)) {
            self.write(&held);
        }
    }

    /// Hands on what is not to wait for a batch to fill up.
    pub fn flush(&mut self) {
        if self.batch.records > 0 {
            self.batch.bytes = self.output.push(std::mem::take(&mut self.batch));
        }
    }

    /// Hands on everything: nothing more comes that could explain it.
    pub fn finish(&mut self) {
        while let Some(held) = self.hold.pop(None) {
            self.write(&held);
        }
        self.flush();
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        self.hold.stats()
    }

    fn write(&mut self, held: &Held) {
        let Self { batch, output, .. } = self;
        let mut comments = held.comments.as_slice();
        packet::make(&held.facts, held.payload(), &mut |bytes, original| {
            let packet = Packet { time: held.wall, bytes, original, way: held.way, comments };
            block::push_packet(&mut batch.bytes, &packet);
            batch.records += 1;
            comments = &[];
            if batch.bytes.len() >= BATCH_BYTES {
                batch.bytes = output.push(std::mem::take(batch));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_file_holds_the_largest_batch() {
        let most = BATCH_BYTES + packet::MAX_PIECE + hold::MAX_COMMENT_BYTES + 4096;
        assert!((most + block::begin().len()) as u64 <= super::super::MIN_FILE_BYTES);
    }
}
