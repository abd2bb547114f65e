//! Lines out of pieces of a file, as they were read. What is in a line is not looked at.

/// Longest line that is looked at, bytes: an IPv6 row with the longest data of a persistence engine has less than 600.
pub const MAX_LINE: usize = 4096;

/// Puts lines together that were cut between two reads.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Beginning of a line whose end was not read yet, at most [`MAX_LINE`] bytes and one.
    begun: Vec<u8>,
}

impl Lines {
    /// Hands over every line that ends in `piece`, without its line feed. Of one longer than [`MAX_LINE`], that many bytes
    /// and one more are handed over: nobody takes it for whole.
    pub fn push(&mut self, piece: &[u8], each: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end);
            if self.begun.is_empty() {
                each(line.get(..=MAX_LINE).unwrap_or(line));
            } else {
                self.begin(line);
                each(&self.begun);
                self.begun.clear();
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        self.begin(rest);
    }

    /// Hands over what follows the last line feed, if anything does.
    pub fn finish(&mut self, each: &mut impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            each(&self.begun);
            self.begun.clear();
        }
    }

    /// Whether a line has begun that is longer than [`MAX_LINE`] already.
    pub fn is_endless(&self) -> bool {
        self.begun.len() > MAX_LINE
    }

    fn begin(&mut self, piece: &[u8]) {
        let room = (MAX_LINE + 1).saturating_sub(self.begun.len());
        self.begun.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut told = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece, &mut |line| told.push(line.to_vec()));
        }
        lines.finish(&mut |line| told.push(line.to_vec()));
        told
    }

    #[test]
    fn lines_do_not_depend_on_how_they_were_cut() {
        let text = b"one\n\ntwo words\nthree";
        let expected: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(lines(&pieces), expected, "{first} {second}");
            }
        }
        assert_eq!(lines(&[b"one\n"]), [b"one".to_vec()], "no line behind the last line feed");
    }

    #[test]
    fn a_line_has_a_longest_length() {
        for (length, told) in
            [(MAX_LINE, MAX_LINE), (MAX_LINE + 1, MAX_LINE + 1), (3 * MAX_LINE, MAX_LINE + 1)]
        {
            let mut text = vec![b'a'; length];
            text.extend_from_slice(b"\nnext");
            for cut in [0, 1, length - 1, length] {
                let found = lines(&[&text[..cut], &text[cut..]]);
                assert_eq!(
                    found.iter().map(Vec::len).collect::<Vec<_>>(),
                    [told, 4],
                    "{length} cut at {cut}"
                );
            }
            let mut lines = Lines::default();
            lines.push(&text[..length], &mut |_| {});
            assert_eq!(lines.is_endless(), length > MAX_LINE, "{length}");
        }
    }
}
