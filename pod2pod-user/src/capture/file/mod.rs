//! Capture files: pcap and pcapng from a file or a stream in, TCP [`Segment`](crate::capture::Segment)s out.
//!
//! Reads forward only, so a pipe is as good as a file. Reassembles no TCP and skips no packet silently: what is not
//! delivered is counted. Files compressed with gzip are read as they are. The formats are read by `pcap-parser`'s block parsers; its readers are not used because they
//! hide I/O errors, refuse a header that arrives in pieces, and cannot step over a block larger than their buffer.

mod classic;
mod error;
mod input;
mod next_generation;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub use error::{Damage, FileError, NotACapture};

use super::{
    KernelInstant,
    packet::{self, Deliver, Frame, PacketDecoder},
};
use classic::Classic;
use input::Input;
use next_generation::Section;

/// Bytes read at once: large enough that system calls do not count, small enough to stay in the second-level cache.
pub const DEFAULT_BUFFER_BYTES: usize = 256 * 1024;

/// Largest record that is read. The largest packets are those of GRO (512 KiB, `GRO_MAX_SIZE` in
/// include/linux/netdevice.h); a record that claims more is damage.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Interfaces remembered of one pcapng section.
pub const MAX_INTERFACES: usize = 65_536;

/// Records read by one call of [`CaptureFile::next_batch`].
pub const BATCH_RECORDS: usize = 1024;

/// First bytes of a gzip stream (RFC 1952 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How capture files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes read at once.
    pub buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { buffer_bytes: DEFAULT_BUFFER_BYTES }
    }
}

/// Whether a capture file has more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// The file ended cleanly.
    Ended,
}

/// What was read: plain counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packet records read.
    pub records: u64,
    /// pcapng blocks that carry no packets.
    pub other_blocks: u64,
    /// Packets of interfaces past [`MAX_INTERFACES`].
    pub interfaces_over_limit: u64,
    /// What became of the packets.
    pub packets: packet::Stats,
}

#[derive(Debug)]
enum Format {
    Classic(Classic),
    NextGeneration(Section),
}

/// An open capture file.
#[derive(Debug)]
pub struct CaptureFile {
    input: Input,
    format: Format,
    decoder: PacketDecoder,
    stats: Stats,
    latest: KernelInstant,
}

/// One packet as its record has it.
#[derive(Debug)]
struct Record<'a> {
    /// Bytes of the file that the record takes.
    consumed: usize,
    /// The packet; none if the record is of another kind.
    frame: Option<Frame<'a>>,
}

impl CaptureFile {
    /// Opens the file at `path`; `-` is standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or read, or does not begin like a capture file.
    pub fn open(path: &Path, config: &Config) -> Result<Self, FileError> {
        if path.as_os_str() == "-" {
            return Self::from_reader("standard input", Box::new(io::stdin()), config);
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::from_reader(&name, Box::new(file), config),
            Err(source) => Err(FileError::Io { path: name, source }),
        }
    }

    /// Reads a capture from any stream; `name` is how errors call it.
    ///
    /// # Errors
    ///
    /// When it cannot be read or does not begin like a capture file.
    pub fn from_reader(name: &str, reader: Box<dyn Read>, config: &Config) -> Result<Self, FileError> {
        let mut input = Input::new(name, reader, config.buffer_bytes);
        if input.peek(GZIP_MAGIC.len())?.starts_with(&GZIP_MAGIC) {
            input.decompress();
        }
        let begin = input.peek(input::MAGIC_BYTES)?;
        let format = match begin.first_chunk::<{ input::MAGIC_BYTES }>() {
            None if begin.is_empty() => return Err(input.not_a_capture(NotACapture::Empty)),
            None => return Err(input.not_a_capture(NotACapture::TooShort)),
            Some(magic) => match Magic::of(*magic) {
                Magic::Classic => Format::Classic(Classic::open(&mut input)?),
                Magic::NextGeneration => Format::NextGeneration(Section::open(&mut input)?),
                Magic::Other(reason) => return Err(input.not_a_capture(reason)),
            },
        };
        let decoder = PacketDecoder::new();
        Ok(Self { input, format, decoder, stats: Stats::default(), latest: KernelInstant::default() })
    }

    /// Delivers every segment up to the end of the file.
    ///
    /// # Errors
    ///
    /// As [`next_batch`](Self::next_batch).
    pub fn read(&mut self, deliver: &mut Deliver<'_>) -> Result<(), FileError> {
        while self.next_batch(deliver)? == Progress::More {}
        Ok(())
    }

    /// Delivers the segments of the next [`BATCH_RECORDS`] records, or of those that a live stream has given.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is damaged; all segments up to there have been delivered.
    pub fn next_batch(&mut self, deliver: &mut Deliver<'_>) -> Result<Progress, FileError> {
        for _ in 0..BATCH_RECORDS {
            let record = match &mut self.format {
                Format::Classic(classic) => classic.next(&mut self.input)?,
                Format::NextGeneration(section) => section.next(&mut self.input, &mut self.stats)?,
            };
            let Some(Record { consumed, frame }) = record else {
                return Ok(Progress::Ended);
            };
            if let Some(frame) = frame {
                self.stats.records += 1;
                self.latest = self.latest.max(frame.time);
                self.decoder.decode(&frame, deliver);
            }
            self.input.consume(consumed);
            if self.input.ahead().is_empty() {
                // A live stream may have no more for a while: the caller shows what there is.
                break;
            }
        }
        Ok(Progress::More)
    }

    /// Latest packet time so far: what `now` is while replaying.
    pub const fn latest(&self) -> KernelInstant {
        self.latest
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        Stats { packets: self.decoder.stats(), ..self.stats.clone() }
    }
}

/// What the first bytes of a file say.
enum Magic {
    Classic,
    NextGeneration,
    Other(NotACapture),
}

impl Magic {
    fn of(bytes: [u8; input::MAGIC_BYTES]) -> Self {
        match bytes {
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] | [0xa1, 0xb2, 0xcd, 0x34] => Self::Classic,
            [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] | [0x34, 0xcd, 0xb2, 0xa1] => Self::Classic,
            [0x0a, 0x0d, 0x0d, 0x0a] => Self::NextGeneration,
            [a, b, ..] if [a, b] == GZIP_MAGIC => {
                Self::Other(NotACapture::Compressed("gzip twice", "gunzip"))
            }
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Other(NotACapture::Compressed("zstd", "zstd -d")),
            [0x04, 0x22, 0x4d, 0x18] => Self::Other(NotACapture::Compressed("lz4", "lz4 -d")),
            [0xfd, b'7', b'z', b'X'] => Self::Other(NotACapture::Compressed("xz", "xz -d")),
            [b'B', b'Z', b'h', _] => Self::Other(NotACapture::Compressed("bzip2", "bunzip2")),
            [b's', b'n', b'o', b'o'] => Self::Other(NotACapture::OtherFormat("snoop")),
            [b'R', b'T', b'S', b'S'] | [b'G', b'M', b'B', b'U'] => {
                Self::Other(NotACapture::OtherFormat("Microsoft Network Monitor"))
            }
            [b'T', b'R', b'S', b'N'] | [b'X', b'C', b'P', 0] => {
                Self::Other(NotACapture::OtherFormat("Sniffer"))
            }
            other => Self::Other(NotACapture::Unknown(other)),
        }
    }
}
