//! The request target (RFC 9112 3.2) as `url.path`, `url.query`, `url.scheme` and, where these do not rebuild it exactly,
//! `url.original`. Nothing is decoded or normalised.

use bytes::Bytes;

/// The parts of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Path.
    pub path: Option<Bytes>,
    /// Query without the question mark.
    pub query: Option<Bytes>,
    /// Scheme, of an absolute-form target.
    pub scheme: Option<Bytes>,
    /// The whole, if path and query do not rebuild it.
    pub original: Option<Bytes>,
}

/// Takes `target` apart.
pub fn split(target: Bytes) -> Target {
    if target.first() == Some(&b'/') {
        return origin_form(target, 0);
    }
    match absolute_form(&target) {
        Some((scheme, path_at)) => {
            let mut parts = origin_form(target.clone(), path_at);
            // RFC 9112 3.2.1: an empty path is sent as "/" in origin-form.
            parts.path = parts.path.or(Some(Bytes::from_static(b"/")));
            parts.scheme = Some(scheme);
            parts.original = Some(target);
            parts
        }
        // authority-form, `*`, or nothing the grammar knows.
        None => Target { original: Some(target), ..Target::default() },
    }
}

/// Path and query from `path_at` on. The target is rebuilt by them if it is UTF-8 and its query is not empty.
fn origin_form(target: Bytes, path_at: usize) -> Target {
    let path_at = path_at.min(target.len());
    let mark = memchr::memchr(b'?', target.get(path_at..).unwrap_or_default()).map(|mark| path_at + mark);
    let exact = mark.is_none_or(|mark| mark + 1 < target.len())
        && (target.is_ascii() || std::str::from_utf8(&target).is_ok());
    let original = if exact { None } else { Some(target.clone()) };
    let mut path = target;
    // Each part that is cut off counts once more who shares the bytes, so no more are than are needed.
    let query = mark.map(|mark| {
        let query = path.split_off(mark + 1);
        path.truncate(mark);
        query
    });
    if path_at > 0 {
        path = path.slice(path_at..);
    }
    Target {
        path: Some(path).filter(|path| !path.is_empty()),
        query: query.filter(|query| !query.is_empty()),
        scheme: None,
        original,
    }
}

/// Scheme of an absolute-form target and where its path begins.
fn absolute_form(target: &Bytes) -> Option<(Bytes, usize)> {
    let colon = target.windows(3).position(|window| window == b"://")?;
    let scheme = target.get(..colon)?;
    let (first, rest) = scheme.split_first()?;
    let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !first.is_ascii_alphabetic() || !rest.iter().all(in_scheme) {
        return None;
    }
    let authority_at = colon + 3;
    let length = target.get(authority_at..)?.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let scheme = if scheme.iter().any(u8::is_ascii_uppercase) {
        Bytes::from(scheme.to_ascii_lowercase())
    } else {
        target.slice(..colon)
    };
    Some((scheme, length.map_or(target.len(), |length| authority_at + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        target: &'static [u8],
        path: Option<&str>,
        query: Option<&str>,
        scheme: Option<&str>,
        original: bool,
    ) {
        let parts = split(Bytes::from_static(target));
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(text(parts.path).as_deref(), path, "{target:?}");
        assert_eq!(text(parts.query).as_deref(), query, "{target:?}");
        assert_eq!(text(parts.scheme).as_deref(), scheme, "{target:?}");
        assert_eq!(parts.original.as_deref(), original.then_some(target), "{target:?}");
    }

    #[test]
    fn targets() {
        check(b"/", Some("/"), None, None, false);
        check(b"/cart?id=7", Some("/cart"), Some("id=7"), None, false);
        check(b"/a?b?c", Some("/a"), Some("b?c"), None, false);
        check(b"/a#f?q", Some("/a#f"), Some("q"), None, false);
        check(b"//a", Some("//a"), None, None, false);
        check(b"/a?", Some("/a"), None, None, true);
        check(b"/?", Some("/"), None, None, true);
        check(b"/caf\xe9", Some("/caf\u{fffd}"), None, None, true);
        check(b"/?q=\xff", Some("/"), Some("q=\u{fffd}"), None, true);
        check(b"*", None, None, None, true);
        check(b"", None, None, None, true);
        check(b"example.com:443", None, None, None, true);
        check(b"index.html?x=1", None, None, None, true);
        check(b"http://h/p?q", Some("/p"), Some("q"), Some("http"), true);
        check(b"HTTP://h", Some("/"), None, Some("http"), true);
        check(b"http://h?q=/", Some("/"), Some("q=/"), Some("http"), true);
        check(b"http://", Some("/"), None, Some("http"), true);
        check(b"1http://h/p", None, None, None, true);
        check(b"/x://y", Some("/x://y"), None, None, false);
    }
}
