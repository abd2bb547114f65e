//! Whether what the agent told is what was spoken, round by round. A round that is wrong does not stop the others: the row
//! says so, and the run fails at its end.

use anyhow::{Result, bail};

use crate::observers::Seen;

/// What was found in some rounds.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    rounds: usize,
    wrong: Vec<String>,
}

impl Checks {
    /// Notes what a round's check found.
    pub(crate) fn add(&mut self, found: Result<()>) {
        self.rounds += 1;
        self.wrong.extend(found.err().map(|error| format!("{error:#}")));
    }

    /// What is wrong; nothing if nothing is.
    pub(crate) fn verdict(&self) -> String {
        match self.wrong.first() {
            Some(first) => format!("WRONG in {} of {} rounds: {first}", self.wrong.len(), self.rounds),
            None => String::new(),
        }
    }
}

/// Records of both ends for every request, up to `more` of requests that the load left unanswered, none lost.
pub(crate) fn both_ends(requests: u64, more: u64, seen: &Seen) -> Result<()> {
    let (client, server) = (seen.records.at("client"), seen.records.at("server"));
    let fits = |records: u64| records >= requests && records <= requests + more;
    if seen.lost > 0 || !fits(client) || !fits(server) {
        bail!("{requests} requests; lost {}, records {:?}", seen.lost, seen.records.by_kind);
    }
    Ok(())
}

/// One record for every request, by the same rule.
pub(crate) fn one_end(requests: u64, more: u64, seen: &Seen) -> Result<()> {
    if seen.lost > 0 || !(requests..=requests + more).contains(&seen.records.total()) {
        bail!("{requests} requests; lost {}, records {:?}", seen.lost, seen.records.by_kind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(client: u64, server: u64, lost: u64) -> Seen {
        let mut seen = Seen { lost, ..Seen::default() };
        seen.records.by_kind.insert("client complete".to_owned(), client);
        seen.records.by_kind.insert("server complete".to_owned(), server);
        seen
    }

    #[test]
    fn records_are_the_requests_and_those_left_unanswered() {
        for (client, server, lost, expected) in [
            (100, 100, 0, true),
            (132, 131, 0, true),
            (99, 100, 0, false),
            (100, 133, 0, false),
            (100, 100, 1, false),
        ] {
            let found = both_ends(100, 32, &seen(client, server, lost));
            assert_eq!(found.is_ok(), expected, "{client} {server} {lost}");
        }
        assert!(one_end(100, 0, &seen(0, 100, 0)).is_ok());
        assert!(one_end(100, 0, &seen(1, 100, 0)).is_err());
    }

    #[test]
    fn a_wrong_round_is_told_and_stops_nothing() {
        let mut checks = Checks::default();
        checks.add(Ok(()));
        assert_eq!(checks.verdict(), "");
        checks.add(both_ends(1, 0, &seen(1, 0, 0)));
        checks.add(Ok(()));
        assert!(checks.verdict().starts_with("WRONG in 1 of 3 rounds: 1 requests"), "{}", checks.verdict());
    }
}
