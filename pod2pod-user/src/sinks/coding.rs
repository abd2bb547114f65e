//! Content codings of what is sent (RFC 9110, section 8.4.1): gzip, and zstd (RFC 8878).

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

/// Of JSON lines an eighth faster than the next level, with bodies 2 % larger; the one before is half as fast again, with bodies half as
/// large again.
const GZIP_LEVEL: u32 = 2;
/// Of JSON lines a quarter faster than the default level, 3, with bodies of the same size: a fifth smaller than those of [`GZIP_LEVEL`], in
/// half its time.
const ZSTD_LEVEL: i32 = 1;

/// How the body of a request is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// As a setting calls it.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The field `Content-Encoding`, where there is one.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// `bytes` as they are sent.
    pub(super) fn encode(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Identity => bytes,
            Self::Gzip => gzip(&bytes).into(),
            Self::Zstd => zstd(&bytes).into(),
        }
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(GZIP_LEVEL));
    // A Vec takes every write.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// One frame, which says how long its content is.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    // It fails for want of room in what it writes to alone, and makes that large enough for whatever there is.
    zstd::bulk::compress(bytes, ZSTD_LEVEL).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Each is read by somebody else's decoder where there is one.
    #[test]
    fn what_is_coded_is_the_same_when_it_is_decoded() {
        let lines = "{\"url.path\":\"/item\",\"duration\":0.001}\n".repeat(1000);
        for content in [&b""[..], b"x", lines.as_bytes()] {
            let content = Bytes::copy_from_slice(content);
            assert_eq!(Coding::Identity.encode(content.clone()), content);
            let mut back = Vec::new();
            let zipped = Coding::Gzip.encode(content.clone());
            flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, content);
            back.clear();
            let frame = Coding::Zstd.encode(content.clone());
            ruzstd::decoding::StreamingDecoder::new(&frame[..]).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back, content);
            assert!(content.len() < 100 || (zipped.len().max(frame.len()) < content.len() / 10));
        }
    }

    #[test]
    fn words_and_fields() {
        for (word, name) in [("none", None), ("gzip", Some("gzip")), ("zstd", Some("zstd"))] {
            assert_eq!(Coding::parse(word).unwrap().name(), name);
        }
        assert_eq!(Coding::parse("br"), None);
    }
}
