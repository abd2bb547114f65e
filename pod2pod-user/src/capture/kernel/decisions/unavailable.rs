//! Why the decisions of IPVS cannot be followed here: a sentence for each reason.

use std::{io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};

use super::super::OpenError;
use crate::ipvs::exact::{btf::BtfError, layout::Unfit};

/// Exact mode is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// It may be, later.
    #[error("the module ip_vs is not loaded")]
    NotLoaded,
    /// The build script found no object.
    #[error(
        "this binary was built without the eBPF object of IPVS; `cargo xtask setup` once, then `cargo xtask build`, puts it in"
    )]
    NoObject,
    /// The kernel was built without.
    #[error("this kernel has no kprobes (CONFIG_KPROBE_EVENTS, CONFIG_BPF_EVENTS)")]
    NoProbes,
    /// The kernel was built without.
    #[error("this kernel does not describe its types (no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF)")]
    NoTypes,
    /// The kernel was built without, or is older than 5.11.
    #[error(
        "this kernel does not describe the types of its modules (no /sys/kernel/btf/ip_vs: Linux 5.11, \
         CONFIG_DEBUG_INFO_BTF_MODULES)"
    )]
    NoModuleTypes,
    /// The description of types.
    #[error("the types of this kernel in {} cannot be understood: {cause}", folder.display())]
    Damaged {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong.
        #[source]
        cause: BtfError,
    },
    /// The same.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The kernel is not as the programs need it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Rights, or the kernel's age.
    #[error(transparent)]
    Refused(#[from] OpenError),
    /// The kernel refused a map.
    #[error("the eBPF object of IPVS cannot be loaded: {cause}")]
    Load {
        /// What aya says.
        #[source]
        cause: Box<EbpfError>,
    },
    /// The attach.
    #[error("no probe can be put on {function}: {cause}")]
    Attach {
        /// The function.
        function: &'static str,
        /// What aya says.
        #[source]
        cause: Box<ProgramError>,
    },
    /// The embedded object does not hold what this program expects.
    #[error("the embedded eBPF object of IPVS has no {name}: rebuild with `cargo xtask build`")]
    ObjectMismatch {
        /// The program.
        name: &'static str,
    },
}

impl Unavailable {
    /// Whether it is enough to wait.
    pub const fn may_come(&self) -> bool {
        matches!(self, Self::NotLoaded)
    }

    /// Sorts what aya says of a program that was not loaded.
    pub(super) fn of_program(program: &'static str, cause: ProgramError) -> Self {
        Self::Refused(OpenError::of_program(program, cause))
    }
}
