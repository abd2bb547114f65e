//! Ids that no other record has, on any node: what is sent twice can be told from what is new.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::record::number::push_hex;

/// A random number of this process, and one that counts: those made one after the other stand side by side in an index.
#[derive(Debug)]
pub(super) struct Ids {
    random: [u64; 2],
    count: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self { random: [random(), random()], count: AtomicU64::new(0) }
    }
}

impl Ids {
    /// Appends the next one: 32 hexadecimal digits.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let [first, second] = self.random;
        push_hex::<16>(out, first);
        push_hex::<16>(out, second.wrapping_add(self.count.fetch_add(1, Ordering::Relaxed)));
    }
}
