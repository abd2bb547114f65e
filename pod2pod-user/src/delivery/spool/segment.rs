//! One file of the log, read entry by entry: where bytes are broken the next entry is looked for, and found by its marker and a header
//! that is whole.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::entry::{self, HEADER_BYTES, Header, MARKER};
use crate::delivery::Parcel;

/// So much is read at a time where the next entry is looked for.
const SEARCH_BYTES: usize = 64 * 1024;

/// What a file is called: the number of its first entry, and its salt, which must not be lost with the file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) first: u64,
    pub(super) salt: u32,
}

impl Name {
    /// Its file.
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.{:08x}.seg", self.first, self.salt))
    }

    /// Of a file's name; none if it is no segment's.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let (first, salt) = file.strip_suffix(".seg")?.split_once('.')?;
        let name = Self { first: first.parse().ok()?, salt: u32::from_str_radix(salt, 16).ok()? };
        name.path(Path::new("")).to_str().filter(|written| *written == file).map(|_| name)
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Step {
    /// An entry that is whole.
    Entry(Header, Parcel),
    /// So many bytes that are none; of an entry whose header is whole, if any.
    Broken(u64, Option<Header>),
}

/// Reads one file.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    salt: u32,
    /// What comes next is there.
    pub(super) offset: u64,
}

impl Reader {
    /// Of the file of that name, from `offset`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(folder: &Path, name: Name, offset: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(name.path(folder))?, salt: name.salt, offset })
    }

    /// What comes next before `end`, if anything.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self, end: u64) -> io::Result<Option<Step>> {
        let begin = self.offset;
        let left = end.saturating_sub(begin);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_BYTES as u64 {
            self.offset = end;
            return Ok(Some(Step::Broken(left, None)));
        }
        let mut head = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut head, begin)?;
        let Some(header) = Header::decode(&head, self.salt) else {
            self.offset = self.search(begin + 1, end)?;
            return Ok(Some(Step::Broken(self.offset - begin, None)));
        };
        let after = begin + HEADER_BYTES as u64;
        if after + header.rest() as u64 > end {
            self.offset = self.search(after, end)?;
            return Ok(Some(Step::Broken(self.offset - begin, Some(header))));
        }
        let mut rest = vec![0; header.rest()];
        self.file.read_exact_at(&mut rest, after)?;
        self.offset = after + header.rest() as u64;
        Ok(Some(match entry::decode(&header, self.salt, rest) {
            Some(parcel) => Step::Entry(header, parcel),
            None => Step::Broken(self.offset - begin, Some(header)),
        }))
    }

    /// Where the next whole header is from `start`; `end` if there is none.
    fn search(&self, mut start: u64, end: u64) -> io::Result<u64> {
        let mut buffer = vec![0; SEARCH_BYTES];
        while start + HEADER_BYTES as u64 <= end {
            let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(SEARCH_BYTES);
            let read = buffer.get_mut(..length).unwrap_or_default();
            self.file.read_exact_at(read, start)?;
            let is_header = |place: &usize| {
                read.get(*place..).is_some_and(|bytes| Header::decode(bytes, self.salt).is_some())
            };
            if let Some(place) = memmem::find_iter(read, &MARKER).find(is_header) {
                return Ok(start + place as u64);
            }
            // A header may have begun in what was read.
            start += (length - (HEADER_BYTES - 1)) as u64;
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { first: 3, salt: 0xa };

    fn entry(sequence: u64, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        entry::encode(&mut out, NAME.salt, (sequence, 0), &[length as u32], &vec![b'x'; length]);
        out
    }

    /// Sequences that are whole, and bytes that are not.
    fn read(bytes: &[u8]) -> (Vec<u64>, u64) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(NAME.path(folder.path()), bytes).unwrap();
        let mut reader = Reader::open(folder.path(), NAME, 0).unwrap();
        let (mut whole, mut broken) = (Vec::new(), 0);
        while let Some(step) = reader.next(bytes.len() as u64).unwrap() {
            match step {
                Step::Entry(header, _) => whole.push(header.sequence),
                Step::Broken(bytes, _) => broken += bytes,
            }
        }
        (whole, broken)
    }

    #[test]
    fn a_name_is_of_a_segment_or_of_none() {
        let file = "00000000000000000003.0000000a.seg";
        assert_eq!((Name::parse(file), NAME.path(Path::new(""))), (Some(NAME), PathBuf::from(file)));
        for other in ["", ".seg", "3.a.seg", "cursor", "00000000000000000003.0000000A.seg", "x.y.seg"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn after_broken_bytes_the_next_entry_is_found_wherever_it_begins() {
        for length in [0, 1, 31, 32, 33, SEARCH_BYTES - 33, SEARCH_BYTES - 32, SEARCH_BYTES, 3 * SEARCH_BYTES]
        {
            let broken = vec![MARKER[0]; length];
            let bytes = [entry(3, 5), broken, entry(4, 0), entry(5, 100)].concat();
            assert_eq!(read(&bytes), (vec![3, 4, 5], length as u64), "{length}");
        }
    }

    #[test]
    fn markers_that_begin_no_header_are_passed_over() {
        let bytes = [MARKER.repeat(SEARCH_BYTES), entry(3, 5)].concat();
        assert_eq!(read(&bytes), (vec![3], 4 * SEARCH_BYTES as u64));
        // An entry of somebody who does not know the salt, in a record.
        let mut other = Vec::new();
        entry::encode(&mut other, 0, (9, 0), &[1], b"x");
        let mut bytes = [entry(3, 0), entry(4, 0)].concat();
        bytes.splice(5..6, other);
        assert_eq!(read(&bytes).0, [4]);
    }

    #[test]
    fn an_entry_cut_anywhere_is_none_and_the_one_before_is_whole() {
        let (first, second) = (entry(3, 5), entry(4, 50));
        for cut in 0..second.len() {
            let bytes = [&first, &second[..cut]].concat();
            assert_eq!(read(&bytes), (vec![3], cut as u64), "{cut}");
        }
    }
}
