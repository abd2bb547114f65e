//! The terminal: what draws a screen anew, how large it is, and its keys one by one while a [`Screen`] is open. What is drawn, and
//! what a key does, is not known here.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Moves the cursor home and forgets what is below it (ECMA-48: CUP, ED).
pub(crate) const REDRAW: &[u8] = b"\x1b[H\x1b[J";
/// Another screen without a cursor, and back (xterm: DECSET 1049 and 25).
const OPEN: &[u8] = b"\x1b[?1049h\x1b[?25l";
const CLOSE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// Of a terminal that does not say: that of the first ones.
const USUAL_SIZE: Size = Size { rows: 24, columns: 80 };

/// Characters of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Character(u8),
    Up,
    Down,
    PageUp,
    PageDown,
}

/// A screen of its own, until it is dropped: then the terminal is as it was.
#[derive(Debug)]
pub(crate) struct Screen {
    before: Termios,
}

impl Screen {
    /// Opens it on standard input and output; absent where one of them is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        let (input, output) = (io::stdin(), io::stdout());
        if !input.is_terminal() || !output.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(input.as_fd())?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        // Interruption stays a signal, and ends the program in order. What would stop it or end it in the middle is a key.
        for code in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            raw.special_codes[code] = 0;
        }
        tcsetattr(input.as_fd(), OptionalActions::Now, &raw)?;
        let screen = Self { before };
        screen.show(OPEN)?;
        Ok(Some(screen))
    }

    /// Writes all of it at once.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn show(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(bytes)?;
        output.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Of a terminal that is gone there is nothing to restore.
        let _ = self.show(CLOSE);
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

/// How large the terminal is at this moment.
pub(crate) fn size() -> Size {
    let told = tcgetwinsize(io::stdout().as_fd())
        .map(|size| Size { rows: size.ws_row.into(), columns: size.ws_col.into() });
    told.ok().filter(|size| size.rows > 0 && size.columns > 0).unwrap_or(USUAL_SIZE)
}

/// The keys that these bytes are; what is none is left out.
pub(crate) fn keys(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 6] = [
        (b"\x1b[A", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOA", Key::Up),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
    ];
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        if first != 0x1b {
            keys.push(Key::Character(first));
            bytes = rest;
        } else if let Some((sequence, key)) =
            SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence))
        {
            keys.push(*key);
            bytes = bytes.get(sequence.len()..).unwrap_or_default();
        } else {
            // Of another sequence the end is its first byte from @ on, behind the introducer (ECMA-48 5.4).
            let end = rest.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte));
            bytes = end.and_then(|end| rest.get(end + 2..)).unwrap_or_default();
        }
    }
    keys
}

/// Columns of standard output, if it is a terminal that says how many.
pub(crate) fn width() -> Option<usize> {
    let told = tcgetwinsize(io::stdout().as_fd()).ok();
    told.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys() {
        let character = |byte| Key::Character(byte);
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"qs", vec![character(b'q'), character(b's')]),
            (b"\x1b[A\x1b[Bj", vec![Key::Up, Key::Down, character(b'j')]),
            (b"\x1bOA\x1b[5~\x1b[6~", vec![Key::Up, Key::PageUp, Key::PageDown]),
            (b"\x1b[1;5Cq", vec![character(b'q')]),
            (b"\x1b", vec![]),
            (b"\x1b[", vec![]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }
}
