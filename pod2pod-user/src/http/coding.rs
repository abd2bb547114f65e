//! Content codings (RFC 9110 8.4): which ones a message names, in the order in which they were applied. Decodes nothing.

/// Codings of one message that are followed. Servers apply one; a proxy may add one. A message with more is not decoded.
pub const MAX_CODINGS: usize = 2;

/// A content coding (RFC 9110 8.4.1, RFC 7932, RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `gzip` or `x-gzip`.
    Gzip,
    /// `deflate`: zlib, or DEFLATE without it, as some senders have it.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
    /// Any other.
    Unknown,
}

impl Coding {
    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Unknown => "unknown",
        }
    }

    fn of(name: &[u8]) -> Self {
        match name {
            _ if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Self::Gzip,
            _ if name.eq_ignore_ascii_case(b"deflate") => Self::Deflate,
            _ if name.eq_ignore_ascii_case(b"br") => Self::Brotli,
            _ if name.eq_ignore_ascii_case(b"zstd") => Self::Zstd,
            _ => Self::Unknown,
        }
    }
}

/// The codings of a message's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codings {
    applied: [Option<Coding>; MAX_CODINGS],
    too_many: bool,
}

impl Codings {
    /// Takes a `Content-Encoding` value; several fields are one list (RFC 9110 5.3).
    pub fn take(&mut self, value: &[u8]) {
        for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            match self.applied.iter_mut().find(|coding| coding.is_none()) {
                Some(free) => *free = Some(Coding::of(name)),
                None => self.too_many = true,
            }
        }
    }

    /// In the order in which they were applied; absent if there are more than are followed.
    pub fn applied(self) -> Option<impl DoubleEndedIterator<Item = Coding>> {
        (!self.too_many).then(|| self.applied.into_iter().flatten())
    }

    /// Their names, in the order in which they were applied.
    pub fn words(self) -> Vec<&'static str> {
        self.applied.into_iter().flatten().map(Coding::as_str).collect()
    }

    /// Whether the content is as its author made it.
    pub const fn is_empty(self) -> bool {
        self.applied[0].is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: Option<&[Coding]>) {
        let mut codings = Codings::default();
        values.iter().for_each(|value| codings.take(value.as_bytes()));
        let applied = codings.applied().map(|applied| applied.collect::<Vec<_>>());
        assert_eq!(applied.as_deref(), expected, "{values:?}");
    }

    #[test]
    fn codings_are_listed_in_order() {
        check(&[], Some(&[]));
        check(&["gzip"], Some(&[Coding::Gzip]));
        check(&["X-GZIP , br"], Some(&[Coding::Gzip, Coding::Brotli]));
        check(&["deflate", "zstd"], Some(&[Coding::Deflate, Coding::Zstd]));
        check(&["identity", "", ",br,"], Some(&[Coding::Brotli]));
        check(&["aws-chunked"], Some(&[Coding::Unknown]));
    }

    #[test]
    fn more_than_are_followed_are_none() {
        check(&[&["gzip"; MAX_CODINGS].join(",")], Some(&[Coding::Gzip; MAX_CODINGS]));
        check(&[&["gzip"; MAX_CODINGS + 1].join(",")], None);
    }
}
