//! What of the log is dealt with: the lowest entry that is not, in a small file that is written in turn in two places, so that of a
//! torn write the older one is left. What is dealt with above it is known in memory only.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use super::{FILE_MODE, entry::sum};

/// The file's name in a spool's folder.
const FILE: &str = "cursor";
/// Marker, checksum, turn, lowest.
const SLOT_BYTES: usize = 24;
/// Where the second place is: in another page, which is written by itself.
const SLOT_DISTANCE: u64 = 4096;
/// Begins a slot.
const MARKER: u32 = u32::from_le_bytes(*b"p2pc");

/// Of one spool.
#[derive(Debug)]
pub(super) struct Cursor {
    file: Arc<File>,
    turn: u64,
    lowest: u64,
    /// Dealt with above it: first, and one past the last.
    above: BTreeMap<u64, u64>,
    /// Written since somebody asked.
    is_dirty: bool,
    /// Writes that failed.
    failed: u64,
}

impl Cursor {
    /// Of the spool in `folder`; without a whole place nothing is dealt with.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = Arc::new(options.open(folder.join(FILE))?);
        let is_new = file.metadata()?.len() < SLOT_DISTANCE + SLOT_BYTES as u64;
        let slots = [0, SLOT_DISTANCE].map(|place| read(&file, place));
        let (turn, lowest) = slots.into_iter().flatten().max().unwrap_or_default();
        let (above, is_dirty, failed) = (BTreeMap::new(), false, 0);
        let mut cursor = Self { file, turn, lowest, above, is_dirty, failed };
        if is_new {
            // Both have their blocks: later writes need no room.
            (0..2).for_each(|_| cursor.write());
        }
        Ok(cursor)
    }

    /// The lowest entry that is not dealt with.
    pub(super) const fn lowest(&self) -> u64 {
        self.lowest
    }

    /// How many writes failed.
    pub(super) const fn failed(&self) -> u64 {
        self.failed
    }

    /// These are dealt with. Written if the lowest is another one then.
    pub(super) fn pass(&mut self, entries: Range<u64>) {
        if entries.end <= self.lowest || entries.is_empty() {
            return;
        }
        if entries.start > self.lowest {
            let end = self.above.entry(entries.start).or_default();
            *end = entries.end.max(*end);
            return;
        }
        self.lowest = entries.end;
        while let Some(next) = self.above.first_entry().filter(|next| *next.key() <= self.lowest) {
            self.lowest = self.lowest.max(next.remove());
        }
        self.write();
    }

    /// The file, if something was written to it since this was asked.
    pub(super) fn take_dirty(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.is_dirty).then(|| Arc::clone(&self.file))
    }

    fn write(&mut self) {
        self.turn += 1;
        let said = [self.turn.to_le_bytes(), self.lowest.to_le_bytes()].concat();
        let slot = [&MARKER.to_le_bytes()[..], &sum(MARKER, &said).to_le_bytes(), &said].concat();
        match self.file.write_all_at(&slot, self.turn % 2 * SLOT_DISTANCE) {
            Ok(()) => self.is_dirty = true,
            // The next one says the same and more.
            Err(_) => self.failed += 1,
        }
    }
}

/// Turn and lowest of one place, if it is whole.
fn read(file: &File, place: u64) -> Option<(u64, u64)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, place).ok()?;
    let (marker, rest) = slot.split_first_chunk()?;
    let (checksum, said) = rest.split_first_chunk()?;
    let (turn, lowest) = said.split_first_chunk()?;
    let is_whole =
        u32::from_le_bytes(*marker) == MARKER && u32::from_le_bytes(*checksum) == sum(MARKER, said);
    is_whole.then_some((u64::from_le_bytes(*turn), u64::from_le_bytes(*lowest.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(folder: &Path) -> u64 {
        Cursor::open(folder).unwrap().lowest()
    }

    #[test]
    fn the_lowest_follows_what_is_dealt_with_in_and_out_of_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        let steps = [(0..1, 1), (2..3, 1), (4..6, 1), (1..2, 3), (2..3, 3), (3..4, 6), (0..9, 9), (9..9, 9)];
        for (entries, expected) in steps {
            cursor.pass(entries.clone());
            assert_eq!((cursor.lowest(), lowest(folder.path())), (expected, expected), "{entries:?}");
        }
        assert!(cursor.above.is_empty());
    }

    #[test]
    fn of_a_torn_write_the_older_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        (0..5).for_each(|entry| cursor.pass(entry..entry + 1));
        let file = folder.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        let place = usize::try_from(cursor.turn % 2 * SLOT_DISTANCE).unwrap();
        for byte in 0..SLOT_BYTES {
            let mut torn = whole.clone();
            torn[place + byte] ^= 0x40;
            std::fs::write(&file, torn).unwrap();
            assert_eq!(lowest(folder.path()), 4, "{byte}");
        }
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert!([0, 4, 5].contains(&lowest(folder.path())), "{length}");
        }
    }

    #[test]
    fn it_is_synced_once_after_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        assert!(cursor.take_dirty().is_some() && cursor.take_dirty().is_none());
        cursor.pass(1..2);
        assert!(cursor.take_dirty().is_none(), "what is above is not written");
        cursor.pass(0..1);
        assert!(cursor.take_dirty().is_some());
    }
}
