//! Two pages of each agent → a row for each pair: rates, shares and quantiles of what came between them. Each exchange is in one row
//! once, whoever saw it.
//!
//! Of a pair's views one is taken: the server's, unless it misses much of what the client's saw, as where servers are on nodes that
//! are not asked. Views of several agents are added up before: each saw other exchanges.

use std::collections::BTreeMap;

use super::page::{Joined, Page, Pair, Reporter, View};

/// A view that is preferred is taken if it has at least this share of what the fullest saw.
const LEAST_SHARE: f64 = 0.9;
/// Exchanges that one view may have more than another because they were under way when it was counted.
const UNDER_WAY: f64 = 5.0;
/// Two times of one start differ by less, s: it is told in ticks of a clock that may be set.
const SAME_START: f64 = 2.0;

/// What a duration is at most for a share of exchanges.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Quantile {
    /// s.
    pub(super) seconds: f64,
    /// It is more than that: longer than the buckets tell apart.
    pub(super) is_over: bool,
}

/// What is to be said of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) pair: Pair,
    /// Whose view was taken.
    pub(super) reporter: Reporter,
    pub(super) requests: f64,
    /// A second.
    pub(super) rate: f64,
    pub(super) errors: f64,
    /// Of its requests.
    pub(super) error_share: f64,
    /// p50, p95, p99.
    pub(super) quantiles: [Option<Quantile>; 3],
    /// Exchanges of which both views met.
    pub(super) joined: f64,
    /// Of their time at the client, that in the network and the stacks.
    pub(super) network: Option<f64>,
}

/// What became of an agent's second page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was added.
    Yes,
    /// Nothing was counted since the first.
    Same,
    /// The agent began anew in between.
    Restarted,
}

/// What came in between, of all agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Views, with their requests a second.
    views: BTreeMap<Pair, BTreeMap<Reporter, (View, f64)>>,
    joined: BTreeMap<Pair, Joined>,
}

impl Figures {
    /// Adds what an agent counted from one page to the other; they were read so many seconds apart.
    pub(super) fn add(&mut self, before: &Page, after: &Page, apart: f64) -> Added {
        if is_restarted(before, after) {
            return Added::Restarted;
        }
        let seconds = match (before.counted_at, after.counted_at) {
            (Some(before), Some(after)) if before == after => return Added::Same,
            // A clock that was set is no measure.
            (Some(before), Some(after)) if after > before => after - before,
            _ => apart,
        };
        for ((pair, reporter), view) in &after.views {
            let from = before.views.get(&(pair.clone(), *reporter));
            let came = view.since(from);
            if came.requests > 0.0 {
                let (sum, rate) = self.views.entry(pair.clone()).or_default().entry(*reporter).or_default();
                *rate += came.requests / seconds.max(f64::EPSILON);
                sum.add(&came);
            }
        }
        for (pair, joined) in &after.joined {
            let from = before.joined.get(pair).copied().unwrap_or_default();
            let sum = self.joined.entry(pair.clone()).or_default();
            sum.requests += joined.requests - from.requests;
            sum.client_time += joined.client_time - from.client_time;
            sum.network_time += joined.network_time - from.network_time;
        }
        Added::Yes
    }

    /// A row for each pair, in the order of their names.
    pub(super) fn rows(&self) -> Vec<Row> {
        let rows = self.views.iter().filter_map(|(pair, views)| {
            let fullest = views.values().map(|(view, _)| view.requests).fold(0.0, f64::max);
            let is_full =
                |view: &View| view.requests >= LEAST_SHARE * fullest || view.requests + UNDER_WAY >= fullest;
            let (reporter, (view, rate)) = views.iter().find(|(_, (view, _))| is_full(view))?;
            let joined = self.joined.get(pair).copied().unwrap_or_default();
            Some(Row {
                pair: pair.clone(),
                reporter: *reporter,
                requests: view.requests,
                rate: *rate,
                errors: view.errors,
                error_share: view.errors / view.requests,
                quantiles: [0.5, 0.95, 0.99].map(|share| quantile(&view.buckets, share)),
                joined: joined.requests,
                network: (joined.requests > 0.0 && joined.client_time > 0.0)
                    .then(|| (joined.network_time / joined.client_time).clamp(0.0, 1.0)),
            })
        });
        rows.collect()
    }
}

impl View {
    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let at = |bound: f64| {
            before.buckets.iter().find(|(own, _)| *own == bound).map_or(0.0, |(_, count)| *count)
        };
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            buckets: self.buckets.iter().map(|(bound, count)| (*bound, count - at(*bound))).collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (bound, count) in &other.buckets {
            match self.buckets.iter_mut().find(|(own, _)| own == bound) {
                Some((_, own)) => *own += count,
                None => self.buckets.push((*bound, *count)),
            }
        }
    }
}

/// Whether what was counted before is forgotten: it began later, or a counter fell.
fn is_restarted(before: &Page, after: &Page) -> bool {
    let began = before.started_at.zip(after.started_at);
    let falls = |from: &View, to: Option<&View>| {
        to.is_none_or(|to| to.requests < from.requests || to.errors < from.errors)
    };
    began.is_some_and(|(before, after)| (after - before).abs() > SAME_START)
        || before.views.iter().any(|(key, view)| falls(view, after.views.get(key)))
        || before
            .joined
            .iter()
            .any(|(pair, from)| after.joined.get(pair).is_none_or(|to| to.requests < from.requests))
}

/// The duration that this share of exchanges did not exceed, as Prometheus's `histogram_quantile` has it: the bucket is exact, and in
/// it they are taken to lie evenly.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<Quantile> {
    let (_, all) = buckets.last().filter(|(bound, all)| bound.is_infinite() && *all > 0.0)?;
    let rank = share * all;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if bound.is_infinite() {
            return Some(Quantile { seconds: lower, is_over: true });
        }
        if *count >= rank {
            let part = if *count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some(Quantile { seconds: lower + (bound - lower) * part, is_over: false });
        }
        (lower, below) = (*bound, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::page::End;

    const OVER: f64 = f64::INFINITY;

    fn pair(server: &str) -> Pair {
        let end = |workload: &str| End { namespace: "shop".to_owned(), workload: workload.to_owned() };
        Pair { client: end("web"), server: end(server) }
    }

    /// A page counted at this second, with views of the pair of `web` and these servers.
    fn page(at: f64, views: &[(&str, Reporter, f64)]) -> Page {
        let view = |requests: f64| View {
            requests,
            errors: (requests / 10.0).floor(),
            buckets: vec![(0.01, requests), (OVER, requests)],
        };
        let views =
            views.iter().map(|(server, reporter, requests)| ((pair(server), *reporter), view(*requests)));
        Page {
            views: views.collect(),
            counted_at: Some(at),
            started_at: Some(1.0),
            is_ours: true,
            ..Page::default()
        }
    }

    /// Server, whose view, requests, rate.
    fn told(figures: &Figures) -> Vec<(String, Reporter, f64, f64)> {
        let rows = figures.rows().into_iter();
        rows.map(|row| (row.pair.server.workload, row.reporter, row.requests, row.rate)).collect()
    }

    #[test]
    fn quantiles_are_those_of_their_bucket() {
        let buckets = [(0.005, 0.0), (0.01, 50.0), (0.025, 50.0), (0.05, 95.0), (10.0, 98.0), (OVER, 100.0)];
        for (share, seconds, is_over) in [
            (0.5, 0.01, false),
            (0.25, 0.0075, false),
            (0.0, 0.005, false),
            (0.501, 0.025 + 0.025 * 0.1 / 45.0, false),
            (0.95, 0.05, false),
            (0.98, 10.0, false),
            (0.981, 10.0, true),
            (1.0, 10.0, true),
        ] {
            let is = quantile(&buckets, share).unwrap();
            assert!((is.seconds - seconds).abs() < 1e-9 && is.is_over == is_over, "{share}: {is:?}");
        }
        assert_eq!(quantile(&[(0.005, 3.0), (OVER, 3.0)], 1.0).unwrap().seconds, 0.005);
        for none in [&[][..], &[(0.01, 0.0), (OVER, 0.0)], &[(0.01, 4.0)]] {
            assert_eq!(quantile(none, 0.5), None, "{none:?}");
        }
    }

    #[test]
    fn an_exchange_is_in_one_row_once() {
        use Reporter::{Client, Path, Server};
        for (client, server, path, expected) in [
            (0.0, 100.0, 0.0, (Server, 100.0)),
            (100.0, 0.0, 0.0, (Client, 100.0)),
            (100.0, 100.0, 0.0, (Server, 100.0)),
            (100.0, 90.0, 0.0, (Server, 90.0)),
            (100.0, 89.0, 0.0, (Client, 100.0)),
            (5.0, 1.0, 0.0, (Server, 1.0)),
            (6.0, 1.0, 0.0, (Server, 1.0)),
            (7.0, 1.0, 0.0, (Client, 7.0)),
            (100.0, 110.0, 0.0, (Server, 110.0)),
            (100.0, 40.0, 100.0, (Client, 100.0)),
            (0.0, 0.0, 3.0, (Path, 3.0)),
        ] {
            let mut figures = Figures::default();
            let views = [("cart", Client, client), ("cart", Server, server), ("cart", Path, path)];
            figures.add(&page(100.0, &[]), &page(102.0, &views), 9.0);
            let (reporter, requests) = expected;
            let expected = vec![("cart".to_owned(), reporter, requests, requests / 2.0)];
            assert_eq!(told(&figures), expected, "{client} {server} {path}");
        }
    }

    #[test]
    fn what_came_between_two_pages_counts() {
        let mut figures = Figures::default();
        let joined = |requests, client_time, network_time| Joined { requests, client_time, network_time };
        let mut before = page(100.0, &[("cart", Reporter::Server, 1000.0), ("quiet", Reporter::Server, 7.0)]);
        let mut after = page(
            104.0,
            &[
                ("cart", Reporter::Server, 1040.0),
                ("quiet", Reporter::Server, 7.0),
                ("new", Reporter::Client, 4.0),
            ],
        );
        before.joined.insert(pair("cart"), joined(900.0, 90.0, 9.0));
        after.joined.insert(pair("cart"), joined(910.0, 92.0, 9.5));
        assert_eq!(figures.add(&before, &after, 1.0), Added::Yes);
        let rows = figures.rows();
        let [cart, new] = &rows[..] else { panic!("{rows:?}") };
        let Row { requests, rate, errors, error_share, joined, network, .. } = cart;
        assert_eq!((*requests, *rate, *errors, *error_share), (40.0, 10.0, 4.0, 0.1));
        assert_eq!((*joined, *network), (10.0, Some(0.25)));
        let fast = Quantile { seconds: 0.0095, is_over: false };
        assert_eq!(cart.quantiles[1], Some(fast));
        assert_eq!((new.rate, new.joined, new.network), (1.0, 0.0, None));
    }

    #[test]
    fn agents_are_added_up() {
        use Reporter::{Client, Server};
        let mut figures = Figures::default();
        // The clients are on one node, servers on both.
        figures.add(&page(10.0, &[]), &page(12.0, &[("cart", Client, 100.0), ("cart", Server, 40.0)]), 2.0);
        assert_eq!(told(&figures), [("cart".to_owned(), Client, 100.0, 50.0)]);
        figures.add(&page(50.0, &[]), &page(54.0, &[("cart", Server, 60.0)]), 2.0);
        assert_eq!(told(&figures), [("cart".to_owned(), Server, 100.0, 20.0 + 15.0)]);
        assert_eq!(figures.rows()[0].quantiles[0], Some(Quantile { seconds: 0.005, is_over: false }));
    }

    #[test]
    fn an_agent_that_began_anew_is_not_compared_with_itself() {
        let view = |requests| [("cart", Reporter::Server, requests)];
        let page = |at, requests| page(at, &view(requests));
        let before = page(100.0, 50.0);
        let other_start = Page { started_at: Some(90.0), ..page(102.0, 60.0) };
        let nearly_same_start = Page { started_at: Some(1.0 + SAME_START), ..page(102.0, 60.0) };
        let gone = Page { views: BTreeMap::new(), ..page(102.0, 0.0) };
        let unknown = Page { counted_at: None, ..page(102.0, 60.0) };
        let set_back = page(50.0, 60.0);
        for (after, added, rate) in [
            (page(102.0, 60.0), Added::Yes, Some(5.0)),
            (page(100.0, 50.0), Added::Same, None),
            (page(102.0, 49.0), Added::Restarted, None),
            (other_start, Added::Restarted, None),
            (nearly_same_start, Added::Yes, Some(5.0)),
            (gone, Added::Restarted, None),
            (unknown, Added::Yes, Some(2.5)),
            (set_back, Added::Yes, Some(2.5)),
        ] {
            let mut figures = Figures::default();
            assert_eq!(figures.add(&before, &after, 4.0), added, "{after:?}");
            assert_eq!(told(&figures).first().map(|row| row.3), rate, "{after:?}");
        }
    }
}
