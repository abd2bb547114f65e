//! What numbers in segments stand for on this machine: names of interfaces, paths of cgroups.
//!
//! Numbers of cgroups are looked up in the whole hierarchy of cgroup v2, which is read once and again whenever a number
//! shows that was not in it: containers come and go. Interfaces are those of the agent's own network namespace.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use hashbrown::{HashMap, HashSet};
use nix::net::if_::if_indextoname;

use crate::{capture::kernel, filter::Places};

/// Numbers of cgroups that are gone, remembered so that each makes us read the hierarchy once. More than end in the time
/// that a connection outlives its cgroup; past it all are forgotten, and each is looked for once more.
pub const MAX_GONE: usize = 1024;

/// Names of this machine's interfaces and cgroups.
#[derive(Debug, Default)]
pub struct Host {
    /// The root of cgroup v2, once it was asked for; absent in it if there is none.
    root: Option<Option<File>>,
    cgroups: HashMap<u64, String>,
    gone: HashSet<u64>,
    /// How often the hierarchy was read.
    readings: u64,
}

impl Places for Host {
    fn interface(&mut self, index: u32) -> Option<String> {
        // Of an index that no interface has it is the empty name.
        if_indextoname(index).ok()?.into_string().ok().filter(|name| !name.is_empty())
    }

    fn cgroup(&mut self, id: u64) -> Option<&str> {
        if !self.cgroups.contains_key(&id) && !self.is_gone(id) {
            self.look_for(id);
        }
        self.known_cgroup(id)
    }
}

impl Host {
    /// The path of a cgroup that was met before.
    pub fn known_cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id).map(String::as_str)
    }

    /// Whether a cgroup was looked for and not found.
    pub fn is_gone(&self, id: u64) -> bool {
        self.gone.contains(&id)
    }

    /// Reads the hierarchy for a cgroup that is not known; remembered as gone if it is not there.
    pub fn look_for(&mut self, id: u64) {
        self.read();
        if !self.cgroups.contains_key(&id) {
            self.forget_gone();
            self.gone.insert(id);
        }
    }

    /// Whether the path of any cgroup is wanted, of those that are there now.
    pub fn has_cgroup(&mut self, is_wanted: impl Fn(&str) -> bool) -> bool {
        self.read();
        self.cgroups.values().any(|path| is_wanted(path))
    }

    /// As if the hierarchy were at `top`.
    #[cfg(test)]
    pub(crate) fn of(top: &Path) -> Self {
        Self { root: Some(File::open(top).ok()), ..Self::default() }
    }

    /// Opens the hierarchy, which may need a right that is not kept: reading it later needs none. Whether it is there.
    pub fn open(&mut self) -> bool {
        let root = self.root.get_or_insert_with(|| {
            let root = kernel::cgroup_root();
            root.inspect_err(|error| tracing::debug!(%error, "no names of cgroups")).ok()
        });
        root.is_some()
    }

    /// Reads all of the hierarchy. A cgroup that goes meanwhile is left out.
    fn read(&mut self) {
        self.readings += 1;
        self.open();
        let Some(Some(root)) = &self.root else { return };
        // Where it is mounted may be hidden from us; the open directory is not.
        let top = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        self.cgroups = hierarchy(&top);
    }

    fn forget_gone(&mut self) {
        if self.gone.len() >= MAX_GONE {
            self.gone.clear();
        }
    }
}

/// Numbers and paths of all directories from `top` on. The number of a cgroup is its directory's inode.
fn hierarchy(top: &Path) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let mut open = vec![(top.to_owned(), "/".to_owned())];
    while let Some((directory, name)) = open.pop() {
        let Ok(metadata) = fs::metadata(&directory) else { continue };
        let inside = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = format!("{}/{}", name.trim_end_matches('/'), entry.file_name().to_string_lossy());
            open.push((entry.path(), path));
        }
        found.insert(metadata.ino(), name);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_name() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(Host::default().interface(index).as_deref(), Some("lo"));
        assert_eq!(Host::default().interface(u32::MAX), None);
    }

    #[test]
    fn a_tree_of_directories_is_read_whole() {
        let top = std::env::temp_dir().join(format!("pod2pod-host-{}", std::process::id()));
        fs::create_dir_all(top.join("a.slice/b.service")).unwrap();
        fs::write(top.join("a.slice/cgroup.procs"), "").unwrap();
        let found = hierarchy(&top);
        let id = |path: &str| fs::metadata(top.join(path)).unwrap().ino();
        assert_eq!(found.get(&id("")).map(String::as_str), Some("/"));
        assert_eq!(found.get(&id("a.slice")).map(String::as_str), Some("/a.slice"));
        assert_eq!(found.get(&id("a.slice/b.service")).map(String::as_str), Some("/a.slice/b.service"));
        assert_eq!(found.len(), 3);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn what_is_gone_is_looked_for_once() {
        // No root, so nothing is found.
        let mut host = Host { root: Some(None), ..Host::default() };
        for id in 0..MAX_GONE as u64 {
            assert_eq!(host.cgroup(id), None);
            assert_eq!(host.cgroup(id), None);
        }
        assert_eq!((host.readings, host.gone.len()), (MAX_GONE as u64, MAX_GONE));
        assert_eq!(host.cgroup(MAX_GONE as u64), None);
        assert_eq!((host.readings, host.gone.len()), (MAX_GONE as u64 + 1, 1));
    }
}
