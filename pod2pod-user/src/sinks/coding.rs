//! Codings of what is sent and answered (RFC 9110, section 8.4.1): gzip, and zstd (RFC 8878).

use std::io::{Read, Write as _};

use bytes::Bytes;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// Of JSON lines an eighth faster than the next level, with bodies 2 % larger; the one before is half as fast again, with bodies half as
/// large again.
const GZIP_LEVEL: u32 = 2;
/// Of JSON lines a quarter faster than the default level, 3, with bodies of the same size: a fifth smaller than those of [`GZIP_LEVEL`], in
/// half its time.
const ZSTD_LEVEL: i32 = 1;

/// Largest window that the decoder of an answer is allowed, bytes: what RFC 8878 3.1.1.1.2 says every decoder should support.
const MAX_WINDOW: u64 = 8 << 20;

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

    /// By the name in a field; absent if it is not known.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"identity" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What was coded so; absent if it is damaged, or has more than `most` bytes.
    pub(super) fn decode(self, coded: &[u8], most: usize) -> Option<Vec<u8>> {
        match self {
            Self::Identity => all(coded, most),
            Self::Gzip => all(GzDecoder::new(coded), most),
            Self::Zstd => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(MAX_WINDOW);
                all(StreamingDecoder::new_with_decoder(coded, decoder).ok()?, most)
            }
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

fn all(decoder: impl Read, most: usize) -> Option<Vec<u8>> {
    let (mut content, limit) = (Vec::new(), u64::try_from(most).unwrap_or(u64::MAX));
    decoder.take(limit.saturating_add(1)).read_to_end(&mut content).ok()?;
    (content.len() <= most).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_coded_is_the_same_when_it_is_decoded() {
        let lines = "{\"url.path\":\"/item\",\"duration\":0.001}\n".repeat(1000);
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            for content in [&b""[..], b"x", lines.as_bytes()] {
                let coded = coding.encode(Bytes::copy_from_slice(content));
                assert_eq!(coding.decode(&coded, content.len()).as_deref(), Some(content), "{coding:?}");
                let is_smaller = coded.len() < content.len() / 10;
                assert!(coding == Coding::Identity || content.len() < 100 || is_smaller, "{coding:?}");
            }
        }
    }

    #[test]
    fn an_answer_at_its_limit_and_one_past_or_damaged() {
        const MOST: usize = 1000;
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            let coded = |length| coding.encode(vec![b'x'; length].into());
            assert_eq!(coding.decode(&coded(MOST), MOST).map(|content| content.len()), Some(MOST));
            assert_eq!(coding.decode(&coded(MOST + 1), MOST), None);
            // A bomb is opened as far as that.
            assert_eq!(coding.decode(&coded(64 << 20), MOST), None);
            if coding != Coding::Identity {
                let whole = coded(MOST);
                assert!((0..whole.len()).all(|cut| coding.decode(&whole[..cut], MOST).is_none()));
                assert_eq!(coding.decode(b"nonsense", MOST), None);
            }
        }
    }

    #[test]
    fn a_window_at_its_limit_and_one_past() {
        // Magic number, no single segment, a window of 2^(10 + exponent) bytes and eighths of it, then an empty last block.
        let frame = |descriptor: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 1, 0, 0];
        assert_eq!(Coding::Zstd.decode(&frame(13 << 3), 1), Some(Vec::new()));
        assert_eq!(Coding::Zstd.decode(&frame(13 << 3 | 1), 1), None);
    }

    #[test]
    fn words_and_fields() {
        for (word, name) in [("none", None), ("gzip", Some("gzip")), ("zstd", Some("zstd"))] {
            assert_eq!(Coding::parse(word).unwrap().name(), name);
            assert_eq!(Coding::named(name.unwrap_or("identity").as_bytes()), Coding::parse(word));
        }
        assert_eq!(Coding::named(b"snappy"), None);
        assert_eq!(Coding::parse("br"), None);
    }
}
