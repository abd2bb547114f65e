//! Connections that speak something else, from the start or from an upgrade on: nothing of them is read any more.

use super::{
    MAX_FOREIGN_BYTES, Shared,
    flow::{Flow, Speech},
};
use crate::reassembly::Side;

impl Flow {
    /// Not HTTP: both sides began with something else, or one did and went on for long. Behind SOCKS it may come yet.
    pub(super) fn judge_foreign(&mut self, shared: &mut Shared) {
        let agreed = self.foreign_sides > 1 && !self.socks;
        let foreign = agreed || (self.foreign_sides > 0 && self.foreign_bytes > MAX_FOREIGN_BYTES);
        if foreign && self.client.is_none() && self.speech == Speech::Http1 {
            let counter = if self.tls {
                &mut shared.stats.connections_tls
            } else {
                &mut shared.stats.connections_other
            };
            *counter += 1;
            self.ignore(Speech::Foreign, shared);
        }
    }

    pub(super) fn ignore(&mut self, speech: Speech, shared: &mut Shared) {
        self.speech = speech;
        for side in [Side::Originator, Side::Responder] {
            let reader = self.reader(side);
            let kept = reader.kept();
            reader.lose();
            shared.kept -= kept;
            let counter = match speech {
                Speech::Tunnel => &mut shared.stats.tunnel_bytes,
                Speech::Foreign | Speech::Http1 => &mut shared.stats.foreign_bytes,
            };
            *counter += kept as u64;
        }
        shared.unwanted.push_back(self.connection);
    }
}
