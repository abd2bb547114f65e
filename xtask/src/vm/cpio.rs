//! Writes an archive as the kernel unpacks it into its first file system (Documentation/driver-api/early-userspace/
//! buffer-format.rst, "newc"). Everything belongs to root. No hard links, devices or times.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written. Archives may follow each other; later ones add to what earlier ones made.
pub(super) struct Archive<W> {
    to: W,
    next_inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(to: W) -> Self {
        Self { to, next_inode: 1, directories: BTreeSet::new() }
    }

    /// A directory and those above it; `path` is absolute.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parent(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, b"")
    }

    /// A file, readable and executable for all if `executable`.
    ///
    /// # Errors
    /// The writer's, or the content is too long for the format.
    pub(super) fn file(&mut self, path: &str, content: &[u8], executable: bool) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, REGULAR | if executable { 0o755 } else { 0o644 }, content)
    }

    /// A symbolic link at `path` to `target`.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive and gives the writer back.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, b"")?;
        Ok(self.to)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(parent) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        // inode, mode, uid, gid, links, time, size, device (2), device's own (2), name's size, checksum
        let fields = [self.next_inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.next_inode += 1;
        let mut head = "070701".to_owned();
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    /// Header with name, and content, both end at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", b"12345", true).expect("written");
        archive.link("/a/b/two", "one").expect("written");
        let bytes = archive.end().expect("ended");
        let mut names = Vec::new();
        let mut rest = &bytes[..];
        while rest.starts_with(b"070701") {
            let field = |number: usize| {
                let text = std::str::from_utf8(&rest[6 + 8 * number..14 + 8 * number]).expect("text");
                usize::from_str_radix(text, 16).expect("a number")
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8_lossy(&rest[110..110 + name_size - 1]).into_owned();
            let begin = (110 + name_size).next_multiple_of(4);
            names.push((name, mode, rest[begin..begin + size].to_vec()));
            rest = &rest[(begin + size).next_multiple_of(4)..];
        }
        assert!(rest.is_empty(), "every entry ends at a multiple of four");
        let expected: [(&str, usize, &[u8]); 5] = [
            ("a", 0o040_755, b""),
            ("a/b", 0o040_755, b""),
            ("a/b/one", 0o100_755, b"12345"),
            ("a/b/two", 0o120_777, b"one"),
            (TRAILER, 0, b""),
        ];
        let expected = expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_vec()));
        assert_eq!(names, expected);
    }
}
