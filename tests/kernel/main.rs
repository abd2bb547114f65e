//! The kernel tier: the real object in the running kernel. Needs root and the eBPF object; it fails when it cannot run.

mod exchanges;
mod object;
