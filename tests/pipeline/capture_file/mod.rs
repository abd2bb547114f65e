//! Capture files and packets: bytes of a file in, segments out.

mod formats;

use pod2pod_user::capture::{
    Segment,
    file::{CaptureFile, Config, FileError, Stats},
};

/// What a segment was, payload copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    time: u64,
    source: String,
    destination: String,
    sequence: u32,
    flags: u8,
    payload_length: u32,
    payload: Vec<u8>,
    interface: u32,
}

impl Seen {
    fn of(segment: &Segment<'_>) -> Self {
        Self {
            time: segment.time.as_nanos(),
            source: segment.source.to_string(),
            destination: segment.destination.to_string(),
            sequence: segment.sequence,
            flags: segment.flags.0,
            payload_length: segment.payload_length,
            payload: segment.payload.to_vec(),
            interface: segment.interface_index,
        }
    }
}

/// Reads a whole file from memory.
fn read(bytes: &[u8]) -> (Vec<Seen>, Stats, Result<(), FileError>) {
    let mut seen = Vec::new();
    let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
    let mut file = match CaptureFile::from_reader("test", reader, &Config::default()) {
        Ok(file) => file,
        Err(error) => return (seen, Stats::default(), Err(error)),
    };
    let result = file.read(&mut |segment| seen.push(Seen::of(segment)));
    (seen, file.stats(), result)
}
