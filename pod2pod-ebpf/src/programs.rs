//! Entry points. The tail expression of each is the verdict, and it is always "let it pass".

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use pod2pod_common::segment::{DIRECTION_EGRESS, DIRECTION_INGRESS, SOURCE_CGROUP};

use crate::segment::{Hook, observe};

/// cgroup_skb: 1 lets the packet pass (kernel/bpf/cgroup.c, __cgroup_bpf_run_filter_skb).
const PASS: i32 = 1;

/// The network header is where a cgroup_skb packet begins.
const NETWORK_HEADER_OF_CGROUP: u32 = 0;

#[cgroup_skb(ingress)]
pub(crate) fn pod2pod_ingress(context: SkBuffContext) -> i32 {
    let hook = Hook {
        direction: DIRECTION_INGRESS,
        source: SOURCE_CGROUP,
        network_header: NETWORK_HEADER_OF_CGROUP,
    };
    observe(&context.skb, hook);
    PASS
}

#[cgroup_skb(egress)]
pub(crate) fn pod2pod_egress(context: SkBuffContext) -> i32 {
    let hook =
        Hook { direction: DIRECTION_EGRESS, source: SOURCE_CGROUP, network_header: NETWORK_HEADER_OF_CGROUP };
    observe(&context.skb, hook);
    PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
