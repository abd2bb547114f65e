//! The table that a person reads: what was sent on the left, what was observed on the right. It decides nothing.

use crate::{
    compare::Row,
    list::{End, Entry},
};

const HEADINGS: [&str; 6] = ["METHOD", "TARGET", "STATUS", "REQUEST", "RESPONSE", "OUTCOME"];

/// The rows as aligned text; a row that disagrees begins with `≠`, one with a lower bound
/// for a size with `≥`.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut lines =
        vec![line(" ", "END", "CLIENT PORT", HEADINGS.map(str::to_owned), HEADINGS.map(str::to_owned))];
    for row in rows {
        let observed = row.observed.as_ref().map(|observed| &observed.entry);
        let Some(entry) = row.sent.as_ref().or(observed) else { continue };
        let mark = match (row.agrees(), row.is_lower_bound()) {
            (true, false) => "=",
            (true, true) => "≥",
            (false, _) => "≠",
        };
        let port = format!("{}#{}", entry.client.port(), entry.index);
        let end = if entry.end == End::Client { "client" } else { "server" };
        lines.push(line(mark, end, &port, cells(row.sent.as_ref()), cells(observed)));
    }
    aligned(&lines)
}

fn line(mark: &str, end: &str, port: &str, sent: [String; 6], observed: [String; 6]) -> Vec<String> {
    let mut line = vec![mark.to_owned(), end.to_owned(), port.to_owned(), "│".to_owned()];
    line.extend(sent);
    line.push("│".to_owned());
    line.extend(observed);
    line
}

fn cells(entry: Option<&Entry>) -> [String; 6] {
    let Some(entry) = entry else { return ["(none)", "", "", "", "", ""].map(str::to_owned) };
    [
        entry.method.clone(),
        entry.target.clone(),
        entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        entry.request_bytes.to_string(),
        entry.response_bytes.to_string(),
        entry.outcome.clone(),
    ]
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join(" ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Observed;

    #[test]
    fn both_sides_are_shown_and_the_difference_is_marked() {
        let entry = |line: &str| line.parse::<Entry>().expect("a line");
        let sent = entry("client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 200 0 9 complete");
        let other = entry("client 10.244.1.2:40000 10.96.0.10:80 0 GET /a 500 0 9 complete");
        let told = |entry: &Entry| Observed {
            entry: entry.clone(),
            request_cut: false,
            response_cut: true,
            connection_id: String::new(),
            offset: 0,
        };
        let large = entry("client 10.244.1.2:40000 10.96.0.10:80 1 GET /b 200 0 1000000 complete");
        let bound = entry("client 10.244.1.2:40000 10.96.0.10:80 1 GET /b 200 0 261936 complete");
        let text = render(&[
            Row { sent: Some(sent.clone()), observed: Some(told(&sent)) },
            Row { sent: Some(sent.clone()), observed: Some(told(&other)) },
            Row { sent: None, observed: Some(told(&sent)) },
            Row { sent: Some(large), observed: Some(told(&bound)) },
        ]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1].join(" "),
            "= client 40000#0 │ GET /a 200 0 9 complete │ GET /a 200 0 9 complete"
        );
        assert_eq!(
            lines[2].join(" "),
            "≠ client 40000#0 │ GET /a 200 0 9 complete │ GET /a 500 0 9 complete"
        );
        assert_eq!(lines[3].join(" "), "≠ client 40000#0 │ (none) │ GET /a 200 0 9 complete");
        assert_eq!(
            lines[4].join(" "),
            "≥ client 40000#1 │ GET /b 200 0 1000000 complete │ GET /b 200 0 261936 complete"
        );
    }
}
