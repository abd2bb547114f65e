//! The files: a table of entries and its siblings, live in `/proc/net` or saved. What is in a line is not known here.
//!
//! A file that is missing, may not be read, is no such table, or breaks off has an outcome of its own; one that is endless is
//! read up to [`MAX_BYTES`], and one that changes meanwhile gives what it gave.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Once,
};

use super::asked::Asked;
use crate::{
    exit,
    ipvs::{
        kernel::Kernel,
        parse::{
            Damage, Lines, Row,
            connection::Connections,
            stats::{self, Figures, Totals},
        },
        services::{Limits, Services},
    },
    shutdown::Shutdown,
};

/// Bytes of one file that are read at most: four million IPv4 rows, more than are kept.
pub const MAX_BYTES: u64 = 256 << 20;
/// Bytes of a small file (settings, totals) that are read at most; `ip_vs_stats_percpu` of 8192 processors has 512 KiB.
pub const MAX_SMALL_BYTES: u64 = 1 << 20;

/// Where the host's table is: of its first process, which in a container without the host's processes is ours; and our own.
const HOST_PATHS: [&str; 2] = ["/proc/1/net/ip_vs_conn", "/proc/self/net/ip_vs_conn"];

/// Said that the kernel cannot be asked.
static SAID: Once = Once::new();

/// Bytes that are asked for at once. The kernel gives a page of such a table at a time.
const PIECE: usize = 64 * 1024;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing is there.
    #[error("{path}: there is no such file; is the module ip_vs loaded, and this its network namespace?", path = .0.display())]
    Missing(PathBuf),
    /// It may not be read.
    #[error("{path}: may not be read; it needs the right to, or root", path = .0.display())]
    Denied(PathBuf),
    /// It begins otherwise.
    #[error("{path}: no table of IPVS entries: it begins otherwise", path = .0.display())]
    NotATable(PathBuf),
    /// Reading failed.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Broken(PathBuf, io::Error),
}

impl SourceError {
    fn of(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        if error.kind() == io::ErrorKind::NotFound {
            Self::Missing(path)
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied(path)
        } else {
            Self::Broken(path, error)
        }
    }

    /// Whether there is nothing yet.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// How the program exits over it.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Denied(_) => exit::PRIVILEGE,
            Self::Missing(_) | Self::NotATable(_) | Self::Broken(..) => exit::INPUT,
        }
    }
}

/// What a reading was like.
#[derive(Debug, Default)]
pub struct Reading {
    /// Rows that were understood.
    pub rows: u64,
    /// Rows that were not.
    pub damage: Damage,
    /// The rest was not read: the file has more than [`MAX_BYTES`], or broke off with this error.
    pub cut: Option<String>,
}

impl Reading {
    /// Whether all of the file was read and understood.
    pub const fn is_whole(&self) -> bool {
        self.damage.lines == 0 && self.cut.is_none()
    }
}

/// A table of entries and what is beside it.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    /// Asks for the end of a reading.
    end: Option<Shutdown>,
}

impl Source {
    /// The table at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, end: None }
    }

    /// The same, read no further once `shutdown` is requested: a large table takes the kernel seconds.
    #[must_use]
    pub fn until(self, shutdown: &Shutdown) -> Self {
        Self { end: Some(shutdown.clone()), ..self }
    }

    /// The host's own: that of process 1, or ours where that cannot be looked at. In a container with the host's network
    /// both are the host's.
    pub fn of_host() -> Self {
        // Of one's own process more may be seen than of process 1, such as its namespace.
        if is_host() {
            return Self::new(HOST_PATHS[1].into());
        }
        let there = HOST_PATHS.map(PathBuf::from).into_iter().find(|path| path.exists());
        Self::new(there.unwrap_or_else(|| HOST_PATHS[1].into()))
    }

    /// A saved one: a file, or the one in a folder.
    pub fn saved(path: PathBuf) -> Self {
        Self::new(if path.is_dir() { path.join("ip_vs_conn") } else { path })
    }

    /// The table.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands over every line and, if it is one, its row.
    ///
    /// # Errors
    /// It cannot be opened, its first bytes cannot be read, or it is no such table.
    pub fn read(&self, each: &mut impl FnMut(&[u8], Option<&Row<'_>>)) -> Result<Reading, SourceError> {
        let mut connections = Connections::default();
        let mut line = |line: &[u8]| {
            let row = connections.line(line);
            each(line, row.as_ref());
            !connections.is_foreign() && !self.end.as_ref().is_some_and(Shutdown::is_requested)
        };
        let cut = read_lines(&self.path, MAX_BYTES, &mut line);
        match cut {
            _ if connections.is_foreign() => Err(SourceError::NotATable(self.path.clone())),
            Err(error) if !connections.is_table() => Err(error),
            Ok(_) if !connections.is_table() => Err(SourceError::NotATable(self.path.clone())),
            cut => {
                let Connections { rows, damage, .. } = connections;
                let cut = match cut {
                    Ok(Cut::Whole) => None,
                    Ok(Cut::AtLimit) => {
                        Some(format!("{}: the rest past {MAX_BYTES} bytes was not read", self.path.display()))
                    }
                    Err(error) => Some(error.to_string()),
                };
                Ok(Reading { rows, damage, cut })
            }
        }
    }

    /// The services beside it, as many as `limits` have room for; absent if there is no such file, or it is none.
    pub fn services(&self, limits: Limits) -> Option<Services> {
        let mut services = Services::new(limits);
        let path = self.beside("ip_vs");
        read_lines(&path, MAX_BYTES, &mut |line| {
            services.line(line);
            true
        })
        .ok()?;
        if !services.table().is_table() {
            return None;
        }
        // From one page of the file to the next the kernel counts services of all network namespaces, and skips as many of this
        // one (`ip_vs_info_seq_next`; seen on 5.10, 6.1 and 6.12). Those that it skipped are asked for.
        if let Some(mut asked) = Asked::about(&path)
            && let Err(error) = asked.complete(&mut services)
        {
            tracing::debug!(%error, "services cannot be asked for");
        }
        Some(services)
    }

    /// Totals beside it, and those of each processor.
    pub fn totals(&self) -> Option<(Totals, Vec<(u64, Figures)>)> {
        let parsed = |name| stats::parse(small(&self.beside(name))?.as_bytes());
        parsed("ip_vs_stats_percpu").or_else(|| parsed("ip_vs_stats"))
    }

    /// What the kernel is set to: from files of the settings' names beside it, or from `/proc/sys` if it is in `/proc/net`.
    pub fn kernel(&self) -> Kernel {
        let mut kernel = Kernel::default();
        for (name, place) in Kernel::SETTINGS {
            let text = small(&self.beside(name)).or_else(|| small(&self.settings()?.join(name)));
            *place(&mut kernel) = text.and_then(|text| text.trim().parse().ok());
        }
        let release = ["kernel", "osrelease", "../sys/kernel/osrelease"];
        let live = || {
            if self.path.starts_with("/proc") { small(Path::new("/proc/sys/kernel/osrelease")) } else { None }
        };
        let text = release.iter().find_map(|name| small(&self.beside(name))).or_else(live);
        kernel.release = text.and_then(|text| text.split_whitespace().next().map(str::to_owned));
        match Asked::about(&self.path).map(|mut asked| asked.timeouts()) {
            Some(Ok(timeouts)) => kernel.timeouts = timeouts,
            // It is so with every look.
            Some(Err(error)) => SAID.call_once(|| {
                tracing::info!(%error, "time-outs cannot be asked for: taken as the kernel's own");
            }),
            None => tracing::debug!("time-outs are not known: taken as the kernel's own"),
        }
        kernel
    }

    /// Where the live settings of the table's network namespace are; absent if that is not ours, whose settings are all that
    /// `/proc/sys` shows.
    fn settings(&self) -> Option<PathBuf> {
        let of_process = self.path.strip_prefix("/proc").ok().and_then(|rest| rest.parent()?.parent());
        let is_of_process = of_process.is_some_and(|process| process.components().count() == 1);
        if !is_of_process {
            return Some(self.beside("../sys/net/ipv4/vs"));
        }
        // Each network namespace has files of its own there.
        let own = Path::new("/proc/self/net").join(self.path.file_name()?);
        let inode = |path: &Path| path.metadata().ok().map(|metadata| metadata.ino());
        (inode(&own)? == inode(&self.path)?).then(|| "/proc/sys/net/ipv4/vs".into())
    }

    fn beside(&self, name: &str) -> PathBuf {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // `..` of a folder that is a link, as /proc/net is, leads elsewhere.
        match (folder, name.strip_prefix("../")) {
            (Some(folder), Some(name)) => folder.parent().unwrap_or(folder).join(name),
            (Some(folder), None) => folder.join(name),
            (None, _) => PathBuf::from(name),
        }
    }
}

/// Whether this process is in the network namespace of process 1. Each namespace has files of its own.
pub fn is_host() -> bool {
    let inode = |process: &str| {
        Path::new("/proc").join(process).join("net/dev").metadata().ok().map(|file| file.ino())
    };
    inode("1").is_some_and(|first| inode("self") == Some(first))
}

/// Whether a file was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    AtLimit,
}

/// Hands over the lines of a file until `each` wants no more.
fn read_lines(path: &Path, most: u64, each: &mut impl FnMut(&[u8]) -> bool) -> Result<Cut, SourceError> {
    let mut file = File::open(path).map_err(|error| SourceError::of(path, error))?;
    let mut piece = vec![0; PIECE];
    let mut lines = Lines::default();
    let mut left = most;
    let (goes_on, has_line) = (Cell::new(true), Cell::new(false));
    let mut line = |line: &[u8]| {
        has_line.set(true);
        goes_on.set(goes_on.get() && each(line));
    };
    while goes_on.get() {
        // One byte more than may be taken: a file that ends there is whole.
        let room = usize::try_from(left + 1).unwrap_or(PIECE).min(PIECE);
        let length = match file.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => {
                lines.finish(&mut line);
                break;
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SourceError::of(path, error)),
        };
        let taken = length.min(usize::try_from(left).unwrap_or(length));
        lines.push(piece.get(..taken).unwrap_or_default(), &mut line);
        // A first line without an end is no header: no need to read on until there is one.
        if lines.is_endless() && !has_line.get() {
            lines.finish(&mut line);
        }
        if taken < length {
            return Ok(Cut::AtLimit);
        }
        left -= taken as u64;
    }
    Ok(Cut::Whole)
}

/// A small file as text; absent if it is not there, too large or no text.
fn small(path: &Path) -> Option<String> {
    let mut text = String::new();
    let length = File::open(path).ok()?.take(MAX_SMALL_BYTES + 1).read_to_string(&mut text).ok()?;
    (length as u64 <= MAX_SMALL_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_the_end_waits_for_no_more_rows() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/ipvs/6.1/03-tcp-and-udp/ip_vs_conn");
        let read = |ends_after: u64| {
            let shutdown = Shutdown::without_signals().unwrap();
            let mut rows = 0;
            let reading = Source::new(file.into()).until(&shutdown).read(&mut |_, row| {
                rows += u64::from(row.is_some());
                if rows == ends_after {
                    shutdown.request();
                }
            });
            assert_eq!(reading.unwrap().rows, rows);
            rows
        };
        let all = read(u64::MAX);
        assert!(all > 2, "{all} rows are no test");
        assert_eq!((read(1), read(2), read(all)), (1, 2, all));
    }
}
