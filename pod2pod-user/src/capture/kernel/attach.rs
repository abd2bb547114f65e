//! Loads programs into the kernel and attaches them. Others' programs on the same hook stay in place.

use std::fs::File;

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};

use super::OpenError;

/// Loads the program; the instructions that the verifier went through, unknown before Linux 5.16.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<Option<u32>, OpenError> {
    let program = program(ebpf, name)?;
    program.load().map_err(|cause| OpenError::of_program(name, cause))?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// Attaches a cgroup_skb program to `cgroup`, as a link: it goes with this process.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    name: &'static str,
    cgroup: &File,
    kind: CgroupSkbAttachType,
) -> Result<(), OpenError> {
    // A link, and links are always many to a cgroup: others' programs stay.
    program(ebpf, name)?
        .attach(cgroup, kind, CgroupAttachMode::Single)
        .map(|_| ())
        .map_err(|cause| OpenError::Attach { cause: Box::new(cause) })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSkb, OpenError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut CgroupSkb>::try_from(program).ok())
        .ok_or(OpenError::ObjectMismatch { name })
}
