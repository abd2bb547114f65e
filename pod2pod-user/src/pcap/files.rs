//! The files: one that is written, older ones behind it, bounded in size and in number.
//!
//! Nobody but their owner can read them: each is created anew with mode 0600, never opened if it is there already, and no link
//! is followed. What is there at the start under the same name is kept as an older one. Knows nothing of what is written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, eaccess};

/// Owner only.
const MODE: u32 = 0o600;

/// The files.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    max_bytes: u64,
    max_files: u64,
    /// What each begins with.
    begin: Vec<u8>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    size: u64,
}

impl Files {
    /// Creates the first one.
    ///
    /// # Errors
    /// It cannot be created. That there is no room for what it begins with is none: there may be later.
    pub fn open(path: &Path, max_bytes: u64, max_files: u64, begin: Vec<u8>) -> io::Result<Self> {
        let mut files = Self { path: path.to_owned(), max_bytes, max_files, begin, current: None };
        match files.rotate() {
            Err(error) if !is_full(&error) => Err(error),
            Ok(()) | Err(_) => Ok(files),
        }
    }

    /// Appends `bytes`, which are whole, to the current file, or to the next one.
    ///
    /// # Errors
    /// They could not be written whole: then nothing of them is in the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let has_room = |current: &Current| current.size + bytes.len() as u64 <= self.max_bytes;
        if !self.current.as_ref().is_some_and(has_room) {
            self.rotate()?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let written = current.append(bytes);
        if written.is_err() && current.file.set_len(current.size).is_err() {
            // What was torn ends this file.
            self.current = None;
        }
        written
    }

    /// Moves the files one further, the last one out, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        self.current = None;
        if fs::symlink_metadata(&self.path).is_ok() {
            for number in (1..self.max_files.saturating_sub(1)).rev() {
                ignore_missing(fs::rename(self.older(number), self.older(number + 1)))?;
            }
            if self.max_files > 1 {
                fs::rename(&self.path, self.older(1))?;
            } else {
                fs::remove_file(&self.path)?;
            }
        }
        let options = OpenOptions::new().append(true).create_new(true).mode(MODE).to_owned();
        let file = options.open(&self.path)?;
        let mut current = Current { file, size: 0 };
        if let Err(error) = current.append(&self.begin) {
            // An empty one must not push out another at the next attempt.
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        self.current = Some(current);
        Ok(())
    }

    fn older(&self, number: u64) -> PathBuf {
        older(&self.path, number)
    }
}

/// The file that was begun `number` files before the one at `path`.
pub fn older(path: &Path, number: u64) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(format!(".{number}"));
    older.into()
}

impl Current {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Why a path cannot be written to, as far as can be known without writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// Something else than a file is there.
    #[error("what is there is no regular file")]
    NoFile,
    /// The folder.
    #[error("its folder cannot be written to: {0}")]
    Folder(nix::errno::Errno),
}

/// Looks whether files can be created at `path`.
///
/// # Errors
/// They cannot.
pub fn check_path(path: &Path) -> Result<(), Unwritable> {
    let is_other = fs::symlink_metadata(path).is_ok_and(|there| !there.is_file());
    if is_other || path.file_name().is_none() {
        return Err(Unwritable::NoFile);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    check_folder(folder).map_err(Unwritable::Folder)
}

/// Looks whether files can be created in `folder`.
///
/// # Errors
/// They cannot.
pub fn check_folder(folder: &Path) -> Result<(), nix::errno::Errno> {
    // With a slash behind it, a file is no folder.
    eaccess(&folder.join(""), AccessFlags::W_OK | AccessFlags::X_OK)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// There is no room: on the disk, in a quota, under a limit of the process.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pod2pod-files-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("f")
        }

        /// Names and contents of everything in it.
        fn holds(&self) -> Vec<(String, String)> {
            let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
            let mut held: Vec<_> = entries
                .map(|entry| {
                    let content = fs::read_to_string(entry.path()).unwrap();
                    (entry.file_name().into_string().unwrap(), content)
                })
                .collect();
            held.sort_unstable();
            held
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn check(folder: &Folder, expected: &[(&str, &str)]) {
        let held = folder.holds();
        let held: Vec<_> = held.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        assert_eq!(held, expected);
    }

    fn open(folder: &Folder, max_bytes: u64, max_files: u64) -> Files {
        Files::open(&folder.file(), max_bytes, max_files, b"<".to_vec()).unwrap()
    }

    #[test]
    fn a_file_at_its_size_and_one_past() {
        let folder = Folder::new("size");
        let mut files = open(&folder, 5, 3);
        files.write(b"ab").unwrap();
        files.write(b"cd").unwrap();
        check(&folder, &[("f", "<abcd")]);
        files.write(b"e").unwrap();
        check(&folder, &[("f", "<e"), ("f.1", "<abcd")]);
    }

    #[test]
    fn so_many_files_and_one_more() {
        let folder = Folder::new("count");
        let mut files = open(&folder, 2, 3);
        for byte in ["a", "b", "c"] {
            files.write(byte.as_bytes()).unwrap();
        }
        check(&folder, &[("f", "<c"), ("f.1", "<b"), ("f.2", "<a")]);
        files.write(b"d").unwrap();
        check(&folder, &[("f", "<d"), ("f.1", "<c"), ("f.2", "<b")]);
        let mut files = open(&folder, 2, 1);
        files.write(b"e").unwrap();
        files.write(b"g").unwrap();
        check(&folder, &[("f", "<g"), ("f.1", "<c"), ("f.2", "<b")]);
    }

    #[test]
    fn what_was_there_is_kept_as_an_older_one() {
        let folder = Folder::new("before");
        fs::write(folder.file(), "before").unwrap();
        open(&folder, 100, 2);
        check(&folder, &[("f", "<"), ("f.1", "before")]);
    }

    #[test]
    fn only_the_owner_may_read_and_no_link_is_followed() {
        let folder = Folder::new("mode");
        let aim = folder.0.join("aim");
        fs::write(&aim, "").unwrap();
        symlink(&aim, folder.file()).unwrap();
        assert_eq!(check_path(&folder.file()), Err(Unwritable::NoFile));
        let mut files = open(&folder, 2, 2);
        files.write(b"a").unwrap();
        assert_eq!(fs::read_to_string(&aim).unwrap(), "");
        let mode = fs::symlink_metadata(folder.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        // The next one too, though somebody has put something in its place meanwhile.
        fs::remove_file(folder.file()).unwrap();
        symlink(&aim, folder.file()).unwrap();
        files.write(b"b").unwrap();
        assert_eq!(fs::read_to_string(&aim).unwrap(), "");
        assert_eq!(fs::symlink_metadata(folder.file()).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_folder_that_comes_back_is_used_again() {
        let folder = Folder::new("gone");
        let inner = folder.0.join("inner");
        fs::create_dir(&inner).unwrap();
        let mut files = Files::open(&inner.join("f"), 2, 2, b"<".to_vec()).unwrap();
        files.write(b"a").unwrap();
        fs::remove_dir_all(&inner).unwrap();
        assert!(files.write(b"b").is_err());
        fs::create_dir(&inner).unwrap();
        files.write(b"c").unwrap();
        assert_eq!(fs::read_to_string(inner.join("f")).unwrap(), "<c");
    }

    #[test]
    fn paths_are_looked_at_before() {
        let folder = Folder::new("path");
        assert_eq!(check_path(&folder.file()), Ok(()));
        fs::write(folder.file(), "").unwrap();
        assert_eq!(check_path(&folder.file()), Ok(()));
        assert_eq!(check_path(&folder.0), Err(Unwritable::NoFile));
        assert_eq!(check_path(Path::new("/dev/null")), Err(Unwritable::NoFile));
        assert_eq!(check_path(Path::new("..")), Err(Unwritable::NoFile));
        let within = |name: &str| check_path(&folder.0.join(name).join("f"));
        assert_eq!(within("missing"), Err(Unwritable::Folder(nix::errno::Errno::ENOENT)));
        assert_eq!(within("f"), Err(Unwritable::Folder(nix::errno::Errno::ENOTDIR)));
    }
}
