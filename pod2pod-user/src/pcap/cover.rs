//! Which bytes of a disclosure may be seen: what a record could show, and what framing takes. Everything else is covered.
//!
//! Pure. Names of fields are seen, values only of fields that records show or that say how a message is framed; in these and
//! in targets, what redaction replaces is covered.

use crate::{
    enrich::redact,
    http::{Config, Disclosure, Message, What},
};

/// Stands for every byte of a head that is not to be seen.
pub const COVER: u8 = b'*';

/// Fields whose values say who was asked, and where messages begin and end; lower-case.
const ALWAYS_SEEN: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The fields whose values may be seen.
#[derive(Clone, Debug)]
pub struct Cover {
    request: Vec<Vec<u8>>,
    response: Vec<Vec<u8>>,
}

impl Cover {
    /// Fields that records show under `config` may be seen.
    pub fn new(config: &Config) -> Self {
        let names = |configured: &[String]| {
            let configured = configured.iter().map(|name| name.to_ascii_lowercase().into_bytes());
            ALWAYS_SEEN.iter().map(|name| name.as_bytes().to_vec()).chain(configured).collect()
        };
        Self { request: names(&config.request_headers), response: names(&config.response_headers) }
    }

    /// The disclosed bytes with everything covered that is not to be seen.
    pub fn apply(&self, disclosure: &Disclosure) -> Vec<u8> {
        let Disclosure { bytes, parts, message, .. } = disclosure;
        let mut out = vec![COVER; bytes.len()];
        for part in parts {
            let seen = bytes.get(part.range.clone()).unwrap_or_default();
            let Some(place) = out.get_mut(part.range.clone()) else { continue };
            match &part.what {
                What::Structure => {}
                What::Target => {
                    place.copy_from_slice(seen);
                    redact::cover_url(place, COVER);
                }
                What::Value(name) => {
                    let name = bytes.get(name.clone()).unwrap_or_default().to_ascii_lowercase();
                    if self.sees(*message, &name) {
                        place.copy_from_slice(seen);
                        redact::cover_header(&name, place, COVER);
                    }
                }
            }
        }
        // Last: line ends within a folded value stay.
        for part in parts.iter().filter(|part| part.what == What::Structure) {
            let seen = bytes.get(part.range.clone()).unwrap_or_default();
            if let Some(place) = out.get_mut(part.range.clone()) {
                place.copy_from_slice(seen);
            }
        }
        out
    }

    fn sees(&self, message: Message, name: &[u8]) -> bool {
        let names = match message {
            Message::Request => &self.request,
            Message::Response => &self.response,
        };
        names.iter().any(|seen| seen == name)
    }
}
