//! Says which processor the programs will run on: registers, which probes read, are named after it. It is the host's, unless the
//! environment names another, as for aya-ebpf.

use std::env;

/// Names another processor than the host's, also to aya-ebpf.
const ARCHITECTURE_VARIABLE: &str = "AYA_BPF_TARGET_ARCH";

fn main() {
    println!("cargo::rerun-if-env-changed={ARCHITECTURE_VARIABLE}");
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values(any()))");
    let host = env::var("HOST").unwrap_or_default();
    let own = host.split('-').next().unwrap_or_default().to_owned();
    let architecture = env::var(ARCHITECTURE_VARIABLE).unwrap_or(own);
    println!("cargo::rustc-cfg=bpf_target_arch=\"{architecture}\"");
}
