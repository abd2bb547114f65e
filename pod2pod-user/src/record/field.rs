//! What a field of the record is: key, type, unit, meaning, and how its value is had.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;

use super::CapturedHeader;
use crate::kubernetes::cgroup::{ContainerId, PodUid};

/// A field's value, borrowed from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not known: the key is left out.
    Absent,
    /// One of a closed set of words.
    Word(&'static str),
    /// Foreign bytes.
    Text(&'a [u8]),
    /// Foreign bytes, an array.
    Texts(&'a [Bytes]),
    /// Words of a closed set, an array.
    Words(&'a [&'static str]),
    /// Bytes that are not text.
    Base64(&'a [u8]),
    /// An IP address.
    Address(IpAddr),
    /// 16 hexadecimal digits.
    Id(u64),
    /// Nanoseconds since 1970.
    Time(u64),
    /// A status code given as text.
    StatusText(u16),
    /// A whole number.
    Integer(u64),
    /// Nanoseconds, given as seconds.
    Seconds(u64),
    /// Millionths, given as a fraction.
    Millionths(u32),
    /// True; a false mark is absent.
    True,
    /// One key for each header name.
    Headers(&'a [CapturedHeader]),
    /// Uid of a pod.
    PodUid(PodUid),
    /// Id of a container.
    ContainerId(ContainerId),
    /// One key for each pair.
    Pairs(&'a [(Arc<str>, Arc<str>)]),
}

/// A field's JSON type.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A string.
    String,
    /// A string that is one of these words.
    Enum(fn() -> Vec<&'static str>),
    /// A string, RFC 3339 UTC with nanoseconds.
    Time,
    /// A string of 16 hexadecimal digits.
    Id,
    /// A number that is a non-negative integer.
    Integer,
    /// A non-negative number.
    Number,
    /// True.
    Mark,
    /// A string; an array of strings if the field was repeated.
    StringOrStrings,
    /// An array of strings.
    Strings,
    /// One key per header name, each an array of strings.
    Headers,
    /// One key per pair, each a string.
    Pairs,
}

/// Whether every record has the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every record has it.
    Always,
    /// Every record of what was seen on a connection has it; an `ipvs_reuse` is read off a table.
    OfTraffic,
    /// A record has it if the fact is known.
    IfKnown,
}

/// What stands before a field's value in its line, by what the value begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    /// The key.
    pub(super) key: &'static str,
    /// A comma, the key in quotes, a colon.
    pub(super) bare: &'static str,
    /// The same, and the quote that a string begins with.
    pub(super) quoted: &'static str,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Key; for [`Shape::Headers`] and [`Shape::Pairs`] what stands before the name.
    pub key: &'static str,
    /// JSON type.
    pub shape: Shape,
    /// Unit, or "".
    pub unit: &'static str,
    /// Whether every record has it.
    pub presence: Presence,
    /// One sentence for people.
    pub sentence: &'static str,
}
