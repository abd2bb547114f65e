//! What one worker has of the live source: a ring, and the way to tell the kernel side of the connections in it.
//!
//! A connection is in one ring, both directions of it, so what its worker says of it nobody else does.

use std::os::fd::{AsFd, BorrowedFd};

use pod2pod_common::flow::FlowKey;

use super::{Drained, ring::Ring, tc_follow::Paths, verdicts::Verdicts};
use crate::{
    capture::{
        Direction, Segment,
        decode::{DecodeError, decode, outline},
    },
    reassembly::{Activity, Connection, Steering},
};

/// What this stage counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records taken from the ring.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets whose last record was handed on.
    pub packets: u64,
    /// Captured payload bytes handed on.
    pub payload_bytes: u64,
    /// Packets whose last record was not understood.
    pub refused_packets: u64,
    /// Captured payload bytes, as they say, of records that were not understood.
    pub refused_bytes: u64,
    /// Records of a layout that this program does not read.
    pub unknown_version: u64,
    /// Records that are no records.
    pub malformed: u64,
    /// Verdicts written.
    pub verdicts_written: u64,
    /// Of these, those that leave out a part of a direction.
    pub skips_written: u64,
    /// Verdicts that the kernel refused.
    pub verdicts_refused: u64,
    /// Verdicts of connections that are over, taken out.
    pub verdicts_deleted: u64,
    /// Own sockets that the table had no place for: of the whole capture, 0 in what one reader counted.
    pub own_sockets_refused: u64,
}

/// Reads one ring.
pub struct Reader {
    pub(super) ring: Ring,
    pub(super) verdicts: Verdicts,
    /// Where neither end of a connection is; none if no interfaces are watched.
    pub(super) paths: Option<Paths>,
    pub(super) stats: Stats,
}

impl Reader {
    /// Hands on at most `max_records` records, each borrowed from ring memory.
    pub fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&Segment<'_>)) -> Drained {
        let Self { ring, stats, paths, .. } = self;
        if let Some(paths) = paths {
            paths.refresh();
        }
        let drained = ring.drain(max_records, &mut |record| {
            let outline = outline(record);
            let refused = match decode(record) {
                Ok(mut segment) => {
                    if paths.as_ref().is_some_and(|paths| paths.contains(segment.interface_index)) {
                        segment.direction = Direction::Path;
                    }
                    stats.packets += u64::from(outline.ends_packet);
                    stats.payload_bytes += segment.payload.len() as u64;
                    return deliver(&segment);
                }
                Err(DecodeError::Version(_)) => &mut stats.unknown_version,
                Err(DecodeError::Truncated | DecodeError::Malformed) => &mut stats.malformed,
            };
            *refused += 1;
            stats.refused_packets += u64::from(outline.ends_packet);
            stats.refused_bytes += u64::from(outline.captured);
        });
        self.stats.malformed += u64::from(drained.broken);
        self.stats.records += drained.records as u64;
        self.stats.bytes += drained.bytes as u64;
        drained
    }

    /// Bytes in the ring that were not read, those of records that are being written among them.
    pub fn unread(&self) -> usize {
        self.ring.unread()
    }

    /// What this reader counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Tells the kernel side what is wanted of a connection.
    pub fn steer(&mut self, steering: &Steering) {
        self.verdicts.write(steering, &mut self.stats);
    }

    /// What was said of these socket ends holds no more: those that are spoken at are met anew.
    pub fn meet_anew(&mut self, ends: &[FlowKey]) {
        ends.iter().for_each(|end| self.verdicts.meet_anew(end));
    }

    /// How a connection stands, of which not everything is sent; absent if the kernel side has forgotten it.
    pub fn activity(&self, connection: &Connection) -> Option<Activity> {
        self.verdicts.activity(connection)
    }
}

impl AsFd for Reader {
    /// For [`super::Wake`]: a filling ring wakes its reader; a slow trickle of records does not, so a timer is needed too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
