//! HTTP: conversations in, exchanges out, each at every split point.

mod foreign;
mod framing;
mod gaps;
mod heads;
mod limits;
mod pairing;
mod properties;
mod rescue;

use support::http::Talk;

/// A request without a body.
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A response with two bytes.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A GET of `path`.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// A response with `body`.
fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
