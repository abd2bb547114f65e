//! Fields of a head that somebody wants: those that frame the message, and those that are kept for the record.
//!
//! Everything kept of one message lies in one allocation. Knows names, not what their values mean.

use bytes::Bytes;

use super::{coding::Codings, exchange::Header, framing::FramingFields, head::Visitor};

/// Kept of every request: who was asked, who asked, and which trace it belongs to.
pub(super) const ALWAYS_KEPT: [&[u8]; 3] = [b"host", b"user-agent", b"traceparent"];

/// Memory in which the kept fields of one head are gathered; reused from head to head.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    /// Codings of the content.
    pub(super) codings: Codings,
    /// Name and end of value in `bytes`; a value begins where the one before ends.
    ends: Vec<(Bytes, usize)>,
}

impl Scratch {
    /// Empties it.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.codings = Codings::default();
    }

    /// `first` and `second` and the fields that were gathered, in one allocation.
    pub(super) fn finish<H: FromIterator<Header>>(
        &mut self,
        first: &[u8],
        second: &[u8],
    ) -> (Bytes, Bytes, H) {
        let values = self.bytes.len();
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        if self.bytes.is_empty() {
            return (Bytes::new(), Bytes::new(), self.headers(&Bytes::new()));
        }
        let all = shared(&self.bytes);
        let middle = values + first.len();
        let headers = self.headers(&all);
        (all.slice(values..middle), all.slice(middle..), headers)
    }

    fn headers<H: FromIterator<Header>>(&mut self, all: &Bytes) -> H {
        let mut start = 0;
        let mut next = |end: usize| all.slice(std::mem::replace(&mut start, end)..end);
        self.ends.drain(..).map(|(name, end)| Header { name, value: next(end) }).collect()
    }
}

/// Bytes that lie beside their own reference counter. `Bytes` made from a slice take a second allocation for the counter
/// as soon as they are shared.
struct Small<const ROOM: usize> {
    bytes: [u8; ROOM],
    length: usize,
}

/// What is kept of a head as one allocation, if it is not much: with the counter, of 96 or 256 bytes.
fn shared(bytes: &[u8]) -> Bytes {
    let small = || Small::<64>::bytes(bytes).or_else(|| Small::<224>::bytes(bytes));
    small().unwrap_or_else(|| Bytes::copy_from_slice(bytes))
}

impl<const ROOM: usize> Small<ROOM> {
    /// `bytes`, shared, if there is room for them.
    fn bytes(bytes: &[u8]) -> Option<Bytes> {
        if bytes.len() > ROOM {
            return None;
        }
        let mut small = Self { bytes: [0; ROOM], length: bytes.len() };
        small.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Bytes::from_owner(small))
    }
}

impl<const ROOM: usize> AsRef<[u8]> for Small<ROOM> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Names of fields that frame a message, or say what it is.
const FRAMING: [&[u8]; 4] = [b"upgrade", b"content-encoding", b"content-length", b"transfer-encoding"];

/// Lower-case names of fields to keep.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Bytes>,
    /// By length, a bit for each of their first letters, and for those of the names that frame a message: most other names
    /// have another one.
    firsts: [u32; LENGTHS],
}

/// Lengths of names that are told apart; longer ones count as the last.
const LENGTHS: usize = 32;

impl Names {
    /// Each once. The fixed ones come first and cost nothing to share.
    pub(super) fn new(fixed: &[&'static [u8]], configured: &[String]) -> Self {
        let mut names: Vec<Bytes> = fixed.iter().map(|name| Bytes::from_static(name)).collect();
        for name in configured {
            let name = Bytes::from(name.to_ascii_lowercase());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let looked_at = names.iter().map(|name| &name[..]).chain(FRAMING);
        let mut firsts = [0; LENGTHS];
        for name in looked_at {
            if let Some(firsts) = firsts.get_mut(name.len().min(LENGTHS - 1)) {
                *firsts |= first_bit(name);
            }
        }
        Self { names, firsts }
    }

    /// Whether a name of this length and first letter may be one that somebody wants.
    #[inline(always)]
    fn may_be(&self, name: &[u8]) -> bool {
        self.firsts.get(name.len().min(LENGTHS - 1)).is_some_and(|firsts| firsts & first_bit(name) != 0)
    }

    /// The name that is `name`, in any case.
    fn find(&self, name: &[u8]) -> Option<&Bytes> {
        self.names.iter().find(|wanted| is_name(name, wanted))
    }
}

/// Whether `name` is `lower`, a name in lower case, in any case. Most others begin with another letter.
#[inline]
fn is_name(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() || first_bit(name) != first_bit(lower) {
        return false;
    }
    let (Some(last), Some(last_lower)) = (name.last_chunk(), lower.last_chunk()) else {
        return name.eq_ignore_ascii_case(lower);
    };
    // Eight letters at once, some of the last twice.
    let is_same = |(word, lower): (&[u8; 8], &[u8; 8])| lower_case(*word) == u64::from_le_bytes(*lower);
    name.as_chunks().0.iter().zip(lower.as_chunks().0).all(is_same) && is_same((last, last_lower))
}

/// Letters of ASCII in lower case, in a word's bytes. No sum goes from one byte to the next: they are of seven bits each.
fn lower_case(bytes: [u8; 8]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let word = u64::from_le_bytes(bytes);
    let low = word & !HIGH;
    let (from_a, behind_z) = (low + (0x80 - b'A' as u64) * EACH, low + (0x7f - b'Z' as u64) * EACH);
    word | ((from_a & !behind_z & !word & HIGH) >> 2)
}

/// One of 32, the same for a letter in either case.
#[inline(always)]
fn first_bit(name: &[u8]) -> u32 {
    1 << (name.first().copied().unwrap_or_default() & 31)
}

/// The visitor of one head.
#[derive(Debug)]
pub(super) struct Fields<'s> {
    pub(super) framing: FramingFields,
    /// What the message would upgrade to, or upgrades to.
    pub(super) upgrade: Option<Upgrade>,
    wanted: &'s Names,
    scratch: &'s mut Scratch,
}

/// Protocols that are told apart behind a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    WebSocket,
    Http2,
    Other,
}

impl<'s> Fields<'s> {
    pub(super) fn new(wanted: &'s Names, scratch: &'s mut Scratch) -> Self {
        Self { framing: FramingFields::default(), upgrade: None, wanted, scratch }
    }
}

impl Visitor for Fields<'_> {
    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.wanted.may_be(name) {
            self.look_at(name, value, push_unfolded);
        }
    }

    #[inline(always)]
    fn clean_field(&mut self, name: &[u8], value: &[u8]) {
        if self.wanted.may_be(name) {
            self.look_at(name, value, Vec::extend_from_slice);
        }
    }
}

impl Fields<'_> {
    fn look_at(&mut self, name: &[u8], value: &[u8], push: fn(&mut Vec<u8>, &[u8])) {
        let [upgrades, encoding, length, transfer] = FRAMING;
        match name.len() {
            7 if is_name(name, upgrades) => self.upgrade = Some(upgrade(value)),
            16 if is_name(name, encoding) => self.scratch.codings.take(value),
            14 if is_name(name, length) => self.framing.content_length(value),
            17 if is_name(name, transfer) => self.framing.transfer_encoding(value),
            _ => {}
        }
        if let Some(wanted) = self.wanted.find(name) {
            push(&mut self.scratch.bytes, value.trim_ascii());
            self.scratch.ends.push((wanted.clone(), self.scratch.bytes.len()));
        }
    }
}

fn upgrade(value: &[u8]) -> Upgrade {
    let first = value.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
    match first {
        _ if first.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
        _ if first.eq_ignore_ascii_case(b"h2c") => Upgrade::Http2,
        _ => Upgrade::Other,
    }
}

/// Appends a value, each fold of it as one space (RFC 9112 5.2).
fn push_unfolded(into: &mut Vec<u8>, value: &[u8]) {
    if memchr::memchr(b'\n', value).is_none() {
        return into.extend_from_slice(value);
    }
    let mut lines = value.split(|&byte| byte == b'\n');
    into.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        while matches!(into.last(), Some(b'\r' | b' ' | b'\t')) {
            into.pop();
        }
        into.push(b' ');
        into.extend_from_slice(line.trim_ascii_start());
    }
}

#[cfg(test)]
mod tests {
    use super::{super::exchange::Headers, *};

    #[test]
    fn names_are_compared_in_any_case() {
        for name in ["User-Agent", "USER-AGENT", "user-agenT", "user-agent"] {
            assert!(is_name(name.as_bytes(), b"user-agent"), "{name}");
        }
        for name in ["", "user-agen", "user-agents", "user\ragent", "user_agent", "vser-agent", "user-agen4"]
        {
            assert!(!is_name(name.as_bytes(), b"user-agent"), "{name:?}");
        }
        for byte in 0..=255 {
            let others = [b'a', byte, b'z', byte, 0xff, byte, byte, b'A'];
            assert_eq!(lower_case(others), u64::from_le_bytes(others.map(|byte| byte.to_ascii_lowercase())));
        }
        for length in 1..40 {
            let lower = vec![b'x'; length];
            for place in 0..length {
                let mut name = lower.to_ascii_uppercase();
                assert!(is_name(&name, &lower));
                name[place] = b'y';
                assert!(!is_name(&name, &lower), "{place} of {length}");
            }
        }
        assert!(!is_name(b"A\x7fb", b"a_b") && is_name(b"A_B", b"a_b") && !is_name(b"@", b"`"));
    }

    #[test]
    fn kept_fields_are_in_wire_order_repeated_and_unfolded() {
        let wanted = Names::new(&[b"host"], &["X-A".to_owned()]);
        let mut scratch = Scratch::default();
        scratch.begin();
        let mut fields = Fields::new(&wanted, &mut scratch);
        for (name, value) in
            [("X-A", "1"), ("Other", "2"), ("HOST", " h "), ("x-a", "3\r\n\t 4"), ("x-a", "")]
        {
            fields.field(name.as_bytes(), value.as_bytes());
        }
        let (target, method, headers): (_, _, Headers) = scratch.finish(b"/target", b"METHOD");
        assert_eq!((&target[..], &method[..]), (&b"/target"[..], &b"METHOD"[..]));
        let headers: Vec<_> = headers
            .iter()
            .map(|header| (str::from_utf8(&header.name).unwrap(), str::from_utf8(&header.value).unwrap()))
            .collect();
        assert_eq!(headers, [("x-a", "1"), ("host", "h"), ("x-a", "3 4"), ("x-a", "")]);
    }
}
