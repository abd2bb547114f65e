//! Kernel side of pod2pod: cgroup_skb and traffic-control programs that tell user space about HTTP connections. Nothing here changes,
//! delays or drops a packet.
//!
//! Invariant: every entry point returns [`PASS`] or [`UNSPEC`], whatever happened inside.
//! Invariant: `segment::observe` knows nothing of its hook but direction, source and network-header offset.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod connection;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod headers;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod link;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod segment;
#[cfg(target_arch = "bpf")]
mod tunnel;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::TC_ACT_UNSPEC,
        macros::{cgroup_skb, classifier},
        programs::{SkBuffContext, TcContext},
    };
    use pod2pod_common::segment::{DIRECTION_EGRESS, DIRECTION_INGRESS, SOURCE_CGROUP, SOURCE_TC};

    use crate::segment::observe;

    /// The verdict of a cgroup_skb program that lets the packet through.
    const PASS: i32 = 1;
    /// The verdict of a traffic-control program that leaves the packet to those after it: any other would end the chain.
    const UNSPEC: i32 = TC_ACT_UNSPEC;

    /// Packets that a local socket is about to receive.
    #[cgroup_skb(ingress)]
    pub(crate) fn pod2pod_ingress(context: SkBuffContext) -> i32 {
        observe::<DIRECTION_INGRESS, SOURCE_CGROUP>(&context);
        PASS
    }

    /// Packets that a local socket sends.
    #[cgroup_skb(egress)]
    pub(crate) fn pod2pod_egress(context: SkBuffContext) -> i32 {
        observe::<DIRECTION_EGRESS, SOURCE_CGROUP>(&context);
        PASS
    }

    /// Packets on an interface towards the observed end: the egress hook of a pod's host-side veth, the ingress hook of an
    /// interface whose end is this host.
    #[classifier]
    pub(crate) fn pod2pod_tc_ingress(context: TcContext) -> i32 {
        observe::<DIRECTION_INGRESS, SOURCE_TC>(&SkBuffContext::new(context.skb.skb));
        UNSPEC
    }

    /// Packets on an interface from the observed end: the hooks the other way round.
    #[classifier]
    pub(crate) fn pod2pod_tc_egress(context: TcContext) -> i32 {
        observe::<DIRECTION_EGRESS, SOURCE_TC>(&SkBuffContext::new(context.skb.skb));
        UNSPEC
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
