//! Framing: how long a message's body is, by the steps of RFC 9112 6.3 in their order.
//!
//! Where the RFC says that a message cannot be framed, a reading is chosen that lets the observer go on, and the
//! message is marked. Reads no bytes of bodies.

use super::exchange::Anomalies;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
    /// With the connection.
    UntilClose,
    /// Not known: the next message has to be found.
    Unknown,
}

/// What kind of request a response answers, as far as framing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// No content in any response (RFC 9110 9.3.2).
    Head,
    /// A 2xx makes a tunnel (RFC 9110 9.3.6).
    Connect,
    /// Any other.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 9.1).
    pub(super) fn of(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Bytes(u64),
    Invalid,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// No transfer coding, or only `identity`.
    #[default]
    None,
    /// The last is `chunked`.
    Chunked,
    /// The last is another one.
    Other,
}

/// The framing fields of one head, collected field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FramingFields {
    length: Length,
    coding: Coding,
    chunked_seen: bool,
    anomalies: Anomalies,
}

impl FramingFields {
    /// Takes a `Content-Length` value: a number, or a list of them as a careless combination leaves it (RFC 9110 8.6).
    pub(super) fn content_length(&mut self, value: &[u8]) {
        for item in value.split(|&byte| byte == b',') {
            let item = item.trim_ascii();
            let digits = item.strip_prefix(b"+").unwrap_or(item);
            if digits.len() < item.len() {
                // No number by the grammar, but many recipients read it as one.
                self.anomalies.insert(Anomalies::INVALID_LENGTH);
            }
            let length = number(digits).map_or(Length::Invalid, Length::Bytes);
            match (self.length, length) {
                (_, Length::Invalid) => self.anomalies.insert(Anomalies::INVALID_LENGTH),
                (Length::Bytes(one), Length::Bytes(other)) if one == other => {
                    self.anomalies.insert(Anomalies::REPEATED_LENGTH);
                }
                (Length::Bytes(_), Length::Bytes(_)) => self.anomalies.insert(Anomalies::CONFLICTING_LENGTH),
                (Length::Absent | Length::Invalid | Length::Bytes(_), _) => {}
            }
            if length != Length::Invalid || self.length == Length::Absent {
                self.length = length;
            }
        }
    }

    /// Takes a `Transfer-Encoding` value; several fields are one list (RFC 9110 5.3).
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) {
        for item in value.split(|&byte| byte == b',') {
            let coding = item.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            if coding.is_empty() {
                continue;
            }
            if coding.eq_ignore_ascii_case(b"identity") {
                // A coding of RFC 2616 that changes nothing; alone it is as if there were none.
                self.anomalies.insert(Anomalies::ODD_TRANSFER_ENCODING);
                continue;
            }
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            if chunked && self.chunked_seen {
                self.anomalies.insert(Anomalies::REPEATED_CHUNKED);
            }
            self.chunked_seen |= chunked;
            self.coding = if chunked { Coding::Chunked } else { Coding::Other };
        }
    }

    /// Framing of a request (RFC 9112 6.3, steps 3 to 7).
    pub(super) fn of_request(mut self, minor_version: u8) -> (Framing, Anomalies) {
        self.mark_transfer_encoding(minor_version);
        let framing = match self.coding {
            Coding::Chunked => Framing::Chunked,
            // A server answers 400 and closes: its length is not known, Content-Length is what lenient ones take.
            Coding::Other | Coding::None => match self.length {
                Length::Bytes(length) => Framing::Length(length),
                Length::Absent if self.coding == Coding::None => Framing::Length(0),
                Length::Absent | Length::Invalid => Framing::Unknown,
            },
        };
        (framing, self.anomalies)
    }

    /// Framing of a final response to `method` (RFC 9112 6.3, steps 1, 3 to 6 and 8; step 2 is the caller's).
    pub(super) fn of_response(
        mut self,
        minor_version: u8,
        status: u16,
        method: Method,
    ) -> (Framing, Anomalies) {
        if method == Method::Head || status < 200 || status == 204 || status == 304 {
            return (Framing::Length(0), self.anomalies);
        }
        self.mark_transfer_encoding(minor_version);
        let framing = match self.coding {
            Coding::Chunked => Framing::Chunked,
            Coding::Other => Framing::UntilClose,
            Coding::None => self.length_or_none().map_or(Framing::UntilClose, Framing::Length),
        };
        (framing, self.anomalies)
    }

    fn length_or_none(self) -> Option<u64> {
        match self.length {
            Length::Bytes(length) => Some(length),
            Length::Absent | Length::Invalid => None,
        }
    }

    fn mark_transfer_encoding(&mut self, minor_version: u8) {
        match self.coding {
            Coding::None => return,
            Coding::Other => self.anomalies.insert(Anomalies::ODD_TRANSFER_ENCODING),
            Coding::Chunked => {}
        }
        if minor_version == 0 {
            self.anomalies.insert(Anomalies::TRANSFER_ENCODING_IN_HTTP_1_0);
        }
        if self.length != Length::Absent {
            self.anomalies.insert(Anomalies::LENGTH_AND_TRANSFER_ENCODING);
        }
    }
}

/// 1*DIGIT that fits 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Framing::{Chunked, Length, Unknown, UntilClose};

    fn fields(lengths: &[&str], encodings: &[&str]) -> FramingFields {
        let mut fields = FramingFields::default();
        lengths.iter().for_each(|value| fields.content_length(value.as_bytes()));
        encodings.iter().for_each(|value| fields.transfer_encoding(value.as_bytes()));
        fields
    }

    #[test]
    fn requests_and_responses() {
        fn check(
            lengths: &[&str],
            encodings: &[&str],
            request: Framing,
            response: Framing,
            anomalies: &[&str],
        ) {
            let fields = fields(lengths, encodings);
            assert_eq!(fields.of_request(1).0, request, "{lengths:?} {encodings:?}");
            let (framing, seen) = fields.of_response(1, 200, Method::Other);
            assert_eq!(framing, response, "{lengths:?} {encodings:?}");
            assert_eq!(seen.names().collect::<Vec<_>>(), anomalies, "{lengths:?} {encodings:?}");
        }
        let both = "length_and_transfer_encoding";
        let odd = "odd_transfer_encoding";
        check(&[], &[], Length(0), UntilClose, &[]);
        check(&["5"], &[], Length(5), Length(5), &[]);
        check(&["0005"], &[], Length(5), Length(5), &[]);
        check(&["5, 5"], &[], Length(5), Length(5), &["repeated_length"]);
        check(&["5", "5"], &[], Length(5), Length(5), &["repeated_length"]);
        check(&["5, 6"], &[], Length(6), Length(6), &["conflicting_length"]);
        check(&["x"], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["-5"], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["+5"], &[], Length(5), Length(5), &["invalid_length"]);
        check(&[""], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["0x5"], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["5 5"], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["18446744073709551615"], &[], Length(u64::MAX), Length(u64::MAX), &[]);
        check(&["18446744073709551616"], &[], Unknown, UntilClose, &["invalid_length"]);
        check(&["x", "5"], &[], Length(5), Length(5), &["invalid_length"]);
        check(&[], &["chunked"], Chunked, Chunked, &[]);
        check(&[], &["CHUNKED"], Chunked, Chunked, &[]);
        check(&[], &["gzip, chunked"], Chunked, Chunked, &[]);
        check(&[], &["gzip", "chunked"], Chunked, Chunked, &[]);
        check(&[], &[" , chunked ,"], Chunked, Chunked, &[]);
        check(&["5"], &["chunked"], Chunked, Chunked, &[both]);
        check(&["5"], &["identity"], Length(5), Length(5), &[odd]);
        check(&["5"], &["gzip"], Length(5), UntilClose, &[both, odd]);
        check(&[], &["chunked, gzip"], Unknown, UntilClose, &[odd]);
        check(&[], &["xchunked"], Unknown, UntilClose, &[odd]);
        check(&[], &["chunked, chunked"], Chunked, Chunked, &["repeated_chunked"]);
    }

    #[test]
    fn responses_without_content() {
        fn check(status: u16, method: Method, expected: Framing) {
            let fields = fields(&["5"], &[]);
            assert_eq!(fields.of_response(1, status, method).0, expected, "{status} {method:?}");
        }
        check(200, Method::Other, Length(5));
        check(200, Method::Head, Length(0));
        check(404, Method::Head, Length(0));
        check(204, Method::Other, Length(0));
        check(304, Method::Other, Length(0));
        check(100, Method::Other, Length(0));
        check(205, Method::Other, Length(5));
        check(404, Method::Connect, Length(5));
        assert_eq!(Method::of(b"head"), Method::Other);
    }

    #[test]
    fn transfer_encoding_in_http_1_0_is_marked() {
        let (framing, anomalies) = fields(&[], &["chunked"]).of_request(0);
        assert_eq!((framing, anomalies), (Chunked, Anomalies::TRANSFER_ENCODING_IN_HTTP_1_0));
    }
}
