//! A stream read forward through one buffer: peek at bytes, consume them, know the offset. Knows no format but gzip,
//! which it undoes: offsets are then those of the decompressed stream.

use std::{
    fmt,
    io::{self, BufReader, Cursor, Read},
};

use flate2::bufread::MultiGzDecoder;

use super::error::{Damage, FileError, NotACapture};

/// Bytes that tell formats apart.
pub(super) const MAGIC_BYTES: usize = 4;

/// Compressed bytes read from the system at once.
const COMPRESSED_BUFFER_BYTES: usize = 64 * 1024;

/// Compressed bytes given to the decoder at once. What it has decoded of them is lost where they are damaged, so they
/// are few.
const COMPRESSED_SIP_BYTES: usize = 512;

/// The stream and what was read ahead of it.
pub(super) struct Input {
    name: String,
    reader: Box<dyn Read>,
    buffer: Vec<u8>,
    /// Invariant: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
    /// Offset in the stream of `start`.
    offset: u64,
    ended: bool,
    /// What is read is decompressed before.
    compressed: bool,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("name", &self.name)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Input {
    pub(super) fn new(name: &str, reader: Box<dyn Read>, buffer_bytes: usize) -> Self {
        Self {
            name: name.to_owned(),
            reader,
            buffer: vec![0; buffer_bytes.max(MAGIC_BYTES)],
            start: 0,
            end: 0,
            offset: 0,
            ended: false,
            compressed: false,
        }
    }

    /// Reads the stream, of which nothing was consumed yet, through a gzip decoder from here on.
    pub(super) fn decompress(&mut self) {
        let begin = Cursor::new(self.ahead().to_vec());
        let rest = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        let compressed = BufReader::with_capacity(COMPRESSED_BUFFER_BYTES, begin.chain(rest));
        let sips = BufReader::with_capacity(COMPRESSED_SIP_BYTES, compressed);
        self.reader = Box::new(MultiGzDecoder::new(sips));
        (self.start, self.end, self.ended, self.compressed) = (0, 0, false, true);
    }

    /// The next bytes: at least `wanted` unless the stream ends before. The buffer grows to `wanted`, so the caller
    /// bounds it.
    pub(super) fn peek(&mut self, wanted: usize) -> Result<&[u8], FileError> {
        if self.end - self.start < wanted && !self.ended {
            self.fill(wanted)?;
        }
        Ok(self.ahead())
    }

    /// What was read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Steps over `count` bytes that were peeked at.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Steps over `count` bytes without keeping them; returns how many the stream had.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64, FileError> {
        let mut left = count;
        loop {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            self.consume(step);
            left -= step as u64;
            if left == 0 || self.peek(1)?.is_empty() {
                return Ok(count - left);
            }
        }
    }

    /// Offset in the stream of the next byte.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The record at the next byte is damaged.
    pub(super) fn damaged(&self, cause: Damage) -> FileError {
        self.damaged_at(self.offset, cause)
    }

    /// The record at `offset` is damaged.
    pub(super) fn damaged_at(&self, offset: u64, cause: Damage) -> FileError {
        FileError::Damaged { path: self.name.clone(), offset, cause }
    }

    /// The stream ends inside the record at the next byte.
    pub(super) fn cut_short(&self, needed: u64) -> FileError {
        self.damaged(Damage::CutShort { needed, present: (self.end - self.start) as u64 })
    }

    /// The stream is no capture file.
    pub(super) fn not_a_capture(&self, reason: NotACapture) -> FileError {
        FileError::NotACapture { path: self.name.clone(), reason }
    }

    fn fill(&mut self, wanted: usize) -> Result<(), FileError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted {
            let free = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(free) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => self.end = (self.end + count).min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.compressed && is_damage(&error) => {
                    let offset = self.offset + (self.end - self.start) as u64;
                    return Err(self.damaged_at(offset, Damage::Compression));
                }
                Err(source) => return Err(FileError::Io { path: self.name.clone(), source }),
            }
        }
        Ok(())
    }
}

/// How the decoder says that what it reads is damaged or cut short; a file or pipe has other errors.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}
