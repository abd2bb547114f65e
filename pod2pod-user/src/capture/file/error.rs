//! What can be wrong with a capture file, said for people. All of it ends in exit code 65.

use std::{fmt, io};

/// Why a capture file was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file does not begin like a capture file; nothing was delivered.
    #[error("{path}: not a capture file: {reason}")]
    NotACapture {
        /// How the file was named.
        path: String,
        /// What it looks like instead.
        reason: NotACapture,
    },
    /// The file is damaged; everything before was delivered.
    #[error("{path}: damaged at byte {offset}: {cause}; everything before it was read")]
    Damaged {
        /// How the file was named.
        path: String,
        /// First byte of the record that cannot be read.
        offset: u64,
        /// What is wrong with it.
        cause: Damage,
    },
    /// The file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// How the file was named.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why a file is no capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotACapture {
    /// No byte at all.
    Empty,
    /// Fewer bytes than a file header has.
    TooShort,
    /// A compressed file: what compressed it, and what undoes that.
    Compressed(&'static str, &'static str),
    /// A capture format that is not read.
    OtherFormat(&'static str),
    /// A version of the format that is not known.
    Version(u16, u16),
    /// The header contradicts itself.
    Header,
    /// Anything else, by its first bytes.
    Unknown([u8; 4]),
}

impl fmt::Display for NotACapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::TooShort => write!(f, "it is shorter than a file header"),
            Self::Compressed(with, undo) => {
                write!(
                    f,
                    "it is compressed with {with}; decompress it first, for example `{undo} <FILE | pod2pod replay -`"
                )
            }
            Self::OtherFormat(name) => {
                write!(f, "it is a {name} file; convert it first, for example `editcap -F pcapng FILE NEW`")
            }
            Self::Version(major, minor) => write!(f, "version {major}.{minor} of the format is not known"),
            Self::Header => write!(f, "its header contradicts itself"),
            Self::Unknown([a, b, c, d]) => {
                write!(
                    f,
                    "it begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}, not with those of pcap or pcapng"
                )
            }
        }
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The file ends inside a record of so many bytes, after so many.
    CutShort {
        /// Bytes the record has by its own account.
        needed: u64,
        /// Bytes there are.
        present: u64,
    },
    /// A record claims more bytes than any packet has.
    TooLarge(u64),
    /// A pcapng block claims a length that no block can have.
    BlockLength(u32),
    /// The contents of a pcapng block contradict its length.
    Block(u32),
    /// A pcapng section header without a known byte order or version.
    Section,
    /// A packet names an interface that the section has not described.
    Interface(u32),
    /// The gzip stream around the capture is damaged or cut short.
    Compression,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutShort { needed, present } => {
                write!(f, "the file ends inside a record: {present} of {needed} bytes are there")
            }
            Self::TooLarge(bytes) => write!(f, "a record claims {bytes} bytes, more than any packet has"),
            Self::BlockLength(bytes) => write!(f, "a block claims the impossible length of {bytes} bytes"),
            Self::Block(kind) => write!(f, "the contents of a block of type {kind:#x} contradict its length"),
            Self::Section => write!(f, "a section header has no known byte order or version"),
            Self::Interface(id) => write!(f, "a packet names interface {id}, which was not described before"),
            Self::Compression => {
                write!(
                    f,
                    "the gzip stream is damaged or cut short (the byte is counted in what it expands to)"
                )
            }
        }
    }
}
