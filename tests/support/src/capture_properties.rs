//! Properties of capture files and packets that hold for any bytes: what the fuzz targets look for, and what the corpora
//! are replayed against. A broken property panics.

use std::io::{self, Read};

use pod2pod_user::capture::{
    KernelInstant, Segment,
    file::{CaptureFile, Config, MAX_RECORD_BYTES},
    packet::{Frame, PacketDecoder},
};

/// Smallest record of a capture file: more segments than this allows come from nowhere.
const SMALLEST_RECORD_BYTES: usize = 16;

/// Gives a stream in pieces of one size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(buffer.get_mut(..length).unwrap_or_default())
    }
}

/// Owned, because a reader has to be.
struct Stream {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = Pieces(self.bytes.get(self.at..).unwrap_or_default(), self.piece);
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// Everything that a reader tells of a file, in a form that compares.
fn told(data: &[u8], piece: usize, buffer_bytes: usize) -> (Vec<String>, String) {
    let mut segments = Vec::new();
    let stream = Box::new(Stream { bytes: data.to_vec(), at: 0, piece });
    let result = CaptureFile::from_reader("input", stream, &Config { buffer_bytes }).and_then(|mut file| {
        file.read(&mut |segment: &Segment<'_>| {
            assert!(segment.payload.len() <= segment.payload_length as usize, "more captured than sent");
            assert!(segment.payload.len() <= MAX_RECORD_BYTES, "more than a record holds");
            segments.push(format!("{segment:?}"));
        })
    });
    (segments, format!("{result:?}"))
}

/// The segments and the error of a file do not depend on how its stream was cut or on the buffer.
///
/// # Panics
///
/// When they do, or when there are more segments than the file has room for.
pub fn capture_file(data: &[u8]) {
    let whole = told(data, usize::MAX, 64 * 1024);
    assert!(whole.0.len() <= data.len() / SMALLEST_RECORD_BYTES, "segments from nowhere");
    assert_eq!(whole, told(data, 7, 1), "cut into pieces of seven bytes");
}

/// Splits fuzz input into a link type and frames: a length in one byte, what the capture cut off in another, the bytes.
fn frames(data: &[u8]) -> (u32, Vec<(&[u8], u32)>) {
    let Some(([high, low], mut rest)) = data.split_first_chunk::<2>() else {
        return (0, Vec::new());
    };
    let mut frames = Vec::new();
    while let Some(([length, cut], after)) = rest.split_first_chunk::<2>() {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        frames.push((bytes, bytes.len() as u32 + u32::from(*cut)));
        rest = after;
    }
    (u16::from_be_bytes([*high, *low]).into(), frames)
}

/// No packet gives more payload than it has, and a capture that kept less of it gives no bytes that the packet has not
/// at that place.
///
/// # Panics
///
/// When one does.
pub fn packet(data: &[u8]) {
    let (link_type, frames) = frames(data);
    let mut decoder = PacketDecoder::new();
    let mut held = 0;
    for (index, (bytes, original_length)) in frames.iter().enumerate() {
        held += bytes.len();
        let time = KernelInstant::from_nanos(index as u64);
        let frame = Frame { link_type, bytes, original_length: *original_length, time, interface: 0 };
        let mut payloads = 0;
        decoder.decode(&frame, &mut |segment| {
            payloads += segment.payload.len();
            assert!(segment.payload.len() <= segment.payload_length as usize, "more captured than sent");
        });
        assert!(payloads <= held, "payload from nowhere");
        for kept in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
            check_shorter(&frame, kept);
        }
    }
}

/// What is decoded of the frame's first `kept` bytes is a part of those.
fn check_shorter(frame: &Frame<'_>, kept: usize) {
    let bytes = frame.bytes.get(..kept).unwrap_or_default();
    PacketDecoder::new().decode(&Frame { bytes, ..*frame }, &mut |segment| {
        let inside = segment.payload.is_empty()
            || bytes.windows(segment.payload.len()).any(|window| window == segment.payload);
        assert!(inside, "bytes from nowhere");
        assert!(segment.payload_length <= frame.original_length.max(kept as u32), "longer than the packet");
    });
}
