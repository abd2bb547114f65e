//! Steering: a capture that leaves out what nobody looks into tells the same exchanges as one that sends everything.

mod edges;
mod properties;

use pod2pod_user::http::Config;
use support::{
    conversation::{Conversation, OwnedSegment},
    steered::{Manner, Told, run},
};

/// Bodies of so many bytes to come are skipped.
const MIN_SKIP: u64 = 60;

/// A GET of `path`.
fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// An upload to `path` of `length` bytes.
fn post(path: &str, length: usize) -> Vec<u8> {
    Writer(MESSAGES).post(path, length)
}

/// A response with a body of `length` bytes.
fn ok(length: usize) -> Vec<u8> {
    Writer(MESSAGES).ok(length)
}

/// A response in chunks of these lengths.
fn chunked(lengths: &[usize]) -> Vec<u8> {
    Writer(MESSAGES).chunked(lengths)
}

/// Content that would be read as messages wherever it is not known to be content.
const MESSAGES: &[u8] = b"\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\nGET /wrong HTTP/1.1\r\n\r\n";
/// Content that is like nothing else.
const TEXT: &[u8] = b"some text\r\n";

/// Writes messages with content of the kind given.
#[derive(Clone, Copy, Debug)]
struct Writer(&'static [u8]);

impl Writer {
    fn body(self, length: usize) -> impl Iterator<Item = u8> {
        self.0.iter().copied().cycle().take(length)
    }

    fn post(self, path: &str, length: usize) -> Vec<u8> {
        let mut bytes = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        bytes.extend(self.body(length));
        bytes
    }

    fn ok(self, length: usize) -> Vec<u8> {
        self.ok_as("HTTP/1.1 200 OK", length)
    }

    /// As [`Self::ok`], with another start line.
    fn ok_as(self, start: &str, length: usize) -> Vec<u8> {
        let mut bytes = format!("{start}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        bytes.extend(self.body(length));
        bytes
    }

    fn chunked(self, lengths: &[usize]) -> Vec<u8> {
        self.chunked_as("HTTP/1.1 200 OK", lengths)
    }

    /// As [`Self::chunked`], with another start line.
    fn chunked_as(self, start: &str, lengths: &[usize]) -> Vec<u8> {
        let mut bytes = format!("{start}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for &length in lengths {
            bytes.extend(format!("{length:x}\r\n").into_bytes());
            bytes.extend(self.body(length));
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

/// A capture that skips.
fn skipping() -> Manner {
    Manner { min_skip: Some(MIN_SKIP), ..Manner::PLAIN }
}

/// Checks that a capture of that manner tells the same as one that sends everything; gives what it told.
fn check(segments: &[OwnedSegment], manner: &Manner, http: &Config) -> Told {
    let whole = run(segments, &Manner::PLAIN, http);
    let steered = run(segments, manner, http);
    assert_eq!(steered.lines(), whole.lines(), "{manner:?}");
    steered
}

/// As [`check`], both ends, times too.
fn check_in_order(conversation: &Conversation, manner: &Manner) -> Told {
    let http = Config::default();
    let [client, server] = [conversation.clone().seen_by_client(), conversation.clone().seen_by_server()]
        .map(|conversation| {
            let segments = conversation.segments();
            let told = check(&segments, manner, &http);
            assert_eq!(told.times(), run(&segments, &Manner::PLAIN, &http).times(), "{manner:?}");
            told
        });
    assert_eq!(client.lines().len(), server.lines().len());
    server
}
