//! Secrets out: credentials in headers, in parameters of URLs, and in the user information of URLs. Nothing else is touched.
//!
//! Bodies are not looked into: their first bytes are captured only if asked for.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::record::{CapturedHeader, Record};

/// Whether secrets are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// Secrets are replaced.
    On,
    /// Everything is given as sent: for one's own captures.
    Off,
}

/// What stands for a header value.
pub const REDACTED_VALUE: &[u8] = b"[REDACTED]";
/// What stands for a parameter's value and for user information, as OpenTelemetry has it for `url.full`.
pub const REDACTED_PART: &[u8] = b"REDACTED";

/// Header fields whose whole value is a credential.
const SECRET_HEADERS: &[&str] = &[
    "api-key",
    "apikey",
    "authentication",
    "authorization",
    "cookie",
    "cookie2",
    "proxy-authorization",
    "set-cookie",
    "set-cookie2",
    "x-api-key",
    "x-forwarded-access-token",
    "x-goog-iap-jwt-assertion",
    "x-session-id",
];

/// Ends of header names and parameter names that say what the value is.
const SECRET_ENDINGS: &[&str] = &[
    "-api-key",
    "_api_key",
    "-apikey",
    "_apikey",
    "-authorization",
    "-credential",
    "-jwt",
    "_jwt",
    "-passwd",
    "-password",
    "_password",
    "-secret",
    "_secret",
    "-session",
    "-signature",
    "-token",
    "_token",
];

/// Header fields that hold URLs.
const URL_HEADERS: &[&str] = &[
    "content-location",
    "destination",
    "link",
    "location",
    "origin",
    "referer",
    "refresh",
    "x-envoy-original-path",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Parameters whose value is a credential, lower-case, the shortest first. `awsaccesskeyid`, `signature`, `sig` and
/// `x-goog-signature` are OpenTelemetry's list for `url.query`.
const SECRET_PARAMETERS: &[&str] = &[
    "jwt",
    "pwd",
    "sid",
    "sig",
    "auth",
    "pass",
    "token",
    "apikey",
    "passwd",
    "secret",
    "api-key",
    "api_key",
    "session",
    "id_token",
    "password",
    "accesskey",
    "assertion",
    "authtoken",
    "phpsessid",
    "sessionid",
    "signature",
    "access_key",
    "auth_token",
    "credential",
    "jsessionid",
    "passphrase",
    "privatekey",
    "session_id",
    "accesstoken",
    "credentials",
    "private_key",
    "access_token",
    "clientsecret",
    "samlresponse",
    "sessiontoken",
    "authorization",
    "client_secret",
    "refresh_token",
    "session_token",
    "awsaccesskeyid",
    "x-amz-signature",
    "client_assertion",
    "x-amz-credential",
    "x-goog-signature",
    "x-goog-credential",
    "x-amz-security-token",
];

/// By length, where in [`SECRET_PARAMETERS`] the names of that length begin.
static BY_LENGTH: [usize; LONGEST_SECRET_NAME + 2] = {
    let mut begins = [0; LONGEST_SECRET_NAME + 2];
    let (mut length, mut at) = (0, 0);
    while length < begins.len() {
        while at < SECRET_PARAMETERS.len() && SECRET_PARAMETERS[at].len() < length {
            at += 1;
        }
        begins[length] = at;
        length += 1;
    }
    begins
};

/// By length, a bit for each first letter of the names of that length in [`SECRET_PARAMETERS`].
static FIRSTS: [u32; LONGEST_SECRET_NAME + 1] = {
    let mut firsts = [0; LONGEST_SECRET_NAME + 1];
    let mut at = 0;
    while at < SECRET_PARAMETERS.len() {
        let name = SECRET_PARAMETERS[at].as_bytes();
        firsts[name.len()] |= first_bit(name);
        at += 1;
    }
    firsts
};

/// Bytes of the longest of [`SECRET_PARAMETERS`].
const LONGEST_SECRET_NAME: usize = 20;

/// What a record is marked with if its target was cut.
const TARGET_CUT: &str = "target_cut";

/// Most parameters have shorter names than any in the lists: these need no comparing.
const SHORTEST_SECRET_NAME: usize = 3;

/// Replaces every secret in `record`; says how many.
pub fn redact(record: &mut Record) -> u64 {
    let mut count = 0;
    if let Some(original) = record.original.as_mut().filter(|_| record.anomalies.contains(&TARGET_CUT)) {
        count += redact_cut_authority(original);
    }
    for part in [&mut record.path, &mut record.original] {
        count += part.as_mut().map_or(0, redact_url);
    }
    count += record.query.as_mut().map_or(0, |query| redact_parameters(query, Position::Parameter));
    for header in record.request.headers.iter_mut().chain(&mut record.response.headers) {
        count += redact_header(header);
    }
    count
}

fn redact_header(header: &mut CapturedHeader) -> u64 {
    if is_secret_header(&header.name) {
        header.value = Bytes::from_static(REDACTED_VALUE);
        1
    } else if is_url_header(&header.name) {
        redact_url(&mut header.value)
    } else {
        0
    }
}

/// Whether a header field's whole value is a credential, by its name in lower case.
pub fn is_secret_header(name: &[u8]) -> bool {
    SECRET_HEADERS.iter().any(|secret| secret.as_bytes() == name) || has_secret_ending(name)
}

fn is_url_header(name: &[u8]) -> bool {
    URL_HEADERS.iter().any(|url| url.as_bytes() == name)
}

/// Every such ending has a mark in it, and few names do.
fn has_secret_ending(name: &[u8]) -> bool {
    let ends_with = |ending: &&str| {
        let end = name.len().checked_sub(ending.len()).and_then(|from| name.get(from..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
    };
    name.iter().any(|byte| matches!(byte, b'-' | b'_')) && SECRET_ENDINGS.iter().any(ends_with)
}

/// User information and parameters of a URL or of a part of one that begins before its query.
fn redact_url(url: &mut Bytes) -> u64 {
    // Of a path, as nearly all are, neither is there without one of these.
    if url.first() == Some(&b'/') && memchr::memchr2(b':', b'=', url).is_none() {
        return 0;
    }
    redact_user_information(url) + redact_parameters(url, Position::Path)
}

/// Replaces an authority that the capture cut: what is seen of it may be user information, whose `@` is not seen.
fn redact_cut_authority(url: &mut Bytes) -> u64 {
    let authority = authority(url).filter(|authority| authority.end == url.len() && !authority.is_empty());
    let Some(authority) = authority else { return 0 };
    *url = Bytes::from([url.get(..authority.start).unwrap_or_default(), REDACTED_PART].concat());
    1
}

/// Replaces user information, and a password in it for itself.
fn redact_user_information(url: &mut Bytes) -> u64 {
    let Some(information) = user_information(url) else { return 0 };
    let mut out = Vec::with_capacity(url.len());
    out.extend_from_slice(url.get(..information.start).unwrap_or_default());
    out.extend_from_slice(REDACTED_PART);
    if url.get(information.clone()).is_some_and(|information| information.contains(&b':')) {
        out.push(b':');
        out.extend_from_slice(REDACTED_PART);
    }
    out.extend_from_slice(url.get(information.end..).unwrap_or_default());
    *url = Bytes::from(out);
    1
}

/// Where user information is: `scheme://user:password@host` and, of authority-form, `user:password@host`.
fn user_information(url: &[u8]) -> Option<Range<usize>> {
    let authority = authority(url)?;
    let at = url.get(authority.clone())?.iter().rposition(|byte| *byte == b'@')?;
    Some(authority.start..authority.start + at)
}

/// Where an authority is, or could be.
fn authority(url: &[u8]) -> Option<Range<usize>> {
    if url.first() == Some(&b'/') && memchr::memchr(b':', url).is_none() {
        return None;
    }
    let start = match url.windows(3).position(|window| window == b"://") {
        Some(colon) if !url.get(..colon).is_some_and(|before| before.contains(&b'?')) => colon + 3,
        _ if url.first() != Some(&b'/') => 0,
        _ => return None,
    };
    let rest = url.get(start..).unwrap_or_default();
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    Some(start..start + length)
}

/// Where a scan for parameters begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// In a path: parameters come after `;`, and after `?` or `#` as in a query.
    Path,
    /// At a parameter.
    Parameter,
}

/// Replaces the values of credentials' parameters.
fn redact_parameters(text: &mut Bytes, position: Position) -> u64 {
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut count = 0;
    secret_values(text, position, |value| {
        out.extend_from_slice(text.get(copied..value.start).unwrap_or_default());
        out.extend_from_slice(REDACTED_PART);
        copied = value.end;
        count += 1;
    });
    if count > 0 {
        out.extend_from_slice(text.get(copied..).unwrap_or_default());
        *text = Bytes::from(out);
    }
    count
}

/// Finds values of `name=value` where the name is a credential's.
///
/// Parameters begin after `;` in a path and after `?`, `#`, `&` and `;` in a query. A secret value ends where every server
/// ends it: in a query at `&` only, since `;`, `?` and `#` may be part of it.
fn secret_values(text: &[u8], position: Position, mut found: impl FnMut(Range<usize>)) {
    if !may_have_secret(text) {
        return;
    }
    let mut in_query = position == Position::Parameter;
    let mut name_at = in_query.then_some(0);
    let mut secret_at = None;
    for (index, byte) in text.iter().copied().chain([b'&']).enumerate() {
        let ends = if in_query { byte == b'&' } else { matches!(byte, b'&' | b';' | b'/' | b'?' | b'#') };
        if let Some(from) = secret_at.filter(|_| ends) {
            secret_at = None;
            if from < index {
                found(from..index);
            }
        }
        if secret_at.is_some() {
            continue;
        }
        match byte {
            b'?' | b'#' | b'&' | b';' => name_at = Some(index + 1),
            b'/' if !in_query => name_at = None,
            b'=' => {
                let name = name_at.take().and_then(|from| text.get(from..index));
                secret_at = name.is_some_and(is_secret_parameter).then_some(index + 1);
            }
            _ => {}
        }
        in_query |= matches!(byte, b'?' | b'#');
    }
}

/// Overwrites with `cover`, in place, what [`redact`] would replace in a request target or another URL.
pub fn cover_url(url: &mut [u8], cover: u8) {
    if let Some(information) = user_information(url) {
        url.get_mut(information).unwrap_or_default().fill(cover);
    }
    let mut secrets: SmallVec<[Range<usize>; 4]> = SmallVec::new();
    secret_values(url, Position::Path, |value| secrets.push(value));
    for secret in secrets {
        url.get_mut(secret).unwrap_or_default().fill(cover);
    }
}

/// The same in the value of the header field `name`, which is in lower case.
pub fn cover_header(name: &[u8], value: &mut [u8], cover: u8) {
    if is_secret_header(name) {
        value.fill(cover);
    } else if is_url_header(name) {
        cover_url(value, cover);
    }
}

/// Whether what stands before some `=` may be a credential's name. Hardly any text has one, and the exact search costs
/// more than all else that is done to a record.
fn may_have_secret(text: &[u8]) -> bool {
    memchr::memchr_iter(b'=', text).any(|at| {
        let before = text.get(..at).unwrap_or_default();
        let from = before.iter().rposition(|byte| matches!(byte, b'?' | b'#' | b'&' | b';'));
        before.get(from.map_or(0, |from| from + 1)..).is_some_and(is_secret_parameter)
    })
}

/// Compares a name as a server would read it: percent-decoded, in any letter case.
fn is_secret_parameter(name: &[u8]) -> bool {
    if name.len() < SHORTEST_SECRET_NAME {
        return false;
    }
    if !name.contains(&b'%') {
        return has_secret_word(name);
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut index = 0;
    while let Some(&byte) = name.get(index) {
        let escaped = if byte == b'%' { name.get(index + 1..index + 3).and_then(hex_pair) } else { None };
        decoded.push(escaped.unwrap_or(byte));
        index += if escaped.is_some() { 3 } else { 1 };
    }
    has_secret_word(&decoded)
}

/// `user[password]` and `password[]`: each word between the brackets counts.
fn has_secret_word(name: &[u8]) -> bool {
    name.split(|byte| matches!(byte, b'[' | b']')).any(is_secret_word)
}

fn is_secret_word(word: &[u8]) -> bool {
    if word.len() < SHORTEST_SECRET_NAME {
        return false;
    }
    let may_be_listed = FIRSTS.get(word.len()).is_some_and(|firsts| firsts & first_bit(word) != 0);
    may_be_listed && is_listed(word) || has_secret_ending(word)
}

fn is_listed(word: &[u8]) -> bool {
    let range = BY_LENGTH.get(word.len()).zip(BY_LENGTH.get(word.len() + 1));
    let of_length = range.and_then(|(from, to)| SECRET_PARAMETERS.get(*from..*to)).unwrap_or_default();
    of_length.iter().any(|secret| secret.as_bytes().eq_ignore_ascii_case(word))
}

/// One of 32, the same for a letter in either case.
const fn first_bit(word: &[u8]) -> u32 {
    match word {
        [first, ..] => 1 << (*first & 31),
        [] => 0,
    }
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_url(url: &'static str, expected: &str) {
        let mut bytes = Bytes::from_static(url.as_bytes());
        redact_url(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        check_covered(url, expected);
    }

    fn check_query(query: &'static str, expected: &str) {
        let mut bytes = Bytes::from_static(query.as_bytes());
        redact_parameters(&mut bytes, Position::Parameter);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// What is covered in place is what is replaced: the rest is the same, and nothing of a secret is left.
    fn check_covered(url: &str, expected: &str) {
        let mut covered = url.as_bytes().to_vec();
        cover_url(&mut covered, b'*');
        let (covered, parts) = (String::from_utf8_lossy(&covered).into_owned(), expected.split("REDACTED"));
        assert_eq!(covered.len(), url.len());
        let parts: Vec<_> = parts.filter(|part| !part.is_empty() && *part != ":").collect();
        let left: Vec<_> = covered.split('*').filter(|part| !part.is_empty()).collect();
        assert_eq!(left, parts, "{url}");
    }

    #[test]
    fn queries() {
        check_query("id=7", "id=7");
        check_query("token=abc", "token=REDACTED");
        check_query("a=1&TOKEN=abc&b=2", "a=1&TOKEN=REDACTED&b=2");
        check_query("to%6ben=abc&x", "to%6ben=REDACTED&x");
        check_query("password=a;b?c#d&e=f", "password=REDACTED&e=f");
        check_query("a;sig=x", "a;sig=REDACTED");
        check_query("token=", "token=");
        check_query("token", "token");
        check_query("tokens=3&mytoken=4", "tokens=3&mytoken=4");
        check_query(
            "csrf_token=1&user[password]=x&x-vault-token=2",
            "csrf_token=REDACTED&user[password]=REDACTED&x-vault-token=REDACTED",
        );
        check_query("password[]=a==&q=token=b", "password[]=REDACTED&q=token=b");
        check_query("=x&&=", "=x&&=");
    }

    #[test]
    fn urls() {
        check_url("/a;jsessionid=12/b?token=x", "/a;jsessionid=REDACTED/b?token=REDACTED");
        check_url("/token=1", "/token=1");
        check_url("http://user:pass@h:80/p?q=1@2", "http://REDACTED:REDACTED@h:80/p?q=1@2");
        check_url("http://user@h/", "http://REDACTED@h/");
        check_url("http://a@b:c@h/", "http://REDACTED:REDACTED@h/");
        check_url("user:pass@h:443", "REDACTED:REDACTED@h:443");
        check_url("h:443", "h:443");
        check_url("/u@h", "/u@h");
        check_url("https://h/cb#access_token=x&state=1", "https://h/cb#access_token=REDACTED&state=1");
        check_url("/?next=http://u:p@h/", "/?next=http://u:p@h/");
    }

    #[test]
    fn headers() {
        let check = |name: &'static str, value: &'static str, expected: &str| {
            let mut header = CapturedHeader {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            };
            redact_header(&mut header);
            assert_eq!(String::from_utf8_lossy(&header.value), expected, "{name}");
            let mut covered = value.as_bytes().to_vec();
            cover_header(name.as_bytes(), &mut covered, b'*');
            assert_eq!(covered.contains(&b'*'), expected != value, "{name}");
        };
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
            "x-amz-security-token",
        ] {
            check(name, "secret", "[REDACTED]");
        }
        check("referer", "http://u:p@h/?token=1&a=2", "http://REDACTED:REDACTED@h/?token=REDACTED&a=2");
        check("location", "/next?sig=1", "/next?sig=REDACTED");
        check("content-type", "text/plain; token=1", "text/plain; token=1");
        check("sec-websocket-key", "dGhl", "dGhl");
        check("idempotency-key", "1", "1");
        check("www-authenticate", "Basic", "Basic");
    }

    #[test]
    fn no_listed_name_is_shorter_than_the_shortest() {
        let names = SECRET_PARAMETERS.iter().chain(SECRET_ENDINGS);
        assert_eq!(names.map(|name| name.len()).min(), Some(SHORTEST_SECRET_NAME));
        assert!(SECRET_ENDINGS.iter().all(|ending| ending.contains(['-', '_'])));
        assert!(SECRET_PARAMETERS.is_sorted_by_key(|name| name.len()));
        assert_eq!(SECRET_PARAMETERS.last().map(|name| name.len()), Some(LONGEST_SECRET_NAME));
    }

    #[test]
    fn every_listed_name_is_found_wherever_it_stands() {
        for name in SECRET_PARAMETERS.iter().copied().chain(SECRET_ENDINGS.iter().map(|ending| &**ending)) {
            for text in
                [name.to_owned(), name.to_ascii_uppercase(), format!("a[{name}]"), name.replace('s', "%73")]
            {
                for (before, after) in [("", ""), ("a=b&", "&c=d"), ("a=b;", ""), ("x=1?", "&"), ("a&", "&b")]
                {
                    let query = format!("{before}{text}=secret{after}");
                    let mut bytes = Bytes::from(query.clone());
                    assert_eq!(redact_parameters(&mut bytes, Position::Parameter), 1, "{query}");
                    let expected = query.replace("=secret", "=REDACTED");
                    assert_eq!(bytes, expected, "{query}");
                    let mut url = Bytes::from(format!("/p?{query}"));
                    assert_eq!(redact_url(&mut url), 1, "{query}");
                    assert_eq!(url, format!("/p?{expected}"));
                }
            }
        }
    }
}
