//! Removes content codings from the first bytes of a body. Gives at most as many bytes as are wanted, and takes at most a
//! bounded memory, whatever the bytes say.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder, errors::FrameDecoderError};

use crate::http::{Coding, Codings};

/// Largest window that a decoder is allowed, bytes: what RFC 8878 3.1.1.1.2 says every decoder should support. Brotli's
/// (RFC 7932 9.1) goes to 16 MiB, zstd's to terabytes.
pub const MAX_WINDOW: u64 = 8 << 20;
/// Compressed bytes that the brotli decoder is fed at a time.
const BROTLI_INPUT: usize = 4096;

/// Why content is given as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A coding that is not known, or too many.
    Unknown,
    /// Not one byte could be decoded.
    Damaged,
    /// It wants more memory than [`MAX_WINDOW`].
    Window,
}

/// Content without its codings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The content's first bytes.
    pub content: Bytes,
    /// There was more than was wanted.
    pub capped: bool,
}

/// Decodes the first bytes of a body, of which perhaps not all were captured, to at most `limit` bytes.
///
/// # Errors
/// It cannot be decoded.
pub fn decode(captured: &Bytes, codings: Codings, limit: usize) -> Result<Decoded, Refusal> {
    let mut decoded = Decoded { content: captured.clone(), capped: false };
    // The coding that was applied last comes off first.
    for coding in codings.applied().ok_or(Refusal::Unknown)?.rev() {
        decoded = remove(coding, &decoded.content, limit)?;
    }
    Ok(decoded)
}

fn remove(coding: Coding, coded: &[u8], limit: usize) -> Result<Decoded, Refusal> {
    match coding {
        Coding::Gzip => first_bytes(MultiGzDecoder::new(coded), limit),
        // RFC 9110 8.4.1.2: zlib; some send DEFLATE alone. A zlib header is divisible by 31 (RFC 1950 2.2).
        Coding::Deflate if is_zlib(coded) => first_bytes(ZlibDecoder::new(coded), limit),
        Coding::Deflate => first_bytes(DeflateDecoder::new(coded), limit),
        Coding::Brotli if brotli_window(coded) > MAX_WINDOW => Err(Refusal::Window),
        Coding::Brotli => first_bytes(Decompressor::new(coded, BROTLI_INPUT), limit),
        Coding::Zstd => zstd(coded, limit),
        Coding::Unknown => Err(Refusal::Unknown),
    }
}

fn zstd(coded: &[u8], limit: usize) -> Result<Decoded, Refusal> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW);
    match StreamingDecoder::new_with_decoder(coded, decoder) {
        Ok(decoder) => first_bytes(decoder, limit),
        Err(FrameDecoderError::WindowSizeTooBig { .. }) => Err(Refusal::Window),
        Err(_) => Err(Refusal::Damaged),
    }
}

/// What can be read up to `limit`. The captured part of a body mostly ends in the middle: what came before is good.
fn first_bytes(mut decoder: impl Read, limit: usize) -> Result<Decoded, Refusal> {
    let mut content = vec![0; limit];
    let mut length = 0;
    let mut ended = false;
    while let Some(room) = content.get_mut(length..).filter(|room| !room.is_empty()) {
        match decoder.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                ended = true;
                break;
            }
            Ok(read) => length += read,
        }
    }
    if length == 0 && limit > 0 {
        return Err(Refusal::Damaged);
    }
    let capped = !ended && decoder.read(&mut [0]).is_ok_and(|read| read > 0);
    content.truncate(length);
    Ok(Decoded { content: Bytes::from(content), capped })
}

fn is_zlib(coded: &[u8]) -> bool {
    match coded {
        &[method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31),
        _ => false,
    }
}

/// The window that a brotli stream declares, bytes (RFC 7932 9.1); one that is no stream by the RFC (the large-window
/// extension) is taken for endless.
fn brotli_window(coded: &[u8]) -> u64 {
    let first = coded.first().copied().unwrap_or_default();
    let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, _, _) => 16,
        (_, 0, 0) => 17,
        (_, 0, 1) => return u64::MAX,
        (_, 0, bits) => 8 + bits,
        (_, bits, _) => 17 + bits,
    };
    1 << bits
}
