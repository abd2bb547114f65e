//! Whether a SYN was there before: a client sends one again that is not answered, and then it meets its own connection's entry.
//!
//! Of each client and service the last SYN is kept, at a place that a hash of them gives; another one at the same place takes
//! it over. So it may not be known whether a SYN is sent again, but never is one taken for another.

use core::ptr;

use pod2pod_common::decision::{DecisionRecord, MAX_LAST_SYNS, SEEN_LAST_KNOWN, SEEN_REPEATED};

use crate::maps::LAST_SYNS;

/// An odd number with as many ones as zeros: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Notes a SYN, and gives what is known of the one before it, as `SEEN_*`.
#[inline(always)]
pub(crate) fn note(record: &DecisionRecord) -> u16 {
    let hash = hash(record);
    let Some(place) = LAST_SYNS.get_ptr_mut(hash as u32 & (MAX_LAST_SYNS - 1)) else { return 0 };
    // Never 0, as a place is that nobody has.
    let whose = hash >> 32 | 1;
    let now = whose << 32 | u64::from(record.isn);
    // SAFETY: an element of the map, aligned; it is read and written whole.
    let before = unsafe { ptr::read_volatile(place) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(place, now) };
    if before >> 32 != whose {
        0
    } else if before == now {
        SEEN_LAST_KNOWN | SEEN_REPEATED
    } else {
        SEEN_LAST_KNOWN
    }
}

/// Of client, service and network namespace.
#[inline(always)]
fn hash(record: &DecisionRecord) -> u64 {
    let half = |address: &[u8; 16], from: usize| {
        let a = address;
        u64::from_ne_bytes([
            a[from],
            a[from + 1],
            a[from + 2],
            a[from + 3],
            a[from + 4],
            a[from + 5],
            a[from + 6],
            a[from + 7],
        ])
    };
    let ports = u64::from(record.client_port) << 16 | u64::from(record.service_port);
    let words = [
        half(&record.client, 0),
        half(&record.client, 8),
        half(&record.service, 0),
        half(&record.service, 8),
        ports | u64::from(record.namespace) << 32,
    ];
    let mut hash = 0_u64;
    for word in words {
        hash = (hash ^ word).wrapping_mul(MIX);
        hash ^= hash >> 29;
    }
    hash
}
