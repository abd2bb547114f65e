//! Attaches the tc programs to an interface: by tcx, whose links go with this process, or by clsact where the kernel has
//! no tcx (before Linux 6.6). Others' programs at the same hooks stay in place, and run.

use std::io;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
    },
};
use nix::net::if_::{if_indextoname, if_nametoindex};
use pod2pod_common::names;

use super::{
    OpenError,
    attach::insist,
    config::TcWay,
    interfaces::View,
    interfaces_socket::Questions,
    tc_filter::{Filter, Hook, add_discipline, remove_empty_discipline, remove_stale},
};

/// An interface that is renamed all the time is given up.
const RENAME_TRIES: u32 = 3;

/// The two programs, loaded.
pub(super) struct TcPrograms {
    ebpf: Ebpf,
    way: TcWay,
    /// Filters of killed agents that were taken away.
    pub(super) stale_removed: u64,
}

/// The programs on one interface.
pub(super) struct Attached {
    interface: u32,
    hooks: [Holding; 2],
    discipline_is_ours: bool,
}

/// What keeps a program at a hook.
enum Holding {
    /// Detaches when dropped.
    Tcx {
        _link: SchedClassifierLink,
    },
    Clsact(Filter),
}

impl TcPrograms {
    /// Takes over the loaded programs of `ebpf`.
    pub(super) const fn new(ebpf: Ebpf, way: TcWay) -> Self {
        Self { ebpf, way, stale_removed: 0 }
    }

    /// Whether filters are what keeps the programs at interfaces, which outlive an agent.
    pub(super) fn uses_filters(&self) -> bool {
        self.way == TcWay::Clsact
    }

    /// Attaches both programs so that each sees its direction of the end that `view` says.
    pub(super) fn attach(
        &mut self,
        questions: &mut Questions,
        interface: u32,
        view: View,
    ) -> io::Result<Attached> {
        // What a pod behind the interface sends comes in here.
        let (at_ingress, at_egress) = match view {
            View::Behind => (names::PROGRAM_TC_EGRESS, names::PROGRAM_TC_INGRESS),
            View::Here | View::Path => (names::PROGRAM_TC_INGRESS, names::PROGRAM_TC_EGRESS),
        };
        if self.way != TcWay::Clsact {
            let tcx = self
                .attach_tcx(interface, Hook::Egress, at_egress)
                .and_then(|egress| Ok([self.attach_tcx(interface, Hook::Ingress, at_ingress)?, egress]));
            match tcx {
                Ok(hooks) => return Ok(Attached { interface, hooks, discipline_is_ours: false }),
                // The kernel knows no such attach type (kernel/bpf/syscall.c).
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.way = TcWay::Clsact,
                Err(error) => return Err(error),
            }
        }
        let discipline_is_ours = add_discipline(questions, interface)?;
        self.remove_stale(questions, interface);
        let egress = self.attach_clsact(questions, interface, Hook::Egress, at_egress)?;
        match self.attach_clsact(questions, interface, Hook::Ingress, at_ingress) {
            Ok(ingress) => {
                let hooks = [Holding::Clsact(ingress), Holding::Clsact(egress)];
                Ok(Attached { interface, hooks, discipline_is_ours })
            }
            Err(error) => {
                egress.remove(questions);
                Err(error)
            }
        }
    }

    /// Takes away what killed agents left on an interface. With tcx nothing is left, but an older kernel's way may have
    /// been chosen.
    pub(super) fn remove_stale(&mut self, questions: &mut Questions, interface: u32) {
        if self.way == TcWay::Clsact {
            let own = [names::PROGRAM_TC_INGRESS, names::PROGRAM_TC_EGRESS]
                .map(|name| program(&mut self.ebpf, name)?.info().ok().map(|info| info.id()));
            let own: Vec<u32> = own.into_iter().flatten().collect();
            self.stale_removed += remove_stale(questions, interface, &own);
        }
    }

    /// Before all others, so that one that ends the chain does not hide packets.
    fn attach_tcx(&mut self, interface: u32, hook: Hook, name: &'static str) -> io::Result<Holding> {
        let program = program(&mut self.ebpf, name).ok_or(io::ErrorKind::NotFound)?;
        let kind = match hook {
            Hook::Ingress => TcAttachType::Ingress,
            Hook::Egress => TcAttachType::Egress,
        };
        for _ in 0..RENAME_TRIES {
            let current = if_indextoname(interface)?;
            let current = current.to_str().map_err(|_| io::ErrorKind::InvalidData)?;
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let link = program.attach_with_options(current, kind, options).map_err(os_error)?;
            let link = program.take_link(link).map_err(os_error)?;
            // aya asks for a name, and the name may have gone over to another interface.
            if if_nametoindex(current) == Ok(interface) {
                return Ok(Holding::Tcx { _link: link });
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn attach_clsact(
        &mut self,
        questions: &mut Questions,
        interface: u32,
        hook: Hook,
        name: &'static str,
    ) -> io::Result<Filter> {
        let program = program(&mut self.ebpf, name).ok_or(io::ErrorKind::NotFound)?;
        Filter::add(questions, interface, hook, program.fd().map_err(os_error)?, name)
    }
}

impl Attached {
    /// Takes the programs off. Needless where the interface is gone.
    pub(super) fn detach(self, questions: &mut Questions) {
        let mut clsact = false;
        for holding in &self.hooks {
            if let Holding::Clsact(filter) = holding {
                filter.remove(questions);
                clsact = true;
            }
        }
        if clsact && self.discipline_is_ours {
            remove_empty_discipline(questions, self.interface);
        }
    }
}

/// Loads a program; the instructions that the verifier went through, unknown before Linux 5.16.
pub(super) fn load_tc(ebpf: &mut Ebpf, name: &'static str) -> Result<Option<u32>, OpenError> {
    let program = program(ebpf, name).ok_or(OpenError::ObjectMismatch { name })?;
    insist(|| program.load()).map_err(|cause| OpenError::of_program(name, cause))?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Option<&'a mut SchedClassifier> {
    ebpf.program_mut(name).and_then(|program| <&mut SchedClassifier>::try_from(program).ok())
}

/// The system's error in what aya says.
fn os_error(error: ProgramError) -> io::Error {
    let number = if let ProgramError::SyscallError(call) = &error {
        call.io_error.raw_os_error()
    } else if let ProgramError::TcError(TcError::IoError(cause)) = &error {
        cause.raw_os_error()
    } else {
        None
    };
    number.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
