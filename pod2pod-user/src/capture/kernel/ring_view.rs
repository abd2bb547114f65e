//! What a ring holds that nobody has read yet, counted where it lies: the ledger's "in flight" is measured, not inferred.
//!
//! Reads only: the positions, and the records between them (kernel/bpf/ringbuf.c: a page with the consumer's position, a
//! page with the producer's, then the data). The pages of unread data are mapped for as long as it takes to count them,
//! so that resident memory does not grow. To be called by the thread that reads the ring: between its position and the
//! producer's the kernel rewrites nothing.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::capture::decode::outline;

/// Set while a record is reserved and not yet submitted (include/uapi/linux/bpf.h, BPF_RINGBUF_BUSY_BIT).
const BUSY: u32 = 1 << 31;
/// Set on a record that was given up (BPF_RINGBUF_DISCARD_BIT).
const DISCARDED: u32 = 1 << 30;
/// Bytes before each record (BPF_RINGBUF_HDR_SZ).
const RECORD_HEADER: u64 = 8;

/// Submitted and not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Records.
    pub records: u64,
    /// Packets whose last record is among them.
    pub packets: u64,
    /// Captured payload bytes of them.
    pub bytes: u64,
}

/// A read-only look at one ring.
#[derive(Debug)]
pub(super) struct RingView {
    ring: OwnedFd,
    bytes: u64,
    positions: Mapping,
}

impl RingView {
    /// A look at `ring`, a ring-buffer map of `bytes` data bytes.
    pub(super) fn open(ring: BorrowedFd<'_>, bytes: u32) -> io::Result<Self> {
        let ring = ring.try_clone_to_owned()?;
        let positions = Mapping::new(ring.as_fd(), 0, 2 * page())?;
        Ok(Self { ring, bytes: u64::from(bytes), positions })
    }

    /// Bytes that were ever written to the ring: where the next record goes.
    pub(super) fn written(&self) -> u64 {
        self.positions.u64(page()).load(Ordering::Acquire)
    }

    /// Counts what lies between the reader's position and `written`.
    pub(super) fn unread(&self, written: u64) -> io::Result<Unread> {
        let mut at = self.positions.u64(0).load(Ordering::Acquire);
        let mut unread = Unread::default();
        if at >= written {
            return Ok(unread);
        }
        let page = page() as u64;
        // The kernel maps the data twice in a row, so what crosses the end goes on behind it.
        let first = (at % self.bytes) / page * page;
        let shift = at - (at % self.bytes - first);
        let length = usize::try_from(written - shift).unwrap_or(usize::MAX).next_multiple_of(page as usize);
        let data = Mapping::new(self.ring.as_fd(), 2 * page + first, length)?;
        while at < written {
            let offset = (at - shift) as usize;
            let header = data.u32(offset).load(Ordering::Acquire);
            let length = u64::from(header & !(BUSY | DISCARDED));
            if header & (BUSY | DISCARDED) == 0 {
                let record = data.bytes(offset + RECORD_HEADER as usize, length as usize);
                let outline = outline(record);
                unread.records += 1;
                unread.packets += u64::from(outline.ends_packet);
                unread.bytes += u64::from(outline.captured);
            }
            at += (length + RECORD_HEADER).next_multiple_of(RECORD_HEADER);
        }
        Ok(unread)
    }
}

fn page() -> usize {
    usize::try_from(procfs::page_size()).unwrap_or_default()
}

/// Some bytes of the ring, mapped read-only.
#[derive(Debug)]
struct Mapping {
    start: *mut c_void,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this one is only read.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(ring: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice takes nobody's memory.
        let start =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, ring, offset)? };
        Ok(Self { start, length })
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<u64>() <= self.length && offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: within the mapping, aligned, and written by the kernel with whole stores; no `&mut` exists.
        unsafe { AtomicU64::from_ptr(self.start.byte_add(offset).cast()) }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + size_of::<u32>() <= self.length && offset.is_multiple_of(size_of::<u32>()));
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.start.byte_add(offset).cast()) }
    }

    /// A record that was submitted and not read: nobody writes to it.
    fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        assert!(offset + length <= self.length);
        // SAFETY: within the mapping; the kernel does not write to a submitted record before it was read.
        unsafe { std::slice::from_raw_parts(self.start.byte_add(offset).cast(), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
