//! One page of an agent's `/metrics` → what it counted of pairs. Reads the text exposition format, version 0.0.4, and of it only the
//! rows that it knows; compares nothing.

use std::collections::BTreeMap;

/// An end of exchanges, as the labels have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) namespace: String,
    pub(super) workload: String,
}

/// Who asks whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) client: End,
    pub(super) server: End,
}

/// Whose view it is. What comes first is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reporter {
    Server,
    Client,
    Path,
}

impl Reporter {
    const ALL: [Self; 3] = [Self::Server, Self::Client, Self::Path];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Path => "path",
        }
    }
}

/// What one end counted of a pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) requests: f64,
    pub(super) errors: f64,
    /// Upper bounds, s, and how many exchanges took no longer, in the order of the bounds.
    pub(super) buckets: Vec<(f64, f64)>,
}

/// Exchanges of which both ends' views met.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Joined {
    pub(super) requests: f64,
    /// At the client, s.
    pub(super) client_time: f64,
    /// Of it in the network and the stacks, s.
    pub(super) network_time: f64,
}

/// What is counted since the agent began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    pub(super) views: BTreeMap<(Pair, Reporter), View>,
    pub(super) joined: BTreeMap<Pair, Joined>,
    /// It is an agent's, or a replay's.
    pub(super) is_ours: bool,
    /// Exchanges for whose pair there was no room; absent where pairs are not counted.
    pub(super) overflowed: Option<f64>,
    /// When it was counted, and when the program began: seconds since 1970.
    pub(super) counted_at: Option<f64>,
    pub(super) started_at: Option<f64>,
}

impl Page {
    /// Reads it. Lines that are not understood are left out, as the format asks for.
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(row) = Row::parse(line) {
                page.take(row);
            }
        }
        for view in page.views.values_mut() {
            view.buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        page
    }

    fn take(&mut self, row: Row<'_>) {
        match row.name {
            "pod2pod_build_info" => self.is_ours = true,
            "pod2pod_workload_pairs_overflowed_total" => self.overflowed = Some(row.value),
            "pod2pod_metrics_counted_timestamp_seconds" => self.counted_at = Some(row.value),
            "process_start_time_seconds" => self.started_at = Some(row.value),
            _ => self.take_workload(row),
        }
    }

    fn take_workload(&mut self, row: Row<'_>) {
        let Some(what) = row.name.strip_prefix("pod2pod_workload_") else { return };
        let reporter = Reporter::ALL.into_iter().find(|one| row.label("reporter") == Some(one.as_str()));
        let view = reporter.map(|reporter| (row.pair(), reporter));
        let view = view.map(|key| self.views.entry(key).or_default());
        match (what, view) {
            ("requests_total", Some(view)) => view.requests = row.value,
            ("errors_total", Some(view)) => view.errors = row.value,
            ("request_duration_seconds_bucket", Some(view)) => {
                let bound = row.label("le").and_then(|bound| bound.parse::<f64>().ok());
                view.buckets.extend(bound.filter(|bound| !bound.is_nan()).map(|bound| (bound, row.value)));
            }
            ("joined_requests_total", None) => {
                self.joined.entry(row.pair()).or_default().requests = row.value
            }
            ("joined_client_seconds_total", None) => {
                self.joined.entry(row.pair()).or_default().client_time = row.value;
            }
            ("joined_network_seconds_total", None) => {
                self.joined.entry(row.pair()).or_default().network_time = row.value;
            }
            _ => {}
        }
    }
}

/// A line with a value.
#[derive(Debug, PartialEq)]
struct Row<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        let end = line.find(['{', ' ', '\t'])?;
        let (name, mut rest) = line.split_at_checked(end)?;
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = read_labels(inside, &mut labels)?;
        }
        // Behind the value there may be a time.
        let value = rest.split_whitespace().next()?;
        let value = value.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(Self { name, labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    fn pair(&self) -> Pair {
        let of = |name| self.label(name).unwrap_or_default().to_owned();
        Pair {
            client: End { namespace: of("client_namespace"), workload: of("client_workload") },
            server: End { namespace: of("server_namespace"), workload: of("server_workload") },
        }
    }
}

/// Reads labels up to the brace that ends them; what is behind it.
fn read_labels<'a>(mut text: &'a str, labels: &mut Vec<(&'a str, String)>) -> Option<&'a str> {
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = read_value(rest.trim_start().strip_prefix('"')?)?;
        labels.push((name.trim(), value));
        text = rest;
    }
}

/// Reads a label's value up to its quotation mark; it, and what is behind that.
fn read_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str =
        r#"client_namespace="shop",client_workload="web",server_namespace="shop",server_workload="cart""#;

    fn pair() -> Pair {
        let end = |workload: &str| End { namespace: "shop".to_owned(), workload: workload.to_owned() };
        Pair { client: end("web"), server: end("cart") }
    }

    #[test]
    fn rows_are_read_as_the_format_has_them() {
        let row = |name, labels: &[(&'static str, &str)], value| {
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Some(Row { name, labels, value })
        };
        for (line, expected) in [
            ("a 1", row("a", &[], 1.0)),
            ("a\t-2.5e3 1700000000000", row("a", &[], -2500.0)),
            ("a{} 1", row("a", &[], 1.0)),
            (r#"a{b="c"} 1"#, row("a", &[("b", "c")], 1.0)),
            (r#"a{b="c", d="e",} 1"#, row("a", &[("b", "c"), ("d", "e")], 1.0)),
            (r#"a{b="\\\"\n}= ,"} 1"#, row("a", &[("b", "\\\"\n}= ,")], 1.0)),
            ("# HELP a 1", None),
            ("", None),
            ("a", None),
            ("a one", None),
            ("a NaN", None),
            ("a +Inf", None),
            (r#"a{b="c} 1"#, None),
            (r#"a{b="c" 1"#, None),
            (r#"a{b=c} 1"#, None),
            (r#"a{b="\"#, None),
            (" {b=\"c\"} 1", None),
        ] {
            assert_eq!(Row::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn a_page_has_pairs_and_what_is_to_be_known_of_the_agent() {
        let page = Page::parse(&format!(
            "# HELP x y\n\
             pod2pod_build_info{{version=\"0.1.0\"}} 1\n\
             pod2pod_workload_errors_total{{{WHO},reporter=\"server\"}} 2\n\
             pod2pod_workload_joined_client_seconds_total{{{WHO}}} 1.5\n\
             pod2pod_workload_joined_network_seconds_total{{{WHO}}} 0.5\n\
             pod2pod_workload_joined_requests_total{{{WHO}}} 7\n\
             pod2pod_workload_request_duration_seconds_bucket{{{WHO},reporter=\"server\",le=\"+Inf\"}} 9\n\
             pod2pod_workload_request_duration_seconds_bucket{{{WHO},reporter=\"server\",le=\"0.005\"}} 4\n\
             pod2pod_workload_request_duration_seconds_bucket{{{WHO},reporter=\"server\",le=\"much\"}} 4\n\
             pod2pod_workload_requests_total{{{WHO},reporter=\"server\"}} 9\n\
             pod2pod_workload_requests_total{{{WHO},reporter=\"client\"}} 8\n\
             pod2pod_workload_requests_total{{{WHO},reporter=\"nobody\"}} 8\n\
             pod2pod_workload_pairs_overflowed_total 3\n\
             pod2pod_metrics_counted_timestamp_seconds 100.5\n\
             process_start_time_seconds 17\n\
             something else\n"
        ));
        let server = View { requests: 9.0, errors: 2.0, buckets: vec![(0.005, 4.0), (f64::INFINITY, 9.0)] };
        let client = View { requests: 8.0, ..View::default() };
        let views = [((pair(), Reporter::Server), server), ((pair(), Reporter::Client), client)];
        let joined = Joined { requests: 7.0, client_time: 1.5, network_time: 0.5 };
        let expected = Page {
            views: views.into_iter().collect(),
            joined: [(pair(), joined)].into_iter().collect(),
            is_ours: true,
            overflowed: Some(3.0),
            counted_at: Some(100.5),
            started_at: Some(17.0),
        };
        assert_eq!(page, expected);
        assert_eq!(Page::parse("<html>\n"), Page::default());
    }
}
