//! The chunked transfer coding (RFC 9112 7.1), byte by byte across any cut; content is passed through, never kept.
//!
//! Sizes are read as leniently as is safe: white space, a `0x`, anything behind the digits up to the line's end. What is
//! no size at all, or content without a line end behind it, breaks the framing for good.

use super::exchange::Anomalies;

/// Longest chunk-size line with its extensions, bytes; servers refuse more than 4 to 16 KiB.
pub const MAX_CHUNK_LINE: u32 = 16 * 1024;

/// Longest trailer section, bytes; as much as a head.
pub const MAX_TRAILERS: u32 = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    /// Behind a single 0 that may be the beginning of `0x`.
    SizeZero,
    /// Behind `0x`.
    SizePrefix,
    /// In the digits.
    Size,
    /// Behind the digits, up to LF: white space, extensions.
    Extension,
    /// In the content.
    Data,
    /// Behind the content: CR LF, or LF.
    DataEnd,
    /// Behind the CR that follows the content.
    DataEndCr,
    /// At the start of a trailer line.
    TrailerStart,
    /// Behind a CR at the start of a trailer line.
    TrailerStartCr,
    /// In a trailer line.
    Trailer,
    /// Nothing more belongs to the body.
    Done,
}

/// Why a chunked body cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenChunk {
    /// No hexadecimal size where one must be.
    NoSize,
    /// A size over 64 bits.
    SizeTooLarge,
    /// A chunk-size line over [`MAX_CHUNK_LINE`].
    LineTooLong,
    /// Content that is not followed by a line end.
    NoLineEnd,
    /// A trailer section over [`MAX_TRAILERS`].
    TrailersTooLong,
}

/// A step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStep<'a> {
    /// Content, never empty.
    Content(&'a [u8]),
    /// All input was read.
    NeedMore,
    /// The body ended; what is left of the input belongs to the next message.
    End,
    /// The framing is broken at the first byte that is left of the input.
    Broken(BrokenChunk),
}

/// The decoder of one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Size being read, then content bytes to come of the current chunk.
    remaining: u64,
    /// Bytes of the current size line or of the trailers so far.
    line: u32,
    anomalies: Anomalies,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::SizeStart, remaining: 0, line: 0, anomalies: Anomalies::NONE }
    }
}

impl Chunked {
    /// Oddities met so far.
    pub const fn anomalies(&self) -> Anomalies {
        self.anomalies
    }

    /// Content bytes known to follow, before the next size line.
    pub const fn content_ahead(&self) -> u64 {
        if matches!(self.state, State::Data) { self.remaining } else { 0 }
    }

    /// Passes over `length` bytes of content that were not seen; whether the framing still stands.
    pub const fn skip_content(&mut self, length: u64) -> bool {
        if length > self.content_ahead() {
            return false;
        }
        self.remaining -= length;
        if self.remaining == 0 {
            self.state = State::DataEnd;
        }
        true
    }

    /// Reads on; call again until it needs more or has ended.
    pub fn step<'a>(&mut self, input: &mut &'a [u8]) -> ChunkStep<'a> {
        loop {
            if self.state == State::Done {
                return ChunkStep::End;
            }
            if self.state == State::Data {
                let available = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
                if available == 0 {
                    return ChunkStep::NeedMore;
                }
                let (content, rest) = input.split_at(available);
                *input = rest;
                self.skip_content(available as u64);
                return ChunkStep::Content(content);
            }
            let Some((&byte, rest)) = input.split_first() else { return ChunkStep::NeedMore };
            if let Err(broken) = self.byte(byte) {
                self.anomalies.insert(Anomalies::BROKEN_CHUNK);
                return ChunkStep::Broken(broken);
            }
            *input = rest;
        }
    }

    /// `bytes`, which this decoder is about to read, with `cover` for every byte that is no framing: content, extensions,
    /// trailers but for their line ends.
    pub(super) fn framing(&self, bytes: &[u8], cover: u8) -> Vec<u8> {
        let mut decoder = self.clone();
        let mut framing = Vec::with_capacity(bytes.len());
        while let Some(&byte) = bytes.get(framing.len()) {
            let content = decoder.content_ahead().min((bytes.len() - framing.len()) as u64);
            if content > 0 {
                framing.resize(framing.len() + content as usize, cover);
                decoder.skip_content(content);
                continue;
            }
            let is_framing = match decoder.state {
                State::SizeStart | State::SizeZero | State::SizePrefix | State::Size => {
                    byte.is_ascii_hexdigit()
                        || matches!(byte, b'x' | b'X' | b';' | b' ' | b'\t' | b'\r' | b'\n')
                }
                State::DataEnd | State::DataEndCr => true,
                State::Extension | State::TrailerStart | State::TrailerStartCr | State::Trailer => {
                    matches!(byte, b'\r' | b'\n')
                }
                State::Data | State::Done => false,
            };
            framing.push(if is_framing { byte } else { cover });
            if decoder.byte(byte).is_err() {
                break;
            }
        }
        framing
    }

    fn byte(&mut self, byte: u8) -> Result<(), BrokenChunk> {
        match self.state {
            State::SizeStart | State::SizeZero | State::SizePrefix | State::Size | State::Extension => {
                self.line += 1;
                if self.line > MAX_CHUNK_LINE {
                    return Err(BrokenChunk::LineTooLong);
                }
                self.size_byte(byte)
            }
            State::DataEnd | State::DataEndCr => self.data_end_byte(byte),
            State::TrailerStart | State::TrailerStartCr | State::Trailer => {
                self.line += 1;
                if self.line > MAX_TRAILERS {
                    return Err(BrokenChunk::TrailersTooLong);
                }
                self.trailer_byte(byte);
                Ok(())
            }
            State::Data | State::Done => Ok(()),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<(), BrokenChunk> {
        match (self.state, byte) {
            (State::Size | State::SizeZero | State::Extension, b'\n') => self.size_line_end(),
            (State::Extension, _) => {}
            (State::SizeStart, b' ' | b'\t') => self.anomalies.insert(Anomalies::ODD_CHUNK),
            (State::SizeZero, b'x' | b'X') => {
                self.anomalies.insert(Anomalies::ODD_CHUNK);
                self.state = State::SizePrefix;
            }
            (_, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let size = self.remaining.checked_mul(16).ok_or(BrokenChunk::SizeTooLarge)?;
                self.remaining = size + digit;
                self.state = if byte == b'0' && self.state == State::SizeStart {
                    State::SizeZero
                } else {
                    State::Size
                };
            }
            (State::SizeStart | State::SizePrefix, _) => return Err(BrokenChunk::NoSize),
            (_, b'\r' | b';') => self.state = State::Extension,
            _ => {
                // White space is allowed before extensions only (RFC 9112 7.1.1), and is common without them.
                self.anomalies.insert(Anomalies::ODD_CHUNK);
                self.state = State::Extension;
            }
        }
        Ok(())
    }

    fn size_line_end(&mut self) {
        self.line = 0;
        self.state = if self.remaining == 0 { State::TrailerStart } else { State::Data };
    }

    fn data_end_byte(&mut self, byte: u8) -> Result<(), BrokenChunk> {
        match (self.state, byte) {
            (State::DataEnd, b'\r') => self.state = State::DataEndCr,
            (_, b'\n') => self.state = State::SizeStart,
            _ => return Err(BrokenChunk::NoLineEnd),
        }
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::TrailerStart | State::TrailerStartCr, b'\n') => State::Done,
            (State::TrailerStart, b'\r') => State::TrailerStartCr,
            (_, b'\n') => State::TrailerStart,
            _ => State::Trailer,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, rest and end of a body given in the pieces that `cut` makes.
    fn decode(body: &[u8], cut: usize) -> (Vec<u8>, usize, Result<bool, BrokenChunk>, Anomalies) {
        let mut chunked = Chunked::default();
        let mut content = Vec::new();
        let mut read = 0;
        for piece in [&body[..cut], &body[cut..]] {
            let mut input = piece;
            loop {
                let left = input.len();
                let step = chunked.step(&mut input);
                read += left - input.len();
                match step {
                    ChunkStep::Content(bytes) => content.extend_from_slice(bytes),
                    ChunkStep::NeedMore => break,
                    ChunkStep::End => return (content, read, Ok(true), chunked.anomalies()),
                    ChunkStep::Broken(broken) => return (content, read, Err(broken), chunked.anomalies()),
                }
            }
        }
        (content, read, Ok(false), chunked.anomalies())
    }

    fn check(body: &str, content: &str, end: Result<bool, BrokenChunk>, anomalies: &[&str]) {
        let whole = decode(body.as_bytes(), 0);
        assert_eq!(String::from_utf8_lossy(&whole.0), content, "{body:?}");
        assert_eq!(whole.2, end, "{body:?}");
        assert_eq!(whole.3.names().collect::<Vec<_>>(), anomalies, "{body:?}");
        for cut in 0..=body.len() {
            assert_eq!(decode(body.as_bytes(), cut), whole, "{body:?} cut at {cut}");
        }
    }

    #[test]
    fn bodies() {
        check("0\r\n\r\n", "", Ok(true), &[]);
        check("5\r\nhello\r\n0\r\n\r\n", "hello", Ok(true), &[]);
        check("5\nhello\n0\n\n", "hello", Ok(true), &[]);
        check("00005\r\nhello\r\n000\r\n\r\n", "hello", Ok(true), &[]);
        check("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", Ok(true), &[]);
        check("1;a=b\r\nx\r\n0;c\r\n\r\n", "x", Ok(true), &[]);
        check("1;a=\"\\r\\n;0\"\r\nx\r\n0\r\n\r\n", "x", Ok(true), &[]);
        check("1;a=\"\r x\"\r\nx\r\n0\r\n\r\n", "x", Ok(true), &[]);
        check("1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", "x", Ok(true), &[]);
        check("1 \r\nx\r\n0\r\n\r\n", "x", Ok(true), &["odd_chunk"]);
        check(" 1\r\nx\r\n0\r\n\r\n", "x", Ok(true), &["odd_chunk"]);
        check("0x1\r\nx\r\n0\r\n\r\n", "x", Ok(true), &["odd_chunk"]);
        check("1g\r\nx\r\n0\r\n\r\n", "x", Ok(true), &["odd_chunk"]);
        check("5\r\nhel", "hel", Ok(false), &[]);
        check("5\r\nhello\r\n0\r\n", "hello", Ok(false), &[]);
    }

    #[test]
    fn broken_bodies() {
        let broken = &["broken_chunk"];
        check("x\r\n", "", Err(BrokenChunk::NoSize), broken);
        check("\r\n", "", Err(BrokenChunk::NoSize), broken);
        check("-1\r\n", "", Err(BrokenChunk::NoSize), broken);
        check("2\r\nabc\r\n", "ab", Err(BrokenChunk::NoLineEnd), broken);
        check("1\r\na\rb", "a", Err(BrokenChunk::NoLineEnd), broken);
        check("10000000000000000\r\n", "", Err(BrokenChunk::SizeTooLarge), broken);
        check("ffffffffffffffff\r\nab", "ab", Ok(false), &[]);
    }

    #[test]
    fn lines_and_trailers_at_their_limits_and_one_past() {
        let line =
            |extra: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(MAX_CHUNK_LINE as usize - 4 + extra));
        assert_eq!(decode(line(0).as_bytes(), 0).2, Ok(true));
        assert_eq!(decode(line(1).as_bytes(), 0).2, Err(BrokenChunk::LineTooLong));
        let trailers =
            |extra: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(MAX_TRAILERS as usize - 4 + extra));
        assert_eq!(decode(trailers(0).as_bytes(), 0).2, Ok(true));
        assert_eq!(decode(trailers(1).as_bytes(), 0).2, Err(BrokenChunk::TrailersTooLong));
    }
}
