//! Heads: start line and header fields of one whole message head, through `httparse`.
//!
//! What `httparse` refuses is read again line by line, as leniently as real recipients do: a bad header line is marked
//! and skipped, it does not lose the message. Nothing here decides framing or keeps bytes.

use std::mem::MaybeUninit;

use super::{
    exchange::Anomalies,
    start_line::{self, MAX_METHOD, RequestLine, StartLine, StatusLine},
};

/// Header fields read without an allocation; a head with more costs one. Browsers send about 20.
const HEADERS_ON_STACK: usize = 64;

/// Where a head ends: how far the bytes read so far are into a line end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LineState {
    /// Inside a line.
    #[default]
    Inside,
    /// Behind a line's LF.
    Ended,
    /// Behind the CR, or several, that follow a line's LF.
    EndedCr,
}

impl LineState {
    /// Bytes up to and including the empty line, if it is in `bytes`; else the state behind them.
    pub(super) fn find_end(self, bytes: &[u8]) -> Result<usize, Self> {
        let mut at = 0;
        let mut state = self;
        loop {
            match (state, bytes.get(at)) {
                (Self::Ended | Self::EndedCr, Some(b'\n')) => return Ok(at + 1),
                (Self::Ended | Self::EndedCr, Some(b'\r')) => {
                    state = Self::EndedCr;
                    at += 1;
                }
                (_, None) => return Err(state),
                (_, Some(_)) => {
                    let Some(line) = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()) else {
                        return Err(Self::Inside);
                    };
                    at += line + 1;
                    state = Self::Ended;
                }
            }
        }
    }
}

/// Takes what a head says, field by field.
pub(super) trait Visitor {
    /// A header field: name as sent, value as sent (possibly with line ends inside, if folded).
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// As [`Self::field`], of a field on one line.
    #[inline(always)]
    fn clean_field(&mut self, name: &[u8], value: &[u8]) {
        self.field(name, value);
    }
}

/// Reads a request head, its empty line included. Leading empty lines must be gone.
pub(super) fn read_request<'a>(head: &'a [u8], visitor: &mut impl Visitor) -> Option<RequestLine<'a>> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_ON_STACK];
    let mut request = httparse::Request::new(&mut []);
    let read = match request.parse_with_uninit_headers(head, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => return read_long_request(head, visitor),
        read => finish_request(head, &request, read),
    };
    let Some(mut line) = read else { return read_lenient_request(head, visitor) };
    request.headers.iter().for_each(|field| visitor.field(field.name.as_bytes(), field.value));
    mark_bare_line_feeds(head, &mut line.anomalies);
    Some(line)
}

fn read_long_request<'a>(head: &'a [u8], visitor: &mut impl Visitor) -> Option<RequestLine<'a>> {
    let mut fields = vec![httparse::EMPTY_HEADER; count_lines(head)];
    let mut request = httparse::Request::new(&mut fields);
    let read = request.parse(head);
    let Some(mut line) = finish_request(head, &request, read) else {
        return read_lenient_request(head, visitor);
    };
    request.headers.iter().for_each(|field| visitor.field(field.name.as_bytes(), field.value));
    mark_bare_line_feeds(head, &mut line.anomalies);
    Some(line)
}

fn finish_request<'a>(
    head: &'a [u8],
    request: &httparse::Request<'_, 'a>,
    read: httparse::Result<usize>,
) -> Option<RequestLine<'a>> {
    if read != Ok(httparse::Status::Complete(head.len())) {
        return None;
    }
    let target = request.path?.as_bytes();
    // The oddities of a start line are found in one place.
    if !target.is_ascii() || request.method == Some("PRI") {
        return None;
    }
    let method = request.method?.as_bytes();
    if method.len() > MAX_METHOD {
        return None;
    }
    let anomalies = Anomalies::NONE;
    Some(RequestLine { method, target, minor_version: request.version?, anomalies })
}

fn read_lenient_request<'a>(head: &'a [u8], visitor: &mut impl Visitor) -> Option<RequestLine<'a>> {
    let (first, rest) = split_line(head);
    let Some(StartLine::Request(mut line)) = start_line::read(first) else { return None };
    line.anomalies.insert(read_fields(rest, visitor));
    mark_bare_line_feeds(head, &mut line.anomalies);
    Some(line)
}

/// Reads a response head, its empty line included. Leading empty lines must be gone.
pub(super) fn read_response(head: &[u8], visitor: &mut impl Visitor) -> Option<StatusLine> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_ON_STACK];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let read = config.parse_response_with_uninit_headers(&mut response, head, &mut fields);
    let strict =
        read == Ok(httparse::Status::Complete(head.len())) && response.code.is_some_and(|code| code >= 100);
    if !strict {
        return read_lenient_response(head, visitor);
    }
    let mut anomalies = Anomalies::NONE;
    response.headers.iter().for_each(|field| visitor.field(field.name.as_bytes(), field.value));
    mark_bare_line_feeds(head, &mut anomalies);
    Some(StatusLine { status: response.code?, minor_version: response.version?, anomalies })
}

/// Also the way of responses with more fields than fit the stack: they are read as strictly, only slower.
fn read_lenient_response(head: &[u8], visitor: &mut impl Visitor) -> Option<StatusLine> {
    let (first, rest) = split_line(head);
    let Some(StartLine::Status(mut line)) = start_line::read(first) else { return None };
    line.anomalies.insert(read_fields(rest, visitor));
    mark_bare_line_feeds(head, &mut line.anomalies);
    Some(line)
}

/// Reads header lines up to the empty line or the end of what is there, one by one.
pub(super) fn read_fields(mut rest: &[u8], visitor: &mut impl Visitor) -> Anomalies {
    let mut anomalies = Anomalies::NONE;
    while !rest.is_empty() {
        let (mut line, mut behind) = split_line(rest);
        if is_empty_line(line) {
            break;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // White space before the first field, or behind a line that was none (RFC 9112 2.2): skipped.
            anomalies.insert(Anomalies::INVALID_HEADER);
            rest = behind;
            continue;
        }
        while matches!(behind.first(), Some(b' ' | b'\t')) {
            let (folded, next) = split_line(behind);
            line = rest.get(..line.len() + folded.len()).unwrap_or_default();
            behind = next;
            anomalies.insert(Anomalies::FOLDED_HEADER);
        }
        read_field(line, visitor, &mut anomalies);
        rest = behind;
    }
    anomalies
}

/// Reads one header line, folded lines included.
fn read_field(line: &[u8], visitor: &mut impl Visitor, anomalies: &mut Anomalies) {
    let Some(colon) = memchr::memchr(b':', line) else {
        anomalies.insert(Anomalies::INVALID_HEADER);
        return;
    };
    let (name, value) = line.split_at(colon);
    let trimmed = name.trim_ascii_end();
    if trimmed.len() != name.len() {
        anomalies.insert(Anomalies::SPACE_BEFORE_COLON);
    }
    if trimmed.is_empty() || !trimmed.iter().all(|&byte| start_line::is_token(byte)) {
        anomalies.insert(Anomalies::INVALID_HEADER);
        return;
    }
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if value.iter().any(|&byte| (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f) {
        anomalies.insert(Anomalies::INVALID_HEADER);
    }
    visitor.field(trimmed, value);
}

/// Whether a line can stand in a head that is to be believed where no message was expected: a clean field or a fold.
pub(super) fn is_clean_field(line: &[u8]) -> bool {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return true;
    }
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let name = line.get(..colon).unwrap_or_default();
    !name.is_empty() && name.iter().all(|&byte| start_line::is_token(byte))
}

/// Whether a line, with its line end, is the empty line behind a head.
pub(super) fn is_empty_line(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// The first line with its line end, and what follows.
pub(super) fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    bytes.split_at(end)
}

fn count_lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

fn mark_bare_line_feeds(head: &[u8], anomalies: &mut Anomalies) {
    // Looks at every byte, without a branch, so that the compiler can take many at once.
    let behind = head.get(1..).unwrap_or_default();
    let bare = head
        .iter()
        .zip(behind)
        .fold(false, |bare, (before, byte)| bare | (*byte == b'\n' && *before != b'\r'));
    if bare || head.first() == Some(&b'\n') {
        anomalies.insert(Anomalies::BARE_LF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(String, String)>);

    impl Visitor for Seen {
        fn field(&mut self, name: &[u8], value: &[u8]) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.0.push((text(name), text(value)));
        }
    }

    fn check_request(head: &str, target: &str, fields: &[(&str, &str)], anomalies: &[&str]) {
        let mut seen = Seen::default();
        let line = read_request(head.as_bytes(), &mut seen).unwrap_or_else(|| panic!("{head:?}"));
        assert_eq!(String::from_utf8_lossy(line.target), target, "{head:?}");
        let seen: Vec<_> = seen.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(seen, fields, "{head:?}");
        assert_eq!(line.anomalies.names().collect::<Vec<_>>(), anomalies, "{head:?}");
    }

    #[test]
    fn request_heads() {
        check_request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", &[("Host", "a")], &[]);
        check_request("GET / HTTP/1.1\r\nHost:a \r\nB:\r\n\r\n", "/", &[("Host", "a"), ("B", "")], &[]);
        check_request("GET / HTTP/1.1\nHost: a\n\n", "/", &[("Host", "a")], &["bare_lf"]);
        check_request("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "/", &[("A", "b\r\n c")], &["folded_header"]);
        check_request("GET / HTTP/1.1\r\nrubbish\r\nA: b\r\n\r\n", "/", &[("A", "b")], &["invalid_header"]);
        check_request("GET / HTTP/1.1\r\n x\r\nA: b\r\n\r\n", "/", &[("A", "b")], &["invalid_header"]);
        check_request("GET / HTTP/1.1\r\nA : b\r\n\r\n", "/", &[("A", "b")], &["space_before_colon"]);
        check_request("GET / HTTP/1.1\r\nA(: b\r\nB: c\r\n\r\n", "/", &[("B", "c")], &["invalid_header"]);
        check_request("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", "/", &[("A", "b\0c")], &["invalid_header"]);
        check_request("GET /a b HTTP/1.1\r\nA: b\r\n\r\n", "/a b", &[("A", "b")], &["odd_target"]);
        check_request("GET / HTTP/1.1\r\n\r\n", "/", &[], &[]);
    }

    #[test]
    fn methods_have_a_limit() {
        for (length, expected) in [(MAX_METHOD, true), (MAX_METHOD + 1, false)] {
            let head = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(length));
            let read = read_request(head.as_bytes(), &mut Seen::default());
            assert_eq!(read.is_some(), expected, "{length} bytes");
        }
    }

    #[test]
    fn any_number_of_fields_is_read() {
        for count in [HEADERS_ON_STACK, HEADERS_ON_STACK + 1, 5000] {
            let fields = "a: b\r\n".repeat(count);
            let mut seen = Seen::default();
            assert!(read_request(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), &mut seen).is_some());
            assert_eq!(seen.0.len(), count);
            let mut seen = Seen::default();
            assert!(
                read_response(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), &mut seen).is_some()
            );
            assert_eq!(seen.0.len(), count);
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_at_every_split() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET /\nA: b\n\n", "a\n\r\n", "a\n\r\r\n"] {
            let bytes = [head.as_bytes(), b"rest\n\n"].concat();
            for at in 0..head.len() {
                let state = LineState::default().find_end(&bytes[..at]).unwrap_err();
                assert_eq!(state.find_end(&bytes[at..]), Ok(head.len() - at), "{head:?} at {at}");
            }
        }
    }
}
