//! What a sink counted. Pure.

use std::time::Instant;

use super::{
    CircuitState, DeadStats, Latency, RefusalKind, TroubleKind,
    spool::{Loss, SpoolStats},
};

/// What a sink counted, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SinkStats {
    /// Given to the sink.
    pub received: u64,
    /// Of these, records of reuses: whoever finds them writes beside the workers, and tells of none before it is given.
    pub reuses: u64,
    /// Not given to the sink: they do not fit its filter, or are not of its share.
    pub unwanted: u64,
    /// Taken by the target.
    pub delivered: u64,
    /// Of these, those that the target said it had already.
    pub duplicates: u64,
    /// Lost because the queue was full.
    pub dropped_queue_full: u64,
    /// Lost because the target failed.
    pub dropped_failed: u64,
    /// Lost because the program ended before the target took them.
    pub dropped_shutdown: u64,
    /// Lost because the target will never take them, by [`RefusalKind::ALL`].
    pub refused: [u64; RefusalKind::ALL.len()],
    /// Lost although a spool was to keep them, by [`Loss::ALL`].
    pub dropped_spool: [u64; Loss::ALL.len()],
    /// In the spool when the program ended, for the next start: neither delivered nor lost.
    pub kept: u64,
    /// How the spool stands, if there is one.
    pub spool: Option<SpoolStats>,
    /// What became of these as dead letters, if they are kept.
    pub dead: Option<DeadStats>,
    /// Sent again, each as often as it was.
    pub retried: u64,
    /// Attempts that failed, by [`TroubleKind::ALL`].
    pub troubles: [u64; TroubleKind::ALL.len()],
    /// How long answers took.
    pub latency: Latency,
    /// Whether the target is asked at all, if it is one that may not be.
    pub circuit: Option<CircuitState>,
    /// Why the target does not take what it is sent, and since when, if it does not.
    pub trouble: Option<(TroubleKind, Instant)>,
    /// How many batches may be under way at once.
    pub concurrency: u64,
    /// Bytes queued.
    pub queued_bytes: u64,
    /// How long the oldest record in flight has been there, whole seconds; in the batch being filled none is.
    pub oldest_seconds: u64,
    /// In flight: in the batch being filled, in the queue, and with the target.
    pub in_flight: u64,
    /// The reader went away: what came after was for nobody.
    pub reader_gone: bool,
    /// How often the sink's thread was made to go first, if it ever is.
    pub went_first: Option<u64>,
    /// How often a producer gave it time to make room.
    pub waits: u64,
}

impl SinkStats {
    /// Records lost, whatever the reason.
    pub fn lost(&self) -> u64 {
        self.dropped().iter().map(|(_, count)| count).sum()
    }

    /// Records lost, by reason; a label of metrics.
    pub const fn dropped(&self) -> [(&'static str, u64); 8] {
        let [too_large, rejected] = self.refused;
        let [large, wrong] = RefusalKind::ALL;
        let [spool_full, expired, broken] = self.dropped_spool;
        let [no_room, too_old, not_whole] = Loss::ALL;
        [
            ("queue_full", self.dropped_queue_full),
            ("failed", self.dropped_failed),
            ("shutdown", self.dropped_shutdown),
            (large.as_str(), too_large),
            (wrong.as_str(), rejected),
            (no_room.as_str(), spool_full),
            (too_old.as_str(), expired),
            (not_whole.as_str(), broken),
        ]
    }
    /// Counts records that a spool lost.
    pub(super) const fn lose_spooled(&mut self, loss: Loss, records: u64) {
        let [full, expired, broken] = &mut self.dropped_spool;
        let count = match loss {
            Loss::Full => full,
            Loss::Expired => expired,
            Loss::Broken => broken,
        };
        *count += records;
    }
}
