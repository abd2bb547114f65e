//! Rows → a table for people, sorted and cut to the screen, and JSON. Writes to memory only.

use std::{cmp::Ordering, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    figures::{Quantile, Row},
    page::End,
};
use crate::terminal::Size;

/// What a table can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Client,
    Server,
    Rate,
    Errors,
    P50,
    P95,
    P99,
    Network,
}

impl Column {
    /// All, in the order of the table; the keys 1 to 8 choose them.
    pub(super) const ALL: [Self; 8] = [
        Self::Client,
        Self::Server,
        Self::Rate,
        Self::Errors,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Network,
    ];
    /// Their names, for whoever wrote another.
    pub(super) const NAMES: &str = "client, server, rate, errors, p50, p95, p99, network";

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == text)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Network => "network",
        }
    }

    /// The one behind it, around the end.
    pub(super) fn next(self) -> Self {
        Self::ALL.into_iter().cycle().skip_while(|column| *column != self).nth(1).unwrap_or(self)
    }

    /// The figure in this column, in its unit: a second, a share, s. Names have none.
    pub(super) fn value(self, row: &Row) -> Option<f64> {
        let [p50, p95, p99] = row.quantiles.map(|quantile| quantile.map(Quantile::rank));
        match self {
            Self::Client | Self::Server => None,
            Self::Rate => Some(row.rate),
            Self::Errors => Some(row.error_share),
            Self::P50 => p50,
            Self::P95 => p95,
            Self::P99 => p99,
            Self::Network => row.network,
        }
    }
}

impl Quantile {
    /// For comparison: what is longer than the buckets tell apart is longer than what they do.
    fn rank(self) -> f64 {
        if self.is_over { self.seconds * 2.0 } else { self.seconds }
    }
}

/// How a table is sorted: figures from the greatest on, names from the first on, unless reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) column: Column,
    pub(super) is_reversed: bool,
}

impl Order {
    /// Sorts. What has no figure is last, either way; what is equal goes by rate, then by name.
    pub(super) fn sort(self, rows: &mut [Row]) {
        let Self { column, is_reversed } = self;
        let turned = |order: Ordering| if is_reversed { order.reverse() } else { order };
        let greatest = |one: f64, other: f64| other.total_cmp(&one);
        rows.sort_by(|one, other| {
            let by_column = match (column, column.value(one), column.value(other)) {
                (Column::Client, ..) => turned(one.pair.client.cmp(&other.pair.client)),
                (Column::Server, ..) => turned(one.pair.server.cmp(&other.pair.server)),
                (_, Some(one), Some(other)) => turned(greatest(one, other)),
                (_, one, other) => other.is_some().cmp(&one.is_some()),
            };
            by_column.then(greatest(one.rate, other.rate)).then_with(|| one.pair.cmp(&other.pair))
        });
    }
}

/// An end as it is shown.
pub(super) fn end(end: &End) -> String {
    // A name that draws would not be ours.
    let shown = |text: &str| text.replace(char::is_control, "?");
    match (end.namespace.as_str(), end.workload.as_str()) {
        ("" | "_OTHER", workload) => shown(workload),
        (namespace, workload) => format!("{}/{}", shown(namespace), shown(workload)),
    }
}

/// Columns that figures take: whose view, and the six.
const FIGURES: usize = 66;
/// A name is shown at least so long.
const SHORTEST_NAME: usize = 12;
/// Where nobody says how wide it may be.
const LONGEST_NAME: usize = 60;

/// The table, with as much of names as `columns` leave room for; all of it if there are none.
pub(super) fn text(rows: &[Row], columns: Option<usize>) -> Vec<String> {
    let names: Vec<[String; 2]> =
        rows.iter().map(|row| [end(&row.pair.client), end(&row.pair.server)]).collect();
    let room = columns.map_or(LONGEST_NAME, |columns| columns.saturating_sub(FIGURES) / 2).max(SHORTEST_NAME);
    let [client, server] = [0, 1].map(|which| {
        let lengths = names.iter().filter_map(|names| names.get(which)).map(|name| name.chars().count());
        lengths.max().unwrap_or_default().clamp(SHORTEST_NAME, room)
    });
    let mut lines = vec![format!(
        "{:client$}  {:server$}  {:6} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8}",
        "CLIENT", "SERVER", "VIEW", "REQ/S", "ERRORS", "P50", "P95", "P99", "NETWORK"
    )];
    for (row, [of_client, of_server]) in rows.iter().zip(&names) {
        let mut line = format!(
            "{:client$}  {:server$}  {:6} {:>9.1} {:>7}",
            cut(of_client, client),
            cut(of_server, server),
            row.reporter.as_str(),
            row.rate,
            percent(Some(row.error_share))
        );
        for quantile in row.quantiles {
            // Writing to a String does not fail.
            let _ = write!(line, " {:>8}", time(quantile));
        }
        let _ = write!(line, " {:>8}", percent(row.network));
        lines.push(line);
    }
    lines
}

/// The lines that a screen has room for between a head and a foot, from the row `from` on.
pub(super) fn screen(head: &str, table: &[String], foot: &str, from: usize, size: Size) -> Vec<u8> {
    let mut shown = vec![head];
    let (title, rows) = table.split_first().map_or(("", &[][..]), |(title, rows)| (title.as_str(), rows));
    shown.extend(["", title]);
    let room = size.rows.saturating_sub(shown.len() + 2);
    shown.extend(rows.iter().skip(from).take(room).map(String::as_str));
    shown.extend(["", foot]);
    shown.truncate(size.rows);
    let lines: Vec<String> = shown.into_iter().map(|line| cut(line, size.columns)).collect();
    // Behind the last line nothing: the screen would move on.
    lines.join("\n").into_bytes()
}

/// All rows with what cannot be read off them, as one JSON object.
pub(super) fn json(rows: &[Row], notes: &[String], seconds: f64) -> String {
    let one = |row: &Row| {
        let Row { pair, reporter, requests, rate, errors, error_share, quantiles, joined, network } = row;
        let [p50, p95, p99] = quantiles.map(|quantile| quantile.map(|quantile| quantile.seconds));
        let mut object = json!({
            "client_namespace": pair.client.namespace,
            "client_workload": pair.client.workload,
            "server_namespace": pair.server.namespace,
            "server_workload": pair.server.workload,
            "reporter": reporter.as_str(),
            "requests": requests,
            "requests_per_second": rate,
            "errors": errors,
            "error_share": error_share,
            "joined_requests": joined,
        });
        for (key, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("network_share", *network)] {
            // An absent fact is an absent key.
            if let (Some(value), Some(object)) = (value, object.as_object_mut()) {
                object.insert(key.to_owned(), json!(value));
            }
        }
        object
    };
    let rows: Vec<Value> = rows.iter().map(one).collect();
    format!("{}\n", json!({"interval": seconds, "pairs": rows, "notes": notes}))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// With three digits, as buckets know it no better.
fn time(quantile: Option<Quantile>) -> String {
    let Some(Quantile { seconds, is_over }) = quantile else { return "-".to_owned() };
    let text = match seconds {
        seconds if seconds < 0.0995 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    };
    if is_over { format!("> {seconds:.0} s") } else { text }
}

/// So many characters of it at most, with a sign where it was longer.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::page::{Pair, Reporter},
        *,
    };

    /// A row of a tenth of errors, with quantiles of 2 ms, 20 ms and 2 s, and a quarter of the time in the network.
    pub(in super::super) fn row(client: &str, server: &str, rate: f64) -> Row {
        let end = |text: &str| {
            let (namespace, workload) = text.split_once('/').unwrap_or(("", text));
            End { namespace: namespace.to_owned(), workload: workload.to_owned() }
        };
        let quantile = |seconds| Some(Quantile { seconds, is_over: false });
        Row {
            pair: Pair { client: end(client), server: end(server) },
            reporter: Reporter::Server,
            requests: rate * 2.0,
            rate,
            errors: rate / 5.0,
            error_share: 0.1,
            quantiles: [0.002, 0.02, 0.75].map(quantile),
            joined: 1.0,
            network: Some(0.25),
        }
    }

    #[test]
    fn rows_are_sorted_by_any_column() {
        let over = Some(Quantile { seconds: 10.0, is_over: true });
        let rows = [
            Row { error_share: 0.5, network: None, ..row("a", "z", 1.0) },
            Row { quantiles: [None, over, over], ..row("b", "y", 3.0) },
            Row { network: Some(0.9), quantiles: [row("", "", 0.0).quantiles[0]; 3], ..row("c", "x", 2.0) },
        ];
        for (column, order, reversed) in [
            (Column::Client, "abc", "cba"),
            (Column::Server, "cba", "abc"),
            (Column::Rate, "bca", "acb"),
            (Column::Errors, "abc", "bca"),
            (Column::P50, "cab", "cab"),
            (Column::P95, "bac", "cab"),
            (Column::P99, "bac", "cab"),
            (Column::Network, "cba", "bca"),
        ] {
            for (is_reversed, expected) in [(false, order), (true, reversed)] {
                let mut sorted = rows.clone();
                Order { column, is_reversed }.sort(&mut sorted);
                let is: String = sorted.iter().map(|row| row.pair.client.workload.as_str()).collect();
                assert_eq!(is, expected, "{column:?} {is_reversed}");
            }
        }
        let names: Vec<_> = Column::ALL.iter().map(|column| column.as_str()).collect();
        assert_eq!(names.join(", "), Column::NAMES);
        assert!(Column::ALL.iter().all(|column| Column::parse(column.as_str()) == Some(*column)));
        assert_eq!((Column::Client.next(), Column::Network.next()), (Column::Server, Column::Client));
    }

    #[test]
    fn a_table_is_as_wide_as_it_may_be() {
        let long = format!("shop/{}", "w".repeat(70));
        let over = Some(Quantile { seconds: 10.0, is_over: true });
        let rows = [
            row("shop/web", "shop/cart", 1234.56),
            Row { network: None, quantiles: [None, None, over], ..row(&long, "outside", 0.04) },
        ];
        let lines = text(&rows[..1], None);
        let expected = [
            "CLIENT        SERVER        VIEW       REQ/S  ERRORS      P50      P95      P99  NETWORK",
            "shop/web      shop/cart     server    1234.6  10.0 %   2.0 ms  20.0 ms   750 ms   25.0 %",
        ];
        assert_eq!(lines, expected);
        let lines = text(&rows, Some(120));
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{lines:#?}");
        assert!(lines[2].starts_with("shop/wwwwwwwwwwwwwwwwwwwww…  outside "), "{}", lines[2]);
        assert!(lines[2].ends_with("      0.0  10.0 %        -        -   > 10 s        -"), "{}", lines[2]);
        assert!(text(&rows, None)[2].contains(&"w".repeat(54)));
    }

    #[test]
    fn a_screen_has_what_there_is_room_for() {
        let table: Vec<String> = ["T", "1", "2", "3", "4"].map(str::to_owned).to_vec();
        let shown = |rows, columns, from| {
            String::from_utf8(screen("head", &table, "foot", from, Size { rows, columns })).unwrap()
        };
        assert_eq!(shown(9, 80, 0), "head\n\nT\n1\n2\n3\n4\n\nfoot");
        assert_eq!(shown(8, 80, 0), "head\n\nT\n1\n2\n3\n\nfoot");
        assert_eq!(shown(7, 3, 2), "he…\n\nT\n3\n4\n\nfo…");
        assert_eq!(shown(3, 80, 0), "head\n\nT");
        assert_eq!(shown(0, 80, 0), "");
    }

    #[test]
    fn what_is_not_known_is_no_key() {
        let rows = [Row { network: None, quantiles: [None; 3], ..row("shop/web", "pay", 5.0) }];
        let told: Value = serde_json::from_str(&json(&rows, &["a note".to_owned()], 2.0)).unwrap();
        let expected = json!({"interval": 2.0, "notes": ["a note"], "pairs": [{
            "client_namespace": "shop", "client_workload": "web", "server_namespace": "", "server_workload": "pay",
            "reporter": "server", "requests": 10.0, "requests_per_second": 5.0, "errors": 1.0, "error_share": 0.1,
            "joined_requests": 1.0}]});
        assert_eq!(told, expected);
        let told: Value = serde_json::from_str(&json(&[row("a", "b", 5.0)], &[], 2.0)).unwrap();
        assert_eq!(
            (&told["pairs"][0]["p99"], &told["pairs"][0]["network_share"]),
            (&json!(0.75), &json!(0.25))
        );
    }

    #[test]
    fn names_do_not_draw() {
        let shown = end(&End { namespace: "a\x1b[2J".to_owned(), workload: "b\n".to_owned() });
        assert_eq!(shown, "a?[2J/b?");
        assert_eq!(end(&End { namespace: "_OTHER".to_owned(), workload: "_OTHER".to_owned() }), "_OTHER");
    }
}
