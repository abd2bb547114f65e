//! Why a kernel cannot be followed: every reason, on a machine made of files. None of these gets as far as the running kernel.

use std::{fs, path::Path};

use pod2pod_user::{
    capture::kernel::{Decisions, DecisionsConfig, Unavailable},
    ipvs::exact::layout::{PROBES, Unfit},
};
use support::btf::{Btf, kernel};
use tempfile::TempDir;

/// A machine, made step by step.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn refusal(&self) -> Unavailable {
        let config = DecisionsConfig { root: self.root().to_owned(), ..DecisionsConfig::default() };
        match Decisions::open(&config) {
            Ok(_) => panic!("it was followed"),
            Err(reason) => reason,
        }
    }
}

/// Lines of `kallsyms`, with all functions that the probes go to but `without`, which another module and the kernel have.
fn symbols(without: &str) -> String {
    let functions = PROBES.iter().map(|probe| probe.functions[0]).filter(|name| *name != without);
    let mut lines = "0000000000000000 T _text\n0000000000000000 t ip_vs_leave.cold\t[ip_vs]\n".to_owned();
    lines.push_str(&format!("0000000000000000 t {without}\n0000000000000000 t {without}\t[another]\n"));
    functions.for_each(|name| lines.push_str(&format!("0000000000000000 t {name}\t[ip_vs]\n")));
    lines
}

#[test]
fn each_reason_is_a_sentence() {
    let (base, module) = kernel();
    let machine = Machine::new();
    let said = |expected: &str| {
        let reason = machine.refusal();
        let text = reason.to_string();
        assert!(text.contains(expected), "{text}");
        assert_eq!(reason.may_come(), matches!(reason, Unavailable::NotLoaded), "{text}");
        reason
    };
    said("ip_vs is not loaded");
    machine.put("sys/module/ip_vs/initstate", "live\n");
    said("no kprobes");
    machine.put("sys/bus/event_source/devices/kprobe/type", "8\n");
    said("no /sys/kernel/btf/vmlinux");
    machine.put("sys/kernel/btf/vmlinux", base.bytes());
    said("no /sys/kernel/btf/ip_vs: Linux 5.11");
    machine.put("sys/kernel/btf/ip_vs", "nonsense");
    said("does not begin as BTF");
    machine.put("sys/kernel/btf/ip_vs", Btf::on(&base).bytes());
    said("no structure ip_vs_iphdr");
    machine.put("sys/kernel/btf/ip_vs", module.bytes());
    for probe in &PROBES {
        let name = probe.functions[0];
        machine.put("proc/kallsyms", symbols(name));
        let reason = said("built into its callers");
        assert!(matches!(reason, Unavailable::Unfit(Unfit::Function(own)) if own == name), "{reason}");
    }
}

/// A kernel with IPVS built in has its types among its own, and no state of a module.
#[test]
fn a_kernel_that_has_ipvs_built_in_needs_no_types_of_a_module() {
    let machine = Machine::new();
    machine.put("sys/module/ip_vs/parameters/conn_tab_bits", "12\n");
    machine.put("sys/bus/event_source/devices/kprobe/type", "8\n");
    machine.put("sys/kernel/btf/vmlinux", Btf::new().bytes());
    let reason = machine.refusal();
    assert!(matches!(reason, Unavailable::Unfit(Unfit::Structure("sk_buff"))), "{reason}");
}
