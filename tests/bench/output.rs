//! The file that observers write to. It is in memory, and its pages are there before anybody is measured: a virtual machine is given
//! memory when it first touches it, which costs whoever touches it more than all that an observer does for the line that it writes
//! (1.4 µs a KiB on the machine where this was found, 0.2 µs once it is there). On a node what an agent writes goes
//! through a pipe, whose pages are used again and again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

/// Pages that are there: more than an agent that names pods writes in a round at full load and before it. What goes over them is
/// written all the same, and costs more.
const BYTES: u64 = 3 << 30;

/// The file, one observer's after the other.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Makes it at `path`, with so many bytes of pages that are there.
    fn with(path: PathBuf, bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let there = file.metadata()?.len();
        let mut end = &file;
        end.seek(SeekFrom::End(0))?;
        io::copy(&mut io::repeat(b'\n').take(bytes.saturating_sub(there)), &mut end)
            .with_context(|| format!("no room for {bytes} bytes of {}", path.display()))?;
        end.seek(SeekFrom::Start(0))?;
        Ok(Self { path, file })
    }

    /// At `path`, or what was left there by the last.
    pub(crate) fn at(path: PathBuf) -> Result<Self> {
        Self::with(path, BYTES)
    }

    /// For who writes from its start on: what is written is what this one's place has moved by, which both share (open(2)).
    pub(crate) fn begin(&self) -> Result<File> {
        (&self.file).seek(SeekFrom::Start(0))?;
        Ok(self.file.try_clone()?)
    }

    /// What was written since.
    pub(crate) fn written(&self) -> Result<impl Read> {
        let bytes = (&self.file).stream_position()?;
        Ok(File::open(&self.path)?.take(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, process::Command};

    use super::*;

    #[test]
    fn what_one_wrote_is_read_and_nothing_of_who_wrote_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("output");
        let output = Output::with(path.clone(), 10_000).expect("room");
        assert_eq!(fs::metadata(&path).expect("a file").len(), 10_000);
        let told = |output: &Output| io::read_to_string(output.written().expect("a file")).expect("text");
        for words in ["a longer line", "short"] {
            let mut echo = Command::new("echo");
            echo.arg(words).stdout(output.begin().expect("a file"));
            assert!(echo.status().expect("echo").success());
            assert_eq!(told(&output), format!("{words}\n"));
        }
        let again = Output::with(path.clone(), 10_000).expect("room");
        assert_eq!((fs::metadata(&path).expect("a file").len(), told(&again).len()), (10_000, 0));
        again.begin().expect("a file").write_all(&[b'x'; 20_000]).expect("room");
        assert_eq!(told(&again).len(), 20_000);
    }
}
