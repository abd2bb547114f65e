//! Writes an archive as POSIX has it ("ustar"). Everything belongs to root and has one time. No links, no long names.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// Bytes of a header, and what content is filled up to.
const BLOCK: usize = 512;
/// Longest name that a header has room for. Bytes.
const MAX_NAME: usize = 100;
/// Where the checksum is in a header, which counts as spaces while it is made.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const REGULAR: u8 = b'0';
const DIRECTORY: u8 = b'5';

/// An archive being written.
pub(super) struct Archive<W> {
    to: W,
    /// Seconds since 1970, of every entry.
    time: u64,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(to: W, time: u64) -> Self {
        Self { to, time, directories: BTreeSet::new() }
    }

    /// A file, and the directories above it that are not there yet; `path` begins at the root, without a slash.
    ///
    /// # Errors
    /// The writer's, or the path is too long.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            let directory = path.get(..=at).unwrap_or_default();
            if self.directories.insert(directory.to_owned()) {
                self.header(directory, DIRECTORY, 0o755, 0)?;
            }
        }
        self.header(path, REGULAR, mode, content.len())?;
        self.to.write_all(content)?;
        self.to.write_all(&vec![0; content.len().next_multiple_of(BLOCK) - content.len()])
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn header(&mut self, path: &str, kind: u8, mode: u32, size: usize) -> io::Result<()> {
        if path.len() > MAX_NAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path}: longer than {MAX_NAME} bytes"),
            ));
        }
        let time = self.time;
        // name, mode, owner, group, size, time, checksum, kind, target of a link; then what makes it POSIX's, and names
        let mut header =
            format!("{path:\0<100}{mode:07o}\0{0:07o}\0{0:07o}\0{size:011o}\0{time:011o}\0{1:8}", 0, "")
                .into_bytes();
        header.push(kind);
        header.extend_from_slice(&[0; 100]);
        header.extend_from_slice(b"ustar\x0000");
        header.resize(BLOCK, 0);
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        let sum = format!("{sum:06o}\0 ");
        if let Some(place) = header.get_mut(CHECKSUM) {
            place.copy_from_slice(sum.as_bytes());
        }
        self.to.write_all(&header)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn tar_reads_it() {
        let mut archive = Archive::new(Vec::new(), 1_700_000_000);
        archive.file("usr/bin/a", 0o755, b"#!").expect("written");
        archive.file("usr/bin/b", 0o644, &[7; 513]).expect("written");
        assert!(archive.file(&"x".repeat(MAX_NAME + 1), 0o644, b"").is_err());
        archive.file(&"x".repeat(MAX_NAME), 0o600, b"").expect("written");
        let bytes = archive.finish().expect("written");
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut tar = Command::new("tar");
        tar.env("TZ", "UTC").args(["--list", "--verbose", "--numeric-owner"]);
        let mut tar = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tar is there");
        tar.stdin.take().expect("piped").write_all(&bytes).expect("taken");
        let output = tar.wait_with_output().expect("it ends");
        assert!(output.status.success());
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let day = ["2023-11-14", "22:13"];
        let entry = |mode, size, name| vec![mode, "0/0", size, day[0], day[1], name];
        let long = "x".repeat(MAX_NAME);
        let expected = [
            entry("drwxr-xr-x", "0", "usr/"),
            entry("drwxr-xr-x", "0", "usr/bin/"),
            entry("-rwxr-xr-x", "2", "usr/bin/a"),
            entry("-rw-r--r--", "513", "usr/bin/b"),
            entry("-rw-------", "0", &long),
        ];
        assert_eq!(lines, expected);
    }
}
