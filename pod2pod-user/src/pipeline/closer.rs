//! Follows who looks closer: what the tracker keeps, and what of it is everybody's.

use super::Pipeline;
use crate::{enrich, http};

impl Pipeline {
    /// Keeps what is asked for now, if that is other than before.
    #[inline]
    pub(super) fn look_closer(&mut self) {
        let version = Some(self.closer.version());
        if version != self.closer_version {
            self.closer_version = version;
            self.follow_closer();
        }
    }

    #[cold]
    fn follow_closer(&mut self) {
        let asked = self.closer.asked();
        let own = own(self.tracker.config());
        let (headers, body_bytes) =
            asked.as_ref().map_or((&[][..], 0), |asked| (&asked.headers[..], asked.body_bytes));
        self.tracker.look_closer(headers, body_bytes);
        let closer = asked.is_some().then_some(enrich::Closer { content_bytes: body_bytes, ..own });
        self.output.enricher.look_closer(closer);
    }
}

/// What records have anyway, or may have by what pods ask for.
fn own(config: &http::Config) -> enrich::Closer {
    let headers = |own: &[String]| {
        own.iter().chain(&config.more_headers).map(|name| name.to_ascii_lowercase()).collect()
    };
    let bytes = |own: usize| own.max(config.more_body_prefix);
    enrich::Closer {
        own_headers: [headers(&config.request_headers), headers(&config.response_headers)],
        own_bytes: [bytes(config.request_body_prefix), bytes(config.response_body_prefix)],
        content_bytes: 0,
    }
}
