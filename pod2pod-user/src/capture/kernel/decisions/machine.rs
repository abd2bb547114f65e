//! What a machine offers to the probes: the module, its functions and the description of its types. Reads files below a root, and
//! changes nothing.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use pod2pod_common::decision::Layout;

use super::Unavailable;
use crate::ipvs::{
    exact::{
        btf::{MAX_BTF_BYTES, Types},
        layout::{self, PROBES},
    },
    parse::Lines,
};

/// The module's name, also as a part of paths.
const MODULE: &str = "ip_vs";
/// Bytes that are asked for at once.
const PIECE: usize = 64 * 1024;

/// A machine's files.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

/// Whom the probes go to.
#[derive(Debug)]
pub(super) struct Target {
    /// Which loading of the module it is.
    pub(super) module: u64,
    /// Where fields are.
    pub(super) layout: Layout,
    /// Programs with their functions, in the order in which they are to be attached.
    pub(super) functions: Vec<(&'static str, &'static str)>,
}

impl Machine {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Which loading of the module there is: the inode of its directory, which is another with each.
    pub(super) fn module(&self) -> Option<u64> {
        fs::metadata(self.module_directory()).ok().map(|directory| directory.ino())
    }

    fn module_directory(&self) -> PathBuf {
        self.root.join("sys/module").join(MODULE)
    }

    /// Finds out whether the probes fit.
    ///
    /// # Errors
    /// The first thing that they lack.
    pub(super) fn target(&self) -> Result<Target, Unavailable> {
        let module = self.module().ok_or(Unavailable::NotLoaded)?;
        let pmu = self.root.join("sys/bus/event_source/devices/kprobe/type");
        if !pmu.exists() {
            return Err(Unavailable::NoProbes);
        }
        let folder = self.root.join("sys/kernel/btf");
        let kernel = read(&folder.join("vmlinux"))?.ok_or(Unavailable::NoTypes)?;
        let own = read(&folder.join(MODULE))?;
        // A module that is built in has no such file, and its types are the kernel's.
        if own.is_none() && self.module_directory().join("initstate").exists() {
            return Err(Unavailable::NoModuleTypes);
        }
        let parsed = |bytes, base| {
            Types::parse(bytes, base).map_err(|cause| Unavailable::Damaged { folder: folder.clone(), cause })
        };
        let base = parsed(&kernel, None)?;
        let split = own.as_deref().map(|own| parsed(own, Some(&base))).transpose()?;
        let types = split.as_ref().unwrap_or(&base);
        let layout = layout::fields(types)?;
        let symbols = self.symbols(own.is_some());
        let is_there = |name: &str| symbols.as_ref().is_none_or(|symbols| symbols.contains(name));
        let mut functions = Vec::new();
        for probe in &PROBES {
            functions.push((probe.program, layout::function(probe, types, is_there)?));
        }
        Ok(Target { module, layout, functions })
    }

    /// Those of the functions wanted that are in the kernel's table of symbols, as the module's own if `is_module`, else the kernel's;
    /// absent if that cannot be read. Others may have functions of the same name.
    fn symbols(&self, is_module: bool) -> Option<HashSet<&'static str>> {
        let wanted: Vec<&'static str> = PROBES.iter().flat_map(|probe| probe.functions).copied().collect();
        let mut found = HashSet::new();
        let mut file = File::open(self.root.join("proc/kallsyms")).ok()?;
        let mut lines = Lines::default();
        let owner = if is_module { format!("[{MODULE}]") } else { String::new() };
        // address, kind, name, and the module in brackets
        let mut each = |line: &[u8]| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(2);
            let (name, of) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if of == owner.as_bytes() {
                found.extend(wanted.iter().find(|wanted| wanted.as_bytes() == name));
            }
        };
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => lines.push(piece.get(..length).unwrap_or_default(), &mut each),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        lines.finish(&mut each);
        Some(found)
    }
}

/// The bytes of a file; none if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Unavailable> {
    let failed = |cause| Unavailable::Unreadable { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    // One more than is read, so that a larger file is told as such.
    file.take(MAX_BTF_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}
