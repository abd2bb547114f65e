//! The kernel side of pod2pod: watches TCP segments at the sockets of a cgroup and hands those of HTTP connections to
//! user space. It never changes, delays or drops a packet, and never decides more than "could this be HTTP".

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod gate;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod segment;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
