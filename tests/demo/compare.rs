//! Sent beside observed: which lines agree, which differ, which have no partner; and whether the two ends of an
//! exchange can be joined. Pure; it reads and prints nothing.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::list::{End, Entry};

/// Content up to this size is observed whole, in bytes: as much of one direction is read ahead of the agent. Of a larger
/// body that has no length in its head the agent may know a lower bound only, and must say so.
pub(crate) const MAX_READ_AHEAD: u64 = 256 * 1024;

/// An entry as the agent told it, with what joins the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) entry: Entry,
    /// The record says that its size of the request's content is a lower bound.
    pub(crate) request_cut: bool,
    /// As `request_cut`, for the response.
    pub(crate) response_cut: bool,
    pub(crate) connection_id: String,
    pub(crate) offset: u64,
}

impl Observed {
    /// Whether this is what was sent: the same in all words, or a lower bound where it says so and may.
    fn tells(&self, sent: &Entry) -> bool {
        let size = |told: u64, cut: bool, sent: u64| {
            if cut && sent > MAX_READ_AHEAD && told <= sent { sent } else { told }
        };
        let entry = &self.entry;
        let whole = Entry {
            request_bytes: size(entry.request_bytes, self.request_cut, sent.request_bytes),
            response_bytes: size(entry.response_bytes, self.response_cut, sent.response_bytes),
            ..entry.clone()
        };
        whole == *sent
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sent: Option<Entry>,
    pub(crate) observed: Option<Observed>,
}

impl Row {
    /// Both are there and say the same.
    pub(crate) fn agrees(&self) -> bool {
        matches!(self, Self { sent: Some(sent), observed: Some(observed) } if observed.tells(sent))
    }

    /// They agree, but for a size that the record calls a lower bound.
    pub(crate) fn is_lower_bound(&self) -> bool {
        self.agrees() && self.observed.as_ref().map(|observed| &observed.entry) != self.sent.as_ref()
    }
}

/// Lines with the same place can only be each other's partner.
type Place = (End, SocketAddr, usize);

fn place(entry: &Entry) -> Place {
    (entry.end, entry.client, entry.index)
}

/// Pairs every sent line with the observed line of the same end, connection and ordinal. Nothing is left out: a line
/// without a partner is a row of its own.
pub(crate) fn compare(sent: &[Entry], observed: &[Observed]) -> Vec<Row> {
    let mut places: BTreeMap<Place, (Vec<&Entry>, Vec<&Observed>)> = BTreeMap::new();
    for entry in sent {
        places.entry(place(entry)).or_default().0.push(entry);
    }
    for one in observed {
        places.entry(place(&one.entry)).or_default().1.push(one);
    }
    let mut rows = Vec::new();
    for (sent, observed) in places.into_values() {
        for number in 0..sent.len().max(observed.len()) {
            rows.push(Row {
                sent: sent.get(number).map(|entry| (*entry).clone()),
                observed: observed.get(number).map(|one| (*one).clone()),
            });
        }
    }
    rows
}

/// Gives each observed entry its ordinal: its rank by offset among those of its connection and end.
pub(crate) fn number(observed: &mut [Observed]) {
    observed.sort_by(|a, b| {
        (a.entry.end, &a.connection_id, a.offset).cmp(&(b.entry.end, &b.connection_id, b.offset))
    });
    let mut previous: Option<(End, String)> = None;
    let mut next = 0;
    for one in observed {
        let connection = (one.entry.end, one.connection_id.clone());
        if previous.as_ref() != Some(&connection) {
            next = 0;
            previous = Some(connection);
        }
        one.entry.index = next;
        next += 1;
    }
}

/// What keeps the records of the two ends from being joined one to one by connection and offset; empty if nothing.
pub(crate) fn unjoined(observed: &[Observed]) -> Vec<String> {
    let mut exchanges: BTreeMap<(&str, u64), Vec<&Entry>> = BTreeMap::new();
    for one in observed {
        exchanges.entry((&one.connection_id, one.offset)).or_default().push(&one.entry);
    }
    let mut problems = Vec::new();
    for ((connection, offset), mut ends) in exchanges {
        ends.sort_by_key(|entry| entry.end);
        let joined = match ends[..] {
            [client, server] => {
                client.end == End::Client
                    && server.end == End::Server
                    && (client.client, &client.method, &client.target)
                        == (server.client, &server.method, &server.target)
            }
            _ => false,
        };
        if !joined {
            let told: Vec<String> =
                ends.iter().map(|e| format!("{} {} {}", e.end.name(), e.method, e.target)).collect();
            problems.push(format!("connection {connection} offset {offset}: {}", told.join(", ")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[&str]) -> Vec<Entry> {
        lines.iter().map(|line| line.parse().expect("a line")).collect()
    }

    const SENT: [&str; 3] = [
        "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 9 complete",
        "client 10.244.1.2:40000 10.96.0.10:80 1 GET /b - 0 0 reset",
        "server 10.244.1.2:40000 10.244.2.2:8080 0 GET /a 200 0 9 complete",
    ];

    fn told(entry: &Entry) -> Observed {
        let entry = entry.clone();
        Observed { entry, request_cut: false, response_cut: false, connection_id: "7".to_owned(), offset: 1 }
    }

    fn equal(sent: &[Entry], observed: &[Entry]) -> bool {
        let observed: Vec<Observed> = observed.iter().map(told).collect();
        compare(sent, &observed).iter().all(Row::agrees)
    }

    #[test]
    fn a_size_may_be_a_lower_bound_where_the_record_says_so_and_the_body_was_large() {
        let sent = |size: u64| {
            entries(&[&format!("client 10.244.1.2:40000 10.96.0.10:80 0 POST /a 200 {size} {size} complete")])
        };
        let row = |size: u64, request: (u64, bool), response: (u64, bool)| {
            let mut observed = told(&sent(size)[0]);
            (observed.entry.request_bytes, observed.request_cut) = request;
            (observed.entry.response_bytes, observed.response_cut) = response;
            compare(&sent(size), &[observed]).remove(0)
        };
        let large = MAX_READ_AHEAD + 1;
        for (size, request, response, agrees) in [
            (large, (large - 9, true), (large, false), true),
            (large, (large, false), (large - 9, true), true),
            (large, (large - 9, false), (large, false), false),
            (large, (large, false), (large - 9, false), false),
            (large, (large + 1, true), (large, false), false),
            (large - 1, (large - 9, true), (large - 1, false), false),
            (large - 1, (large - 1, false), (large - 9, true), false),
        ] {
            let row = row(size, request, response);
            assert_eq!(row.agrees(), agrees, "{size} {request:?} {response:?}");
            assert_eq!(row.is_lower_bound(), agrees, "{size} {request:?} {response:?}");
        }
        assert!(!row(large, (large, true), (large, true)).is_lower_bound(), "it is the size");
    }

    #[test]
    fn equal_lists_agree_in_any_order() {
        let sent = entries(&SENT);
        let reversed: Vec<Entry> = sent.iter().rev().cloned().collect();
        assert!(equal(&sent, &reversed));
    }

    #[test]
    fn one_line_less_on_either_side_differs() {
        let all = entries(&SENT);
        for missing in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(missing);
            assert!(!equal(&fewer, &all), "sent lacks line {missing}");
            assert!(!equal(&all, &fewer), "observed lacks line {missing}");
        }
    }

    #[test]
    fn a_line_twice_differs() {
        let all = entries(&SENT);
        let mut more = all.clone();
        more.push(all[0].clone());
        assert!(!equal(&all, &more));
    }

    #[test]
    fn any_other_word_differs() {
        let all = entries(&SENT[..1]);
        for other in [
            "server 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 9 complete",
            "client 10.244.1.2:40001 10.96.0.10:80 0 GET /a 200 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.11:80 0 GET /a 200 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 1 GET /a 200 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 PUT /a 200 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 GET /b 200 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 201 0 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 1 9 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 8 complete",
            "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 9 closed",
        ] {
            assert!(!equal(&all, &entries(&[other])), "{other}");
        }
    }

    fn observed(line: &str, connection_id: &str, offset: u64) -> Observed {
        let entry: Entry = line.parse().expect("a line");
        Observed { connection_id: connection_id.to_owned(), offset, ..told(&entry) }
    }

    #[test]
    fn ends_join_by_connection_and_offset() {
        let (client, server) = (SENT[0], SENT[2]);
        assert!(unjoined(&[observed(client, "7", 1), observed(server, "7", 1)]).is_empty());
        for pair in [
            [observed(client, "7", 1), observed(server, "8", 1)],
            [observed(client, "7", 1), observed(server, "7", 2)],
            [observed(client, "7", 1), observed(client, "7", 1)],
            [observed(SENT[1], "7", 1), observed(server, "7", 1)],
        ] {
            assert!(!unjoined(&pair).is_empty(), "{pair:?}");
        }
        assert_eq!(unjoined(&[observed(client, "7", 1)]).len(), 1, "an end alone");
    }

    #[test]
    fn ordinals_follow_offsets_of_each_end_and_connection() {
        let mut all = [
            observed(SENT[0], "7", 90),
            observed(SENT[1], "7", 1),
            observed(SENT[2], "7", 5),
            observed(SENT[0], "8", 50),
        ];
        number(&mut all);
        let order: Vec<(&str, u64, usize)> =
            all.iter().map(|one| (one.connection_id.as_str(), one.offset, one.entry.index)).collect();
        assert_eq!(order, [("7", 1, 0), ("7", 90, 1), ("8", 50, 0), ("7", 5, 0)]);
    }
}
