//! Kernel side of the watch over IPVS: kprobes that follow each SYN through IPVS and tell what it decided. An object of its own,
//! so that where there are no kprobes the capture loads all the same. Nothing here changes, delays or drops a packet.
//!
//! Invariant: a decision is what the kernel did, never what its settings would have it do.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[path = "../atomic.rs"]
mod atomic;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod memory;
#[cfg(target_arch = "bpf")]
mod repeated;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod syn;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{kprobe, kretprobe},
        programs::{ProbeContext, RetProbeContext},
    };

    use crate::syn;

    /// `ip_vs_conn_in_get_proto(ipvs, af, skb, iph)`: a packet of a client is looked up.
    #[kprobe]
    pub(crate) fn pod2pod_ipvs_look_up(context: ProbeContext) -> u32 {
        syn::look_up(&context);
        0
    }

    /// Its return: the entry, or none.
    #[kretprobe]
    pub(crate) fn pod2pod_ipvs_found(context: RetProbeContext) -> u32 {
        syn::found(&context);
        0
    }

    /// `ip_vs_conn_expire_now(cp)`.
    #[kprobe]
    pub(crate) fn pod2pod_ipvs_expire(context: ProbeContext) -> u32 {
        syn::expire(&context);
        0
    }

    /// Return of `ip_vs_conn_new`: the entry made.
    #[kretprobe]
    pub(crate) fn pod2pod_ipvs_make(context: RetProbeContext) -> u32 {
        syn::make(&context);
        0
    }

    /// `ip_vs_leave(svc, skb, pd, iph)`: there is no real server to schedule to.
    #[kprobe]
    pub(crate) fn pod2pod_ipvs_leave(context: ProbeContext) -> u32 {
        syn::leave(&context);
        0
    }

    /// Return of `ip_vs_in_hook`, of `ip_vs_in` before Linux 5.16: the verdict.
    #[kretprobe]
    pub(crate) fn pod2pod_ipvs_end(context: RetProbeContext) -> u32 {
        syn::end(&context);
        0
    }
}

/// The kernel lets GPL-compatible programs only read its memory.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
