//! What was meant by a word that is none.

/// The name most like `written`, if no more than a third of it is wrong.
pub(crate) fn nearest(written: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let scored = names.map(|name| {
        let whole = distance(written, &name);
        // The right word at the wrong place is nearer than anything.
        let score = if last(written) == last(&name) { whole.min(1) } else { whole };
        (score, name)
    });
    scored.min().filter(|(score, name)| *score <= (name.len() / 3).max(1)).map(|(_, name)| name)
}

/// Levenshtein's distance, in bytes.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (b, above) in to.bytes().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != b)).min(left + 1).min(above + 1);
            diagonal = *above;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
