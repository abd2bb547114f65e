//! Files that were begun before the one that is written: their names, how they are compressed, when they are removed.
//!
//! One thread looks after them, so that nobody waits for it; it begins with what it finds, so that nothing has to be remembered.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::write::GzEncoder;

use super::{Compression, Config, folder};
use crate::record::number::Clock;

/// What a file is called while it is being compressed.
const UNFINISHED: &str = "tmp";
/// Form of the time in a name, 9 being any digit: names sort by their times.
const STAMP: &[u8] = b"99999999T999999.999999999Z";

/// Where the file at `path` is kept that was ended at `now`: its name, and the time.
pub(super) fn name(path: &Path, now: SystemTime) -> PathBuf {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut time = Vec::new();
    Clock::default().push_time(&mut time, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    time.retain(|byte| !b"-:".contains(byte));
    with_extension(path, &String::from_utf8_lossy(&time))
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Wakes the thread. It ends when this goes.
pub(super) struct Keeper(SyncSender<()>);

impl Keeper {
    pub(super) fn start(config: &Config) -> io::Result<Self> {
        // One look deals with everything that is there.
        let (wake, woken) = sync_channel(1);
        let config = config.clone();
        thread::Builder::new().name("older-files".to_owned()).spawn(move || run(&config, &woken))?;
        Ok(Self(wake))
    }

    /// A file was begun.
    pub(super) fn look(&self) {
        let _ = self.0.try_send(());
    }
}

fn run(config: &Config, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(error) = look(config) {
            let file = config.path.display();
            tracing::warn!(%file, %error, "older files stay as they are until the next one is begun");
        }
    }
}

/// Removes what is too many, and compresses the rest.
pub(super) fn look(config: &Config) -> io::Result<()> {
    let found = find(&config.path)?;
    let unfinished = found.iter().filter(|older| older.extension == UNFINISHED);
    unfinished.for_each(|older| drop(fs::remove_file(&older.path)));
    let mut whole: Vec<_> = found.iter().filter(|older| older.extension != UNFINISHED).collect();
    let kept = usize::try_from(config.max_files.saturating_sub(1)).unwrap_or(usize::MAX);
    let surplus = whole.drain(..whole.len().saturating_sub(kept));
    surplus.for_each(|older| drop(fs::remove_file(&older.path)));
    let extension = match config.compression {
        Compression::None => return Ok(()),
        Compression::Gzip => "gz",
        Compression::Zstd => "zst",
    };
    whole.retain(|older| older.extension.is_empty());
    whole.iter().try_for_each(|older| squeeze(config, &older.path, extension))
}

#[derive(Debug)]
struct Older {
    path: PathBuf,
    /// Behind the time.
    extension: String,
}

/// Those of `path`, the oldest first.
fn find(path: &Path) -> io::Result<Vec<Older>> {
    let prefix = with_extension(Path::new(path.file_name().unwrap_or_default()), "");
    let prefix = prefix.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.as_encoded_bytes().strip_prefix(prefix).unwrap_or_default();
        let Some((stamp, extension)) = stamp.split_at_checked(STAMP.len()) else { continue };
        let fits = stamp.iter().zip(STAMP).all(|(byte, form)| match form {
            b'9' => byte.is_ascii_digit(),
            other => byte == other,
        });
        let extension = match extension {
            b"" => "",
            b".gz" => "gz",
            b".zst" => "zst",
            b".tmp" => UNFINISHED,
            _ => continue,
        };
        if fits {
            found.push(Older { path: entry.path(), extension: extension.to_owned() });
        }
    }
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Puts a compressed file in the place of `path`; it is whole on disk before the other one goes.
fn squeeze(config: &Config, path: &Path, extension: &str) -> io::Result<()> {
    let unfinished = with_extension(path, UNFINISHED);
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(config.mode).to_owned();
    let result = File::open(path).and_then(|source| {
        let target = options.open(&unfinished)?;
        match config.compression {
            Compression::None => {}
            Compression::Gzip => gzip(source, &target)?,
            Compression::Zstd => zstd(source, &target)?,
        }
        target.sync_all()?;
        fs::rename(&unfinished, with_extension(path, extension))?;
        fs::remove_file(path)
    });
    if result.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    result
}

fn gzip(mut source: File, target: &File) -> io::Result<()> {
    let mut encoder = GzEncoder::new(target, flate2::Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish().map(drop)
}

fn zstd(source: File, target: &File) -> io::Result<()> {
    zstd::stream::copy_encode(source, target, zstd::DEFAULT_COMPRESSION_LEVEL)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::sinks::file::{DEFAULT_MODE, Durability};

    fn config(folder: &Path, compression: Compression) -> Config {
        Config {
            path: folder.join("f"),
            max_file_bytes: 1,
            max_file_age: None,
            max_files: 3,
            compression,
            durability: Durability::Never,
            mode: DEFAULT_MODE,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn as_many_as_there_may_be_and_one_past() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), Compression::None);
        // Not ours: another's time, another's name.
        let others = ["f.1", "f.20261123T035400.123456789Z.old", "g.20261123T035400.123456789Z"];
        for other in others {
            fs::write(folder.path().join(other), "").unwrap();
        }
        fs::write(folder.path().join("f.20261123T035400.123456789Z.tmp"), "").unwrap();
        for seconds in 0..3 {
            fs::write(name(&config.path, UNIX_EPOCH + Duration::from_secs(seconds)), "").unwrap();
            look(&config).unwrap();
        }
        let kept = ["f.1", "f.19700101T000001.000000000Z", "f.19700101T000002.000000000Z"];
        assert_eq!(names(folder.path()), [&kept[..], &others[1..]].concat());
        look(&Config { max_files: 1, ..config }).unwrap();
        assert_eq!(names(folder.path()), others);
    }

    #[test]
    fn a_compressed_file_is_the_same_and_takes_the_place_of_the_other() {
        let text = "0123456789abcdef\n".repeat(100_000);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let folder = tempfile::tempdir().unwrap();
            let config = config(folder.path(), compression);
            let path = name(&config.path, UNIX_EPOCH);
            fs::write(&path, &text).unwrap();
            look(&config).unwrap();
            let names = names(folder.path());
            let [name] = &names[..] else { panic!("{names:?}") };
            let bytes = fs::read(folder.path().join(name)).unwrap();
            let mut read = String::new();
            match name.rsplit('.').next().unwrap() {
                "gz" => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut read).unwrap(),
                "zst" => {
                    let mut decoder = ruzstd::decoding::StreamingDecoder::new(&bytes[..]).unwrap();
                    decoder.read_to_string(&mut read).unwrap()
                }
                other => panic!("{other}"),
            };
            assert!(read == text && bytes.len() < text.len() / 10);
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, DEFAULT_MODE);
        }
    }

    #[test]
    fn what_cannot_be_compressed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = name(&folder.path().join("f"), UNIX_EPOCH);
        // It can be opened, and not be read.
        fs::create_dir(&path).unwrap();
        for compression in [Compression::Gzip, Compression::Zstd] {
            assert!(look(&config(folder.path(), compression)).is_err());
            assert_eq!(names(folder.path()), ["f.19700101T000000.000000000Z"]);
        }
    }

    /// Every write fails as on a disk without room.
    #[test]
    fn a_full_disk_is_an_error_of_either_kind() {
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), "a".repeat(100_000)).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        for squeeze in [gzip, zstd] {
            let error = squeeze(File::open(source.path()).unwrap(), &full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
