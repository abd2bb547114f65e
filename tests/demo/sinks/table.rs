//! What is shown at the end: for each sink what was sent, and what is where it was sent. It decides whether that is all. Pure.

use std::collections::HashSet;

/// A sink at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) product: String,
    /// What became of the server meanwhile.
    pub(crate) fate: &'static str,
    /// Items that were asked for.
    pub(crate) sent: u64,
    /// Records that are there.
    pub(crate) received: u64,
    /// Those that are there a second time.
    pub(crate) duplicates: u64,
    /// Those that are not there.
    pub(crate) lost: u64,
    /// Records that were sent again.
    pub(crate) retried: u64,
}

impl Row {
    /// Compares what is there with the items of numbers below `sent`; records of none of them are lost too, for they are of something else.
    pub(crate) fn compare(
        (name, product, fate): (&str, &str, &'static str),
        sent: u64,
        paths: &[String],
        retried: u64,
    ) -> Self {
        let distinct: HashSet<_> = paths.iter().collect();
        let is_item = |path: &&String| {
            let number = path.strip_prefix("/item/").and_then(|number| number.parse::<u64>().ok());
            number.is_some_and(|number| number < sent)
        };
        let items = distinct.iter().filter(|path| is_item(path)).count() as u64;
        Self {
            name: name.to_owned(),
            product: product.to_owned(),
            fate,
            sent,
            received: paths.len() as u64,
            duplicates: (paths.len() - distinct.len()) as u64,
            lost: sent - items,
            retried,
        }
    }

    fn cells(&self) -> [String; 8] {
        let Self { name, product, fate, sent, received, retried, duplicates, lost } = self;
        let [sent, received, retried, duplicates, lost] =
            [sent, received, retried, duplicates, lost].map(u64::to_string);
        [name.clone(), product.clone(), (*fate).to_owned(), sent, received, retried, duplicates, lost]
    }
}

/// Whether nothing is missing anywhere, of something.
pub(crate) fn is_whole(rows: &[Row]) -> bool {
    !rows.is_empty() && rows.iter().all(|row| row.sent > 0 && row.lost == 0)
}

/// As aligned text; numbers to the right.
pub(crate) fn render(rows: &[Row]) -> String {
    let heads = ["SINK", "SERVER", "", "SENT", "RECEIVED", "RETRIED", "DUPLICATE", "LOST"].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<_> = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(paths: &[&str]) -> Row {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        Row::compare(("search", "OpenSearch", "killed"), 3, &paths, 7)
    }

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_seen() {
        let numbers = |row: &Row| (row.received, row.duplicates, row.lost);
        for (paths, expected) in [
            (&["/item/0", "/item/1", "/item/2"][..], (3, 0, 0)),
            (&["/item/2", "/item/1", "/item/2", "/item/0"], (4, 1, 0)),
            (&["/item/0", "/item/0", "/item/0"], (3, 2, 2)),
            (&["/item/0", "/item/1", "/item/3"], (3, 0, 1)),
            (&["/item/0", "/item/1", "/other"], (3, 0, 1)),
            (&[], (0, 0, 3)),
        ] {
            let row = row(paths);
            assert_eq!(numbers(&row), expected, "{paths:?}");
            assert_eq!(is_whole(&[row]), expected.2 == 0, "{paths:?}");
        }
        assert!(!is_whole(&[]));
        assert!(!is_whole(&[Row::compare(("a", "b", ""), 0, &[], 0)]), "nothing is not all");
    }

    #[test]
    fn the_table_is_aligned() {
        let text = render(&[row(&["/item/0", "/item/1", "/item/2"])]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "SINK    SERVER              SENT  RECEIVED  RETRIED  DUPLICATE  LOST",
                "search  OpenSearch  killed     3         3        7          0     0"
            ]
        );
    }
}
