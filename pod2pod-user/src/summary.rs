//! The last line: what was seen, delivered and lost.

use std::fmt;

use crate::{enrich, sinks::SinkStats};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Summary {
    enriched: enrich::Stats,
    sinks: Vec<(&'static str, SinkStats)>,
    kernel_lost: u64,
}

impl Summary {
    /// Of what enrichment and the sinks counted.
    pub const fn new(enriched: enrich::Stats, sinks: Vec<(&'static str, SinkStats)>) -> Self {
        Self { enriched, sinks, kernel_lost: 0 }
    }

    /// With segments that the kernel could not hand over.
    pub fn with_kernel_lost(self, kernel_lost: u64) -> Self {
        Self { kernel_lost, ..self }
    }

    /// A sink took no records although its reader was there.
    pub fn output_failed(&self) -> bool {
        self.sinks.iter().any(|(_, stats)| !stats.reader_gone && stats.dropped_failed > 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = self.sinks.first().map(|(_, stats)| *stats).unwrap_or_default();
        let Self { enriched, .. } = self;
        write!(
            formatter,
            "seen {}, delivered {}, lost {}",
            enriched.exchanges,
            output.delivered,
            output.lost()
        )?;
        let parts = [
            (enriched.sampled_away, "sampled away"),
            (enriched.ignored, "ignored"),
            (enriched.own, "own traffic"),
            (self.kernel_lost, "segments lost in the kernel"),
        ];
        for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
            write!(formatter, ", {count} {what}")?;
        }
        for (name, stats) in self.sinks.iter().skip(1) {
            write!(formatter, "; {name}: delivered {}, lost {}", stats.delivered, stats.lost())?;
        }
        Ok(())
    }
}
