//! The list that two decoders must agree on: what was asked and answered on each connection, in order. Knows neither
//! decoder.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

/// One exchange as a decoder tells it. Absent means that the decoder saw none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Request method.
    pub(crate) method: Option<String>,
    /// Request target as sent.
    pub(crate) target: Option<String>,
    /// Bytes of the request's content.
    pub(crate) request_body: Option<u64>,
    /// Status of the final response.
    pub(crate) status: Option<u16>,
    /// Bytes of the response's content, before content decoding.
    pub(crate) response_body: Option<u64>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        write!(
            f,
            "{} {} {} {} {}",
            self.method.as_deref().unwrap_or("-"),
            self.target.as_deref().unwrap_or("-"),
            number(self.request_body),
            number(self.status.map(u64::from)),
            number(self.response_body),
        )
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    /// HTTP client.
    pub(crate) client: SocketAddr,
    /// HTTP server.
    pub(crate) server: SocketAddr,
}

/// Exchanges per connection in the order of the requests; of a reused tuple, one connection after the other.
pub(crate) type Listing = BTreeMap<Ends, Vec<Line>>;

/// A place where two lists differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Connection.
    pub(crate) ends: Ends,
    /// Ordinal of the exchange on the connection.
    pub(crate) position: usize,
    /// What tshark says; absent if it has no such exchange.
    pub(crate) tshark: Option<Line>,
    /// What pod2pod says; absent if it has no such exchange.
    pub(crate) pod2pod: Option<Line>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |line: &Option<Line>| line.as_ref().map_or_else(|| "nothing".to_owned(), Line::to_string);
        write!(
            f,
            "{} -> {} exchange {}\n  tshark:  {}\n  pod2pod: {}",
            self.ends.client,
            self.ends.server,
            self.position,
            show(&self.tshark),
            show(&self.pod2pod)
        )
    }
}

/// Every difference between what the two decoders say of one capture.
pub(crate) fn differences(tshark: &Listing, pod2pod: &Listing) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut ends: Vec<&Ends> = tshark.keys().chain(pod2pod.keys()).collect();
    ends.sort();
    ends.dedup();
    for ends in ends {
        let theirs = tshark.get(ends).map_or(&[][..], Vec::as_slice);
        let ours = pod2pod.get(ends).map_or(&[][..], Vec::as_slice);
        for position in 0..theirs.len().max(ours.len()) {
            let (tshark, pod2pod) = (theirs.get(position), ours.get(position));
            if tshark != pod2pod {
                let (tshark, pod2pod) = (tshark.cloned(), pod2pod.cloned());
                found.push(Difference { ends: *ends, position, tshark, pod2pod });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, status: u16, body: u64) -> Line {
        Line {
            method: Some("GET".to_owned()),
            target: Some(target.to_owned()),
            request_body: Some(0),
            status: Some(status),
            response_body: Some(body),
        }
    }

    fn ends(port: u16) -> Ends {
        Ends { client: ([127, 0, 0, 1], port).into(), server: ([127, 0, 0, 1], 80).into() }
    }

    fn listing() -> Listing {
        let mut listing = Listing::new();
        listing.insert(ends(1), vec![line("/a", 200, 10), line("/b", 404, 0), line("/c", 200, 7)]);
        listing.insert(ends(2), vec![line("/d", 200, 1)]);
        listing
    }

    /// How many differences a change of one side makes.
    fn check(change: impl Fn(&mut Listing), expected: usize) {
        let mut changed = listing();
        change(&mut changed);
        assert_eq!(differences(&listing(), &changed).len(), expected);
        assert_eq!(differences(&changed, &listing()).len(), expected, "the other way round");
    }

    #[test]
    fn equal_lists_agree() {
        check(|_| {}, 0);
    }

    #[test]
    fn a_removed_last_line_is_found() {
        check(|listing| drop(listing.get_mut(&ends(1)).unwrap().pop()), 1);
    }

    #[test]
    fn a_removed_first_line_shifts_all_after_it() {
        check(|listing| drop(listing.get_mut(&ends(1)).unwrap().remove(0)), 3);
    }

    #[test]
    fn a_removed_connection_is_found() {
        check(|listing| drop(listing.remove(&ends(2))), 1);
    }

    #[test]
    fn an_added_line_is_found() {
        check(|listing| listing.get_mut(&ends(2)).unwrap().push(line("/d", 200, 1)), 1);
    }

    #[test]
    fn each_changed_field_is_found() {
        type Change = fn(&mut Line);
        let changes: [Change; 5] = [
            |line| line.method = Some("HEAD".to_owned()),
            |line| line.target = Some("/a?".to_owned()),
            |line| line.request_body = Some(1),
            |line| line.status = Some(201),
            |line| line.response_body = Some(11),
        ];
        for change in changes {
            check(|listing| change(&mut listing.get_mut(&ends(1)).unwrap()[0]), 1);
        }
    }

    #[test]
    fn swapped_lines_are_found() {
        check(|listing| listing.get_mut(&ends(1)).unwrap().swap(0, 2), 2);
    }
}
