//! Where the programs are attached: chosen, loaded, attached. Others' programs on the same hooks stay in place.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::Map,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, cgroup_skb::CgroupSkbLink},
};
use pod2pod_common::{
    flow::{SCOPE_COOKIE, SCOPE_INTERFACE},
    names,
};

use super::{
    Capture, Config, OpenError, SourceChoice, cgroup, preflight,
    tc::{TcPrograms, load_tc},
    tc_follow::Follower,
};
use crate::rights::Feature;

/// Times that a program is given to a verifier that was interrupted, as libbpf does.
const LOAD_TRIES: u32 = 5;

/// A place where packets are met.
pub(super) enum Place {
    /// The sockets of a cgroup and those below it; its path is for people.
    Cgroup(File, PathBuf),
    /// Interfaces of this network namespace.
    Interfaces,
}

/// What keeps the programs at their hooks.
pub(super) enum Attachment {
    /// Nothing yet: loaded, with all that aya read in the object, which is megabytes.
    Loaded(Ebpf),
    /// The programs at a cgroup, and maps of theirs that only they use: what they take is ours.
    Cgroup { _programs: [AtCgroup; 2], _maps: Vec<Map> },
    /// The programs on interfaces.
    Interfaces(Follower),
}

/// A program at its cgroup.
pub(super) struct AtCgroup {
    /// Detaches when dropped.
    _link: CgroupSkbLink,
    /// By which the kernel tells how long it ran (fdinfo of a program, kernel/bpf/syscall.c).
    _program: OwnedFd,
}

impl Capture {
    /// Loads and attaches. Packets are told from here on, and as long as [`Self::beat`] is called. Says in one log line
    /// where it watches, and why there.
    ///
    /// # Errors
    /// Something is missing; the error says what, and what to do.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        const CHOSEN: &str = "capture.source says so";
        preflight::check(Feature::Capture)?;
        let (source, reason, opened) = match config.source {
            SourceChoice::Cgroup => ("cgroup", CHOSEN.to_owned(), Self::open_cgroup(config)?),
            SourceChoice::Tc => ("tc", CHOSEN.to_owned(), Self::open_at(config, Place::Interfaces)?),
            SourceChoice::Auto if !config.interfaces.is_empty() => {
                let reason = "capture.interfaces names interfaces".to_owned();
                ("tc", reason, Self::open_at(config, Place::Interfaces)?)
            }
            SourceChoice::Auto => match Self::open_cgroup(config) {
                Ok(opened) => ("cgroup", "it sees each socket of this machine once".to_owned(), opened),
                Err(refused) if config.cgroup.is_none() && refused.is_of_cgroup() => {
                    // More is unseen there than the user may expect.
                    let opened = Self::open_at(config, Place::Interfaces)?;
                    let watching = opened.description();
                    tracing::warn!(source = "tc", watching, reason = %refused, "watching");
                    return Ok(opened);
                }
                Err(error) => return Err(error),
            },
        };
        tracing::info!(source, watching = opened.description(), reason, "watching");
        Ok(opened)
    }

    fn open_cgroup(config: &Config) -> Result<Self, OpenError> {
        let (directory, path) = cgroup::open(config.cgroup.as_deref())?;
        Self::open_at(config, Place::Cgroup(directory, path))
    }

    /// Attaches the loaded programs, and says where for people.
    pub(super) fn attach(mut self, config: &Config, place: &Place) -> Result<Self, OpenError> {
        let Attachment::Loaded(mut ebpf) = self.attachment else { return Ok(self) };
        let scope = scope_name(self.scope_kind);
        match place {
            Place::Cgroup(directory, path) => {
                let (ingress, egress) = (CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress);
                let _programs = [
                    attach(&mut ebpf, names::PROGRAM_CGROUP_INGRESS, directory, ingress)?,
                    attach(&mut ebpf, names::PROGRAM_CGROUP_EGRESS, directory, egress)?,
                ];
                let left: Vec<String> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
                let _maps = left.iter().filter_map(|name| ebpf.take_map(name)).collect();
                self.attachment = Attachment::Cgroup { _programs, _maps };
                self.description = format!("{} by {scope}", path.display());
            }
            Place::Interfaces => {
                let programs = TcPrograms::new(ebpf, config.tc_way);
                let follower = Follower::start(programs, &config.interfaces)
                    .map_err(|cause| OpenError::Interfaces { cause })?;
                self.description = format!("{} by {scope}", follower.description);
                for reader in &mut self.readers {
                    reader.paths = Some(follower.paths());
                }
                self.attachment = Attachment::Interfaces(follower);
            }
        }
        Ok(self)
    }
}

impl Place {
    /// What tells network worlds apart there.
    pub(super) fn scope_kind(&self, config: &Config) -> u32 {
        match self {
            Self::Cgroup(..) => cgroup::choose_scope(config.scope),
            Self::Interfaces => SCOPE_INTERFACE,
        }
    }

    /// Loads the ingress and the egress program; the instructions that the verifier went through for each, unknown before
    /// Linux 5.16.
    pub(super) fn load(&self, ebpf: &mut Ebpf) -> Result<[Option<u32>; 2], OpenError> {
        Ok(match self {
            Self::Cgroup(..) => {
                [load(ebpf, names::PROGRAM_CGROUP_INGRESS)?, load(ebpf, names::PROGRAM_CGROUP_EGRESS)?]
            }
            Self::Interfaces => {
                [load_tc(ebpf, names::PROGRAM_TC_INGRESS)?, load_tc(ebpf, names::PROGRAM_TC_EGRESS)?]
            }
        })
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<Option<u32>, OpenError> {
    let program = program(ebpf, name)?;
    insist(|| program.load()).map_err(|cause| OpenError::of_program(name, cause))?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// Loads again what the kernel broke off: its verifier gives up when the thread has a signal to look at
/// (kernel/bpf/verifier.c), which says nothing of the program.
pub(super) fn insist(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..LOAD_TRIES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
    load()
}

/// Attaches a cgroup_skb program to `cgroup`, as a link: it goes with this process.
fn attach(
    ebpf: &mut Ebpf,
    name: &'static str,
    cgroup: &File,
    kind: CgroupSkbAttachType,
) -> Result<AtCgroup, OpenError> {
    let program = program(ebpf, name)?;
    let mut attach = || {
        // A link, and links are always many to a cgroup: others' programs stay.
        let link = program.attach(cgroup, kind, CgroupAttachMode::Single)?;
        let (_link, _program) = (program.take_link(link)?, program.fd()?.as_fd().try_clone_to_owned()?);
        Ok(AtCgroup { _link, _program })
    };
    attach().map_err(|cause: ProgramError| OpenError::Attach { cause: Box::new(cause) })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSkb, OpenError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut CgroupSkb>::try_from(program).ok())
        .ok_or(OpenError::ObjectMismatch { name })
}

const fn scope_name(scope_kind: u32) -> &'static str {
    match scope_kind {
        SCOPE_COOKIE => "socket cookie",
        SCOPE_INTERFACE => "interface",
        _ => "cgroup id",
    }
}
