//! What stages counted, as rows of the text exposition format.

use std::io::Write as _;

/// Kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One row: a name, an optional label of a closed set, a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Full metric name.
    pub name: String,
    /// One sentence.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Labels; values are fixed words.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Counted {
    /// A counter; `name` without `pod2pod_` and `_total`.
    pub fn counter(name: &str, help: &'static str, value: u64) -> Self {
        Self {
            name: format!("pod2pod_{name}_total"),
            help,
            kind: Kind::Counter,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// A gauge; `name` without `pod2pod_`.
    pub fn gauge(name: &str, help: &'static str, value: u64) -> Self {
        Self {
            name: format!("pod2pod_{name}"),
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// The same with a label.
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }
}

/// Appends `rows`; those of one name stand together.
pub fn render(out: &mut Vec<u8>, rows: &[Counted]) {
    let mut told = "";
    for row in rows {
        // A Vec takes every write.
        if row.name != told {
            let kind = match row.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", row.name, row.help, row.name);
            told = &row.name;
        }
        let labels: Vec<_> = row.labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(out, "{}{labels} {}", row.name, row.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let mut out = Vec::new();
        let dropped = |reason, value| Counted::counter("x", "X.", value).with("reason", reason);
        render(&mut out, &[dropped("a", 1), dropped("b", 2), Counted::gauge("y", "Y.", 3)]);
        let expected = "# HELP pod2pod_x_total X.\n# TYPE pod2pod_x_total counter\npod2pod_x_total{reason=\"a\"} 1\n\
            pod2pod_x_total{reason=\"b\"} 2\n# HELP pod2pod_y Y.\n# TYPE pod2pod_y gauge\npod2pod_y 3\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
