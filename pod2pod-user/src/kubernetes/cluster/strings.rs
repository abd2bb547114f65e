//! Names that many objects have, kept once. Names of single objects are not for here.

use std::{hash::BuildHasher as _, sync::Arc};

use hashbrown::HashTable;

/// Shared names.
#[derive(Clone, Debug, Default)]
pub(super) struct Strings {
    table: HashTable<Arc<str>>,
    hasher: foldhash::fast::RandomState,
    bytes: usize,
}

impl Strings {
    /// `text`, kept once.
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        let hash = self.hasher.hash_one(text);
        if let Some(known) = self.table.find(hash, |known| **known == *text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        let hasher = &self.hasher;
        self.table.insert_unique(hash, Arc::clone(&shared), |known| hasher.hash_one(&**known));
        self.bytes += text_bytes(text);
        shared
    }

    /// Drops those that nobody else has.
    pub(super) fn forget(&mut self) {
        let bytes = &mut self.bytes;
        self.table.retain(|known| {
            let is_used = Arc::strong_count(known) > 1;
            if !is_used {
                *bytes -= text_bytes(known);
            }
            is_used
        });
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.table.capacity() * (size_of::<Arc<str>>() + 1)
    }
}

/// What a shared text takes: its counts, and the allocator's rounding.
pub(super) fn text_bytes(text: &str) -> usize {
    (text.len() + 2 * size_of::<usize>()).next_multiple_of(16) + size_of::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_as_long_as_it_is_used() {
        let mut strings = Strings::default();
        let (first, second, other) = (strings.share("a"), strings.share("a"), strings.share("b"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        drop(other);
        strings.forget();
        assert_eq!((strings.table.len(), &*strings.share("a")), (1, "a"));
        assert!(Arc::ptr_eq(&first, &strings.share("a")));
        drop((first, second));
        strings.forget();
        assert_eq!((strings.table.len(), strings.bytes), (0, 0));
    }
}
