//! The demo's verdict on two lists, and what tampering with either does to it. Pure.

use crate::{
    compare::{self, Observed, Row},
    list::Entry,
    table,
};

/// Which list loses a line before the comparison, to show that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    Sent,
    Observed,
}

/// Differences told again below the table; a person who has seen these looks at the table.
const MAX_TOLD: usize = 20;

/// What there is to say.
pub(crate) struct Verdict {
    /// Sent and observed are equal, and the two ends join.
    pub(crate) equal: bool,
    pub(crate) table: String,
    pub(crate) sentence: String,
}

/// Compares what was sent and served with what was observed, less one line if somebody tampers.
pub(crate) fn judge(mut sent: Vec<Entry>, mut observed: Vec<Observed>, tamper: Option<Tamper>) -> Verdict {
    compare::number(&mut observed);
    match tamper {
        Some(Tamper::Sent) => drop(sent.pop()),
        Some(Tamper::Observed) => drop(observed.pop()),
        None => {}
    }
    let rows = compare::compare(&sent, &observed);
    let agreeing = rows.iter().filter(|row| row.agrees()).count();
    let bounds = rows.iter().filter(|row| row.is_lower_bound()).count();
    let unjoined = compare::unjoined(&observed);
    let equal = !rows.is_empty() && agreeing == rows.len() && unjoined.is_empty();
    let mut sentence = format!(
        "sent and served: {}, observed: {}, equal: {agreeing}, different: {}, not joined: {}",
        sent.len(),
        observed.len(),
        rows.len() - agreeing,
        unjoined.len()
    );
    if bounds > 0 {
        sentence.push_str(&format!(
            "\n{bounds} of the equal have a lower bound for a size, and say so: a chunked body came faster than it was read"
        ));
    }
    for problem in unjoined.iter().take(MAX_TOLD) {
        sentence.push_str(&format!("\nnot joined: {problem}"));
    }
    for row in rows.iter().filter(|row| !row.agrees()).take(MAX_TOLD) {
        sentence.push_str(&format!("\ndifferent: {}", difference(row)));
    }
    sentence.push_str(if equal { "\nEQUAL" } else { "\nNOT EQUAL" });
    Verdict { equal, table: table::render(&rows), sentence }
}

fn difference(row: &Row) -> String {
    let told = |entry: Option<&Entry>| entry.map_or_else(|| "nothing".to_owned(), Entry::to_string);
    let observed = row.observed.as_ref().map(|observed| &observed.entry);
    format!("sent {}, observed {}", told(row.sent.as_ref()), told(observed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [&str; 4] = [
        "client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 9 complete",
        "client 10.244.1.2:40000 10.96.0.10:80 1 GET /b - 0 0 reset",
        "server 10.244.1.2:40000 10.244.2.2:8080 0 GET /a 200 0 9 complete",
        "server 10.244.1.2:40000 10.244.2.2:8080 1 GET /b - 0 0 reset",
    ];

    fn lists() -> (Vec<Entry>, Vec<Observed>) {
        let sent: Vec<Entry> = SENT.iter().map(|line| line.parse().expect("a line")).collect();
        let observe = |entry: &Entry| {
            let offset = 1 + 100 * entry.index as u64;
            let connection_id = "7".to_owned();
            Observed { entry: entry.clone(), request_cut: false, response_cut: false, connection_id, offset }
        };
        let observed = sent.iter().rev().map(observe).collect();
        (sent, observed)
    }

    #[test]
    fn equal_lists_are_equal() {
        let (sent, observed) = lists();
        let verdict = judge(sent, observed, None);
        assert!(verdict.equal, "{}", verdict.sentence);
    }

    #[test]
    fn tampering_with_either_list_is_seen() {
        for tamper in [Tamper::Sent, Tamper::Observed] {
            let (sent, observed) = lists();
            assert!(!judge(sent, observed, Some(tamper)).equal, "{tamper:?}");
        }
    }

    #[test]
    fn an_exchange_that_neither_list_has_at_one_end_is_seen() {
        let (mut sent, mut observed) = lists();
        sent.remove(3);
        observed.retain(|one| one.entry.to_string() != SENT[3]);
        assert!(!judge(sent, observed, None).equal);
    }

    #[test]
    fn nothing_is_not_equal_to_nothing() {
        assert!(!judge(Vec::new(), Vec::new(), None).equal);
    }
}
