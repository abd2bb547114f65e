//! Reads a piece of a map with one system call: `BPF_MAP_LOOKUP_BATCH` (bpf(2), Linux 5.6), which aya has not. Marks nothing
//! as used, and keeps nothing of what it read.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{MapData, MapError},
};
use aya_obj::generated::bpf_cmd;

use super::census::Batch;

/// Entries read at a time. A bucket of the table must fit, or the kernel refuses (`ENOSPC`); on average one has less than
/// two entries.
const BATCH_ENTRIES: usize = 256;

/// Part `batch` of `union bpf_attr` (linux/bpf.h).
#[derive(Debug)]
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A table of socket ends, to be counted or searched.
pub(super) struct Entries {
    map: MapData,
    /// Where the kernel puts what nobody looks at.
    keys: Box<[u8]>,
    values: Box<[u8]>,
}

impl Entries {
    /// Of `map`, with keys and values of the sizes that the map says it has.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(super) fn of(map: MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        let room = |bytes: u32| vec![0; BATCH_ENTRIES * bytes as usize].into_boxed_slice();
        // The kernel hands out values in multiples of eight bytes (bpf_map_value_size, kernel/bpf/syscall.c).
        let (keys, values) = (room(info.key_size()), room(info.value_size().next_multiple_of(8)));
        Ok(Self { map, keys, values })
    }

    /// Counts the entries from `place` on, as many as one look gives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn look(&mut self, place: Option<u32>) -> io::Result<Batch> {
        let from = place.unwrap_or_default();
        let mut next = 0_u32;
        let mut attributes = Attributes {
            in_batch: place.map_or(0, |_| (&raw const from) as u64),
            out_batch: (&raw mut next) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: BATCH_ENTRIES as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values, for which `of` made room, a u32 to `out_batch`
        // (kernel/bpf/hashtab.c), and `count`; all of them live here until it returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_MAP_LOOKUP_BATCH as libc::c_int,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let ended = if result == 0 {
            false
        } else {
            let error = io::Error::last_os_error();
            // The walk is at its end, and what it found last is told with that.
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
            true
        };
        Ok(Batch { entries: attributes.count.into(), next: (!ended).then_some(next) })
    }

    /// Keys of entries whose value is `wanted`, of all that are there: what comes or goes meanwhile may be missing.
    ///
    /// # Errors
    /// The kernel refuses, or its keys or values are of another size.
    pub(super) fn keys_of<K: Pod, V: Pod>(&mut self, wanted: impl Fn(&V) -> bool) -> io::Result<Vec<K>> {
        let value_bytes = size_of::<V>().next_multiple_of(8);
        if self.keys.len() != BATCH_ENTRIES * size_of::<K>()
            || self.values.len() != BATCH_ENTRIES * value_bytes
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (mut found, mut place) = (Vec::new(), None);
        loop {
            let batch = self.look(place)?;
            let entries = self.keys.chunks_exact(size_of::<K>()).zip(self.values.chunks_exact(value_bytes));
            for (key, value) in entries.take(usize::try_from(batch.entries).unwrap_or(BATCH_ENTRIES)) {
                // SAFETY: each has the bytes of one of its type, any of which are one (`aya::Pod`).
                let (key, value) = unsafe {
                    (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
                };
                if wanted(&value) {
                    found.push(key);
                }
            }
            match batch.next {
                Some(next) => place = Some(next),
                None => return Ok(found),
            }
        }
    }
}
