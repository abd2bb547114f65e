//! Kernel side of pod2pod: cgroup_skb programs that tell user space about HTTP connections. Nothing here changes,
//! delays or drops a packet.
//!
//! Invariant: every entry point returns [`PASS`], whatever happened inside.
//! Invariant: `segment::observe` knows nothing of its hook but direction and network-header offset.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod connection;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod headers;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod segment;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
    use pod2pod_common::segment::{DIRECTION_EGRESS, DIRECTION_INGRESS};

    use crate::segment::observe;

    /// The verdict of a cgroup_skb program that lets the packet through.
    const PASS: i32 = 1;
    /// cgroup_skb hands out packets from their network header on.
    const CGROUP_NETWORK_OFFSET: u32 = 0;

    /// Packets that a local socket is about to receive.
    #[cgroup_skb(ingress)]
    pub(crate) fn pod2pod_ingress(context: SkBuffContext) -> i32 {
        observe::<DIRECTION_INGRESS>(&context, CGROUP_NETWORK_OFFSET);
        PASS
    }

    /// Packets that a local socket sends.
    #[cgroup_skb(egress)]
    pub(crate) fn pod2pod_egress(context: SkBuffContext) -> i32 {
        observe::<DIRECTION_EGRESS>(&context, CGROUP_NETWORK_OFFSET);
        PASS
    }
}

/// The kernel allows some helpers to GPL-compatible programs only.
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
