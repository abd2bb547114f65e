//! What the stage keeps of messages, and when it gives up. The defaults and their reasons are beside the stage.

use std::time::Duration;

use super::{
    DEFAULT_KNOWN_HEADS, DEFAULT_MAX_BUSY, DEFAULT_MAX_HEAD, DEFAULT_MAX_KEPT, DEFAULT_MAX_OPEN_BYTES,
    DEFAULT_MAX_PENDING, DEFAULT_PROGRESS, DEFAULT_TIMEOUT,
};

/// What to keep and when to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// See [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// See [`DEFAULT_PROGRESS`].
    pub progress: Duration,
    /// See [`DEFAULT_MAX_HEAD`]; a longer head is told by its first part, with outcome `gap`.
    pub max_head: usize,
    /// See [`DEFAULT_MAX_PENDING`]; a request past it is told at once without its response, with outcome `gap`.
    pub max_pending: usize,
    /// See [`DEFAULT_MAX_KEPT`]; the head or prefix that would pass it is given up.
    pub max_kept: usize,
    /// See [`DEFAULT_MAX_OPEN_BYTES`]; a request past it is told at once without its response, with outcome `gap`.
    pub max_open_bytes: usize,
    /// See [`DEFAULT_KNOWN_HEADS`]; none if 0.
    pub known_heads: usize,
    /// See [`DEFAULT_MAX_BUSY`]; of one past it, what is open is told at once, with outcome `gap`.
    pub max_busy: usize,
    /// Connections that there is room for from the start: a table that grows is there twice while it does.
    pub reserve: usize,
    /// Request header fields to keep beside `Host`, `User-Agent` and `traceparent`, in any case.
    pub request_headers: Vec<String>,
    /// Response header fields to keep, in any case.
    pub response_headers: Vec<String>,
    /// First bytes of request content to keep.
    pub request_body_prefix: usize,
    /// First bytes of response content to keep.
    pub response_body_prefix: usize,
    /// Header fields to keep of requests and responses, beside these: whoever is behind chooses of them.
    pub more_headers: Vec<String>,
    /// First bytes of content to keep of connections of which more is wanted, if that is more.
    pub more_body_prefix: usize,
    /// First bytes of content to keep of all connections, if that is more.
    pub closer_body_prefix: usize,
    /// See [`DEFAULT_MIN_SKIP`]; absent where the capture cannot leave anything out.
    pub min_skip: Option<u64>,
    /// Also say what the bytes of heads and framing are, see [`super::HttpTracker::pop_disclosure`].
    pub disclose: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            progress: DEFAULT_PROGRESS,
            max_head: DEFAULT_MAX_HEAD,
            max_pending: DEFAULT_MAX_PENDING,
            max_kept: DEFAULT_MAX_KEPT,
            max_open_bytes: DEFAULT_MAX_OPEN_BYTES,
            known_heads: DEFAULT_KNOWN_HEADS,
            max_busy: DEFAULT_MAX_BUSY,
            reserve: 0,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            request_body_prefix: 0,
            response_body_prefix: 0,
            more_headers: Vec::new(),
            more_body_prefix: 0,
            closer_body_prefix: 0,
            min_skip: None,
            disclose: false,
        }
    }
}

impl Config {
    /// First bytes of content to keep of a connection, if `own` are of any.
    pub(super) const fn content(&self, own: usize, keeps_more: bool) -> usize {
        let own = if keeps_more && self.more_body_prefix > own { self.more_body_prefix } else { own };
        if self.closer_body_prefix > own { self.closer_body_prefix } else { own }
    }
}
