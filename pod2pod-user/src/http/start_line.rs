//! Start lines: what the first line of a message says, read as leniently as real recipients do (RFC 9112 3 and 4).
//!
//! Looks at one line only; header fields are read in `head`. A line with another protocol's version (`RTSP/1.0`,
//! `SIP/2.0`, `ICAP/1.0`) is not a start line; one without a version is only with a registered method and a path.

use super::exchange::Anomalies;

/// Longest method, bytes: the longest registered one has 17, and a longer first word is somebody else's protocol.
pub(super) const MAX_METHOD: usize = 64;

/// Most white space before a start line, bytes: a few are sent by mistake, more are padding of another protocol.
const MAX_LEADING_BLANKS: usize = 16;

/// A start line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartLine<'a> {
    /// `method target version`.
    Request(RequestLine<'a>),
    /// `version status reason`.
    Status(StatusLine),
    /// The first line of the HTTP/2 preface (RFC 9113 3.4).
    Http2Preface,
}

/// A request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) minor_version: u8,
    pub(super) anomalies: Anomalies,
}

/// A status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    pub(super) status: u16,
    pub(super) minor_version: u8,
    pub(super) anomalies: Anomalies,
}

/// Reads a start line, given without or with its line end.
pub(super) fn read(line: &[u8]) -> Option<StartLine<'_>> {
    if leading_blanks(line) > MAX_LEADING_BLANKS {
        return None;
    }
    if line == b"PRI * HTTP/2.0\r\n" {
        return Some(StartLine::Http2Preface);
    }
    let trimmed = trim_blanks(line.strip_suffix(b"\n").unwrap_or(line));
    if begins_status(trimmed) { status_line(trimmed) } else { request_line(trimmed, line) }
}

/// Reads what was captured of a start line: a registered method and the target as far as it goes, or a whole status.
pub(super) fn read_cut(line: &[u8]) -> Option<StartLine<'_>> {
    let trimmed = trim_blanks(line);
    if begins_status(trimmed) {
        return status_line(trimmed);
    }
    let (method, rest) = registered_method(trimmed)?;
    let end = rest.iter().position(|&byte| is_blank(byte));
    let (target, version) = rest.split_at(end.unwrap_or(rest.len()));
    let mut anomalies = Anomalies::NONE;
    if end.is_none() && !line.ends_with(b" ") {
        anomalies.insert(Anomalies::TARGET_CUT);
    }
    let minor_version = u8::from(trim_blanks(version) != b"HTTP/1.0");
    (!target.is_empty()).then_some(StartLine::Request(RequestLine {
        method,
        target,
        minor_version,
        anomalies,
    }))
}

/// Whether the bytes of an unfinished line can still become a start line.
pub(super) fn could_begin(line: &[u8]) -> bool {
    if leading_blanks(line) > MAX_LEADING_BLANKS {
        return false;
    }
    let line = trim_blanks_start(line);
    let word = line.split(|&byte| is_blank(byte)).next().unwrap_or_default();
    if begins_status(word) {
        return true;
    }
    word.iter().all(|&byte| is_token(byte)) && word.len() <= MAX_METHOD
}

/// Where a strict start line begins in a line that may begin with the rest of a body: a status line begins anywhere, a
/// request line at the line's start or with a registered method. `torn`: the line's start was not seen, so what it begins
/// with may be the rest of a method.
pub(super) fn find(line: &[u8], wanted: Wanted, torn: bool) -> Option<usize> {
    if wanted != Wanted::Request
        && let Some(at) = find_status(line)
    {
        return Some(at);
    }
    if wanted == Wanted::Status { None } else { find_request(line, torn) }
}

/// Which start lines to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Both: it is not known which end is the client.
    Any,
    /// The direction of the client.
    Request,
    /// The direction of the server.
    Status,
}

impl Wanted {
    /// Whether `line` is one of these.
    pub(super) fn accepts(self, line: &StartLine<'_>) -> bool {
        match line {
            StartLine::Request(_) => self != Self::Status,
            StartLine::Status(_) => self != Self::Request,
            StartLine::Http2Preface => false,
        }
    }
}

fn find_status(line: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(line.get(from..)?, b"HTTP/1.") {
        let at = from + at;
        if let Some([b'0' | b'1', b' ', b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', after, ..]) =
            line.get(at + 7..)
            && matches!(after, b' ' | b'\r' | b'\n')
        {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn find_request(line: &[u8], torn: bool) -> Option<usize> {
    let bare = line.strip_suffix(b"\n")?;
    let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
    let rest = bare.strip_suffix(b" HTTP/1.1").or_else(|| bare.strip_suffix(b" HTTP/1.0"))?;
    let space = rest.iter().rposition(|&byte| byte == b' ')?;
    let (before, target) = (rest.get(..space)?, rest.get(space + 1..)?);
    if target.is_empty() || !target.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..)) {
        return None;
    }
    let token = before.iter().rev().take_while(|&&byte| is_token(byte)).count();
    let registered = METHODS
        .iter()
        .filter(|method| before.ends_with(method))
        .map(|method| before.len() - method.len())
        .min();
    if token == before.len() && token > 0 && token <= MAX_METHOD {
        // Before a registered method, what no method's name has (capitals and hyphens only are registered) is the end of a body
        // and not the beginning of a longer method: a body must not be told as one.
        let foreign = |byte: &u8| !byte.is_ascii_uppercase() && *byte != b'-';
        let body = registered.filter(|&at| before.iter().take(at).any(foreign));
        return body.or(if torn { registered.filter(|&at| at == 0) } else { Some(0) });
    }
    registered
}

/// Whether a request line that may lack its first bytes has a whole method all the same: the rest of one is none.
pub(super) fn is_whole(line: &RequestLine<'_>) -> bool {
    METHODS.contains(&line.method)
}

/// The same of a line that is not whole; a status line is told by its version.
pub(super) fn begins_whole(line: &[u8]) -> bool {
    begins_status(line) || registered_method(line).is_some()
}

/// Whether a head begins with a status line rather than a request line.
pub(super) fn is_status(head: &[u8]) -> bool {
    begins_status(trim_blanks_start(head))
}

fn begins_status(trimmed: &[u8]) -> bool {
    trimmed.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/")) || trimmed.starts_with(b"ICY ")
}

fn status_line(line: &[u8]) -> Option<StartLine<'_>> {
    let at = line.iter().position(|&byte| is_blank(byte))?;
    let (version, rest) = line.split_at(at);
    let mut anomalies = Anomalies::NONE;
    let minor_version = if version == b"ICY" {
        anomalies.insert(Anomalies::ICY_STATUS_LINE);
        0
    } else {
        read_version(version, &mut anomalies)?
    };
    if !rest.starts_with(b" ") || rest.get(1).is_some_and(|&byte| is_blank(byte)) {
        anomalies.insert(Anomalies::ODD_START_LINE);
    }
    let rest = trim_blanks_start(rest);
    let (digits, after) = rest.split_at_checked(3)?;
    if after.first().is_some_and(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if after.first().is_some_and(|&byte| byte != b' ') {
        anomalies.insert(Anomalies::ODD_START_LINE);
    }
    let status = digits
        .iter()
        .try_fold(0u16, |status, byte| byte.is_ascii_digit().then(|| status * 10 + u16::from(byte - b'0')))?;
    (status >= 100).then_some(StartLine::Status(StatusLine { status, minor_version, anomalies }))
}

fn request_line<'a>(trimmed: &'a [u8], line: &[u8]) -> Option<StartLine<'a>> {
    let first = trimmed.iter().position(|&byte| is_blank(byte))?;
    let last = trimmed.iter().rposition(|&byte| is_blank(byte))?;
    let (method, version) = (trimmed.get(..first)?, trimmed.get(last + 1..)?);
    if method.len() > MAX_METHOD || !method.iter().all(|&byte| is_token(byte)) {
        return None;
    }
    let target = trim_blanks(trimmed.get(first..=last)?);
    let mut anomalies = Anomalies::NONE;
    let Some(minor_version) = read_version(version, &mut anomalies) else {
        return line_without_version(trimmed, version);
    };
    // Two single spaces and no white space around: anything else is odd.
    let ended = line.strip_suffix(b"\n").unwrap_or(line);
    let ended = ended.strip_suffix(b"\r").unwrap_or(ended);
    let spaced = trimmed.get(first) == Some(&b' ') && trimmed.get(last) == Some(&b' ');
    if !spaced || target.is_empty() || ended.len() != method.len() + target.len() + version.len() + 2 {
        anomalies.insert(Anomalies::ODD_START_LINE);
    }
    if target.iter().any(|byte| !matches!(byte, 0x21..=0x7e)) {
        anomalies.insert(Anomalies::ODD_TARGET);
    }
    Some(StartLine::Request(RequestLine { method, target, minor_version, anomalies }))
}

/// A request line whose version is missing (HTTP/0.9, and those who forgot it) or garbled: servers answer it, so it is
/// one if it could be nothing else.
fn line_without_version<'a>(trimmed: &'a [u8], last_word: &[u8]) -> Option<StartLine<'a>> {
    let (method, rest) = registered_method(trimmed)?;
    let target = rest.split(|&byte| is_blank(byte)).next()?;
    let is_path = [&b"/"[..], b"http://", b"https://"].iter().any(|begin| target.starts_with(begin));
    let letters = last_word.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let is_other_protocol =
        letters > 0 && matches!(last_word.get(letters..), Some([b'/', b'0'..=b'9', ..])) && rest != last_word;
    let anomalies = Anomalies::ODD_VERSION;
    let line = RequestLine { method, target, minor_version: 0, anomalies };
    (is_path && !is_other_protocol).then_some(StartLine::Request(line))
}

/// A registered method, and what follows it.
fn registered_method(trimmed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (method, rest) = trimmed.split_at(trimmed.iter().position(|&byte| is_blank(byte))?);
    METHODS.contains(&method).then(|| (method, trim_blanks_start(rest)))
}

/// Minor version, 0 or 1: a later minor version is spoken as 1.1 (RFC 9110 2.5), and so is a later major one, which a
/// server answers with 505 in HTTP/1.1.
fn read_version(version: &[u8], anomalies: &mut Anomalies) -> Option<u8> {
    match version {
        b"HTTP/1.1" => return Some(1),
        b"HTTP/1.0" => return Some(0),
        _ => anomalies.insert(Anomalies::ODD_VERSION),
    }
    let (name, number) = version.split_at_checked(5)?;
    let major = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !name.eq_ignore_ascii_case(b"HTTP/") || major == 0 {
        return None;
    }
    let (major, minor) = number.split_at_checked(major)?;
    let major_is_zero = major.iter().all(|&byte| byte == b'0');
    let minor_is_zero = minor.is_empty() || minor == b".0";
    let old = major_is_zero || (major == b"1" && minor_is_zero);
    Some(u8::from(!old))
}

/// White space that RFC 9112 3 lets a recipient take for the SP of a start line.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

fn leading_blanks(line: &[u8]) -> usize {
    line.iter().take(MAX_LEADING_BLANKS + 1).take_while(|&&byte| is_blank(byte)).count()
}

fn trim_blanks_start(bytes: &[u8]) -> &[u8] {
    let from = bytes.iter().position(|&byte| !is_blank(byte)).unwrap_or(bytes.len());
    bytes.get(from..).unwrap_or_default()
}

fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let bytes = trim_blanks_start(bytes);
    let to = bytes.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |last| last + 1);
    bytes.get(..to).unwrap_or_default()
}

/// A byte of a token (RFC 9110 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

/// Methods that are recognised behind the rest of a body, and kept without a copy.
pub(super) const METHODS: [&[u8]; 19] = [
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"QUERY",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Option<(String, String, u8, Vec<&'static str>)> {
        match read(line.as_bytes())? {
            StartLine::Request(line) => Some((
                String::from_utf8_lossy(line.method).into_owned(),
                String::from_utf8_lossy(line.target).into_owned(),
                line.minor_version,
                line.anomalies.names().collect(),
            )),
            StartLine::Status(_) | StartLine::Http2Preface => None,
        }
    }

    #[test]
    fn request_lines() {
        fn check(line: &str, method: &str, target: &str, minor: u8, anomalies: &[&'static str]) {
            let expected = Some((method.to_owned(), target.to_owned(), minor, anomalies.to_vec()));
            assert_eq!(request(line), expected, "{line:?}");
        }
        check("GET / HTTP/1.1\r\n", "GET", "/", 1, &[]);
        check("GET / HTTP/1.0\n", "GET", "/", 0, &[]);
        check("get / HTTP/1.1\r\n", "get", "/", 1, &[]);
        check("M-SEARCH * HTTP/1.1\r\n", "M-SEARCH", "*", 1, &[]);
        check("CONNECT a.b:443 HTTP/1.1\r\n", "CONNECT", "a.b:443", 1, &[]);
        check("GET http://a/b?c HTTP/1.1\r\n", "GET", "http://a/b?c", 1, &[]);
        check("GET /a b HTTP/1.1\r\n", "GET", "/a b", 1, &["odd_target"]);
        check("GET  /  HTTP/1.1 \r\n", "GET", "/", 1, &["odd_start_line"]);
        check("GET\t/\tHTTP/1.1\r\n", "GET", "/", 1, &["odd_start_line"]);
        check(" GET / HTTP/1.1\r\n", "GET", "/", 1, &["odd_start_line"]);
        check("GET  HTTP/1.1\r\n", "GET", "", 1, &["odd_start_line"]);
        check("GET / HTTP/1.2\r\n", "GET", "/", 1, &["odd_version"]);
        check("GET / HTTP/2.0\r\n", "GET", "/", 1, &["odd_version"]);
        check("GET / HTTP/0.9\r\n", "GET", "/", 0, &["odd_version"]);
        check("GET / http/1.1\r\n", "GET", "/", 1, &["odd_version"]);
        check("GET /\u{e9} HTTP/1.1\r\n", "GET", "/\u{e9}", 1, &["odd_target"]);
        check("GET /\r\n", "GET", "/", 0, &["odd_version"]);
        check("GET / HTTP/\r\n", "GET", "/", 0, &["odd_version"]);
        check("POST http://a/b \r\n", "POST", "http://a/b", 0, &["odd_version"]);
    }

    #[test]
    fn what_is_no_start_line() {
        for line in [
            "get key\r\n",
            "GET key\r\n",
            "get /\r\n",
            "GET / RTSP/1.0\r\n",
            "OPTIONS * RTSP/1.0\r\n",
            "INVITE sip:a@b SIP/2.0\r\n",
            "SIP/2.0 200 OK\r\n",
            "RTSP/1.0 200 OK\r\n",
            "ICAP/1.0 200 OK\r\n",
            "220 mail ESMTP\r\n",
            "EHLO x\r\n",
            "G@T / HTTP/1.1\r\n",
            "HTTP/1.1 20 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1 099 x\r\n",
            "HTTP/1.1\r\n",
            "\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(read(b"PRI * HTTP/2.0\r\n"), Some(StartLine::Http2Preface));
    }

    #[test]
    fn limits_and_one_past() {
        let blanks = |count: usize| format!("{}GET / HTTP/1.1\r\n", " ".repeat(count));
        assert!(
            request(&blanks(MAX_LEADING_BLANKS)).is_some()
                && could_begin(blanks(MAX_LEADING_BLANKS).as_bytes())
        );
        assert!(request(&blanks(MAX_LEADING_BLANKS + 1)).is_none());
        assert!(!could_begin(blanks(MAX_LEADING_BLANKS + 1).as_bytes()));
        let method = |length: usize| format!("{} / HTTP/1.1\r\n", "M".repeat(length));
        assert!(request(&method(MAX_METHOD)).is_some() && request(&method(MAX_METHOD + 1)).is_none());
    }

    #[test]
    fn status_lines() {
        fn check(line: &str, status: u16, minor: u8, anomalies: &[&'static str]) {
            let Some(StartLine::Status(read)) = read(line.as_bytes()) else { panic!("{line:?}") };
            assert_eq!((read.status, read.minor_version), (status, minor), "{line:?}");
            assert_eq!(read.anomalies.names().collect::<Vec<_>>(), anomalies, "{line:?}");
        }
        check("HTTP/1.1 200 OK\r\n", 200, 1, &[]);
        check("HTTP/1.1 200\r\n", 200, 1, &[]);
        check("HTTP/1.1 200 \r\n", 200, 1, &[]);
        check("HTTP/1.0 404 N\n", 404, 0, &[]);
        check("HTTP/1.1  200 OK\r\n", 200, 1, &["odd_start_line"]);
        check("HTTP/1.1 200OK\r\n", 200, 1, &["odd_start_line"]);
        check("HTTP/1.1 999 x\r\n", 999, 1, &[]);
        check("HTTP/2 200 \r\n", 200, 1, &["odd_version"]);
        check("ICY 200 OK\r\n", 200, 0, &["icy_status_line"]);
    }

    #[test]
    fn start_lines_that_the_capture_cut() {
        fn check(line: &str, expected: Option<(&str, &str, &[&str])>) {
            let seen = read_cut(line.as_bytes()).map(|line| match line {
                StartLine::Request(line) => (
                    String::from_utf8_lossy(line.method).into_owned(),
                    String::from_utf8_lossy(line.target).into_owned(),
                    line.anomalies.names().collect::<Vec<_>>(),
                ),
                StartLine::Status(line) => (String::new(), line.status.to_string(), Vec::new()),
                StartLine::Http2Preface => panic!("{line:?}"),
            });
            let expected =
                expected.map(|(method, target, odd)| (method.to_owned(), target.to_owned(), odd.to_vec()));
            assert_eq!(seen, expected, "{line:?}");
        }
        check("GET /index.htm", Some(("GET", "/index.htm", &["target_cut"])));
        check("GET /a ", Some(("GET", "/a", &[])));
        check("GET /a HTT", Some(("GET", "/a", &[])));
        check("GET ", None);
        check("GE", None);
        check("FOO /a HTTP/1.", None);
        check("HTTP/1.1 200 O", Some(("", "200", &[])));
        check("HTTP/1.1 404", Some(("", "404", &[])));
        check("HTTP/1.1 40", None);
        check("HTTP/1.", None);
    }

    #[test]
    fn found_behind_a_body() {
        fn check(line: &str, wanted: Wanted, at: Option<usize>) {
            assert_eq!(find(line.as_bytes(), wanted, false), at, "{line:?}");
        }
        check("GET / HTTP/1.1\r\n", Wanted::Request, Some(0));
        check("QUERY / HTTP/1.1\r\n", Wanted::Any, Some(0));
        check("~~~~POST / HTTP/1.1\r\n", Wanted::Request, Some(4));
        check("4711POST / HTTP/1.1\r\n", Wanted::Request, Some(4));
        check("X-POST / HTTP/1.1\r\n", Wanted::Request, Some(0));
        check("{}POST /x HTTP/1.1\r\n", Wanted::Request, Some(2));
        check("a=bPOST /x HTTP/1.1\r\n", Wanted::Request, Some(3));
        check("{}FOO /x HTTP/1.1\r\n", Wanted::Request, None);
        check("helloGET /x HTTP/1.1\r\n", Wanted::Request, Some(5));
        check("BPROPPATCH /x HTTP/1.1\r\n", Wanted::Request, Some(0));
        check("hello /x HTTP/1.1\r\n", Wanted::Request, Some(0));
        check("GET / HTTP/1.1\r\n", Wanted::Status, None);
        check("xxHTTP/1.1 200 OK\r\n", Wanted::Status, Some(2));
        check("HTTP/1.1 HTTP/1.1 200 OK\r\n", Wanted::Any, Some(9));
        check("HTTP/1.1 2000\r\n", Wanted::Status, None);
    }

    #[test]
    fn every_beginning_of_a_start_line_could_begin() {
        for line in [
            "GET / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "HTTP/1.1 200 OK\r\n",
            "ICY 200 OK\r\n",
            "http/1.1 200 OK",
        ] {
            for at in 0..line.len() {
                assert!(could_begin(&line.as_bytes()[..at]), "{:?}", &line[..at]);
            }
        }
        assert!(!could_begin(b"\x16\x03\x01"));
        assert!(!could_begin(b"a{"));
        assert!(could_begin(&[b'A'; MAX_METHOD]));
        assert!(!could_begin(&[b'A'; MAX_METHOD + 1]));
    }
}
