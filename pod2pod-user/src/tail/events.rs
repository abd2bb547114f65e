//! Server-sent events out of bytes (HTML Living Standard, section 9.2.6), as far as agents send them. Pure.

/// More bytes in one event are none of an agent's: its records are some thousand.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Lines of a record.
    Record(Vec<Vec<u8>>),
    /// So many records were not sent.
    Lost(u64),
}

/// What is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Parser {
    rest: Vec<u8>,
    name: Vec<u8>,
    data: Vec<Vec<u8>>,
    /// Of `data`.
    bytes: usize,
}

/// It is no stream of events.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MAX_EVENT_BYTES} bytes")]
pub(super) struct TooLong;

impl Parser {
    /// Takes more bytes, and hands over what is whole.
    pub(super) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Event)) -> Result<(), TooLong> {
        self.rest.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.rest);
        let mut begin = 0;
        while let Some(length) =
            rest.get(begin..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = rest.get(begin..begin + length).unwrap_or_default();
            self.line(line.strip_suffix(b"\r").unwrap_or(line), &mut take);
            begin += length + 1;
        }
        rest.drain(..begin);
        self.rest = rest;
        if self.rest.len() + self.bytes > MAX_EVENT_BYTES { Err(TooLong) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8], take: &mut impl FnMut(Event)) {
        if line.is_empty() {
            self.bytes = 0;
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            match (name.as_slice(), data.as_slice()) {
                (_, []) => {}
                (b"lost", [count, ..]) => {
                    let count = str::from_utf8(count).ok().and_then(|count| count.parse().ok());
                    take(Event::Lost(count.unwrap_or_default()));
                }
                _ => take(Event::Record(data)),
            }
        } else if let Some(data) = field(line, b"data") {
            self.bytes += data.len();
            self.data.push(data.to_vec());
        } else if let Some(name) = field(line, b"event") {
            self.name = name.to_vec();
        }
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = b": here\n\ndata: {\"a\":1}\n\nevent: lost\ndata: 7\n\n:\n\ndata: a\r\ndata:b\r\n\r\nid: 1\n\ndata: half";
        let expected = [
            Event::Record(vec![b"{\"a\":1}".to_vec()]),
            Event::Lost(7),
            Event::Record(vec![b"a".to_vec(), b"b".to_vec()]),
        ];
        for step in 1..text.len() {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            for part in text.chunks(step) {
                parser.push(part, |event| events.push(event)).unwrap();
            }
            assert_eq!(events, expected, "{step}");
        }
    }

    #[test]
    fn an_event_is_as_long_as_allowed() {
        let of = |length| Parser::default().push(&vec![b'x'; length], |_| {});
        assert_eq!((of(MAX_EVENT_BYTES), of(MAX_EVENT_BYTES + 1)), (Ok(()), Err(TooLong)));
    }
}
