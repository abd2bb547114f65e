//! What a packet's comment says of the exchange that it completed: what was asked, what came of it, and the record's key.
//!
//! Pure. Made of the record, so of nothing that redaction took out.

use std::fmt::Write as _;

use crate::{
    http,
    record::{Kind, Record, text},
};

/// Longest target in a comment, bytes; a longer one is cut.
pub const MAX_TARGET: usize = 1024;

/// The comment for `record`.
pub fn of(record: &Record) -> String {
    let mut out = String::new();
    match (&record.method, record.kind) {
        // Behind a loss, a method that nobody registered may hold the end of a body.
        (Some(method), _) if !http::is_registered(method) => out.push_str("_OTHER"),
        (Some(method), _) => text::push_printable(&mut out, method),
        (None, Kind::Http2) => out.push_str("HTTP/2"),
        (None, Kind::Http | Kind::IpvsReuse | Kind::Connect) => out.push('-'),
    }
    out.push(' ');
    push_target(&mut out, record);
    if let Some(status) = record.status {
        let _ = write!(out, " {status}");
    }
    let outcome = record.outcome.map_or("in progress", |outcome| outcome.as_str());
    let _ = write!(out, " {outcome}; connection.id {:016x}", record.connection_id);
    if let Some(offset) = record.offset {
        let _ = write!(out, ", exchange.offset {offset}");
    }
    if let Some(index) = record.index {
        let _ = write!(out, ", exchange.index {index}");
    }
    out
}

fn push_target(out: &mut String, record: &Record) {
    let start = out.len();
    match (&record.original, &record.path) {
        (Some(original), _) => text::push_printable(out, original),
        (None, Some(path)) => {
            text::push_printable(out, path);
            if let Some(query) = &record.query {
                out.push('?');
                text::push_printable(out, query);
            }
        }
        (None, None) => out.push('-'),
    }
    if out.len() > start + MAX_TARGET {
        let end = out.floor_char_boundary(start + MAX_TARGET);
        out.truncate(end);
        out.push('…');
    }
}
