//! Reads one ring buffer: records in their order, borrowed from the ring's memory, the reader's position told in batches.
//!
//! The kernel looks at the reader's position with every reservation. Telling it with every record moves its cache line
//! between the processors that write and the one that reads each time; so it is told every so many bytes, and at the end
//! of a batch. Knows nothing of what is in a record, and does not wait.
//!
//! Layout and memory order are those of kernel/bpf/ringbuf.c: a page with the reader's position, a page with the writers',
//! then the data, mapped twice in a row so that a record across the end is in one piece. A position is the count of bytes
//! ever written or read. A writer raises its position (release) after it has marked its record busy, and hands the record
//! on by a full exchange of the record's header without the mark; the reader's position (release) says what the kernel may
//! use again.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use aya::maps::MapData;
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// Set in a record's header while it is written (include/uapi/linux/bpf.h, BPF_RINGBUF_BUSY_BIT).
const BUSY: u32 = 1 << 31;
/// Set in a record's header if it was given up (BPF_RINGBUF_DISCARD_BIT).
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's header, and what records are aligned to (BPF_RINGBUF_HDR_SZ).
const RECORD_HEADER: usize = 8;
/// The position is told after this many bytes, or a sixteenth of a small ring: seldom enough to cost nothing, often enough
/// that the kernel has nearly all of what was read to write to.
const MAX_UNTOLD_BYTES: usize = 64 * 1024;
const UNTOLD_SHARE_OF_RING: usize = 16;

/// What one call to [`Ring::drain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records taken from the ring.
    pub records: usize,
    /// Bytes of them, waste of their size classes included.
    pub bytes: usize,
    /// The limit was reached: there may be more.
    pub more: bool,
    /// A header that cannot be: what the ring held was left out.
    pub broken: bool,
}

/// A ring buffer map and its only reader.
#[derive(Debug)]
pub(super) struct Ring {
    reader: Reader,
    // The memory that the reader reads.
    _consumer: Mapping,
    _producer: Mapping,
    map: MapData,
}

impl Ring {
    /// Reads `map`, a ring buffer of `bytes` data bytes, from where its last reader stopped.
    ///
    /// # Errors
    /// The kernel does not map it.
    pub(super) fn open(map: MapData, bytes: u32) -> io::Result<Self> {
        let page = page_size();
        let bytes = bytes as usize;
        let ring = map.fd().as_fd();
        let consumer = Mapping::new(ring, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Mapping::new(ring, page as u64, page + 2 * bytes, ProtFlags::READ)?;
        // SAFETY: both mappings are as kernel/bpf/ringbuf.c lays them out, live as long as the reader beside them, and
        // this process has no other reader of the map.
        let reader = unsafe {
            Reader::new(
                consumer.start.cast(),
                producer.start.cast(),
                producer.start.byte_add(page).cast(),
                bytes,
            )
        };
        Ok(Self { reader, _consumer: consumer, _producer: producer, map })
    }

    /// Hands on at most `max_records` records.
    pub(super) fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&[u8])) -> Drained {
        self.reader.drain(max_records, deliver)
    }

    /// How far was written or reserved, in bytes since the ring was made.
    pub(super) fn written(&self) -> usize {
        self.reader.written()
    }

    /// Of that, what was not read.
    pub(super) fn unread(&self) -> usize {
        self.reader.written().wrapping_sub(self.reader.position)
    }

    /// Shows what was submitted before `written` and not read, and leaves it unread.
    pub(super) fn look(&self, written: usize, show: &mut impl FnMut(&[u8])) {
        self.reader.look(written, show);
    }
}

impl AsFd for Ring {
    /// For [`super::Wake`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// Bytes that a cache takes from memory at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
/// So much of the next record is asked for: its header and where a message's head begins.
#[cfg(target_arch = "x86_64")]
const LINES_AHEAD: usize = 5;

/// One entry of the ring.
struct Entry<'a> {
    state: State<'a>,
    /// Where the next one begins.
    end: usize,
}

enum State<'a> {
    /// Being written.
    Busy,
    /// Given up.
    Discarded,
    /// A record.
    Submitted(&'a [u8]),
}

/// The reader's side of the memory of a ring.
#[derive(Debug)]
struct Reader {
    /// How far was read, for the kernel; only this writes it.
    consumer: NonNull<AtomicUsize>,
    /// How far was written or reserved; only the kernel writes it.
    producer: NonNull<AtomicUsize>,
    data: NonNull<u8>,
    /// A power of two.
    bytes: usize,
    /// How far was read.
    position: usize,
    /// Of that, how far the kernel knows.
    told: usize,
}

// SAFETY: what it points to belongs to the process, not to a thread, and nothing else here refers to it.
unsafe impl Send for Reader {}

impl Reader {
    /// # Safety
    /// `consumer` and `producer` point to the positions of a ring, `data` to twice its `bytes` (a power of two), all as in
    /// kernel/bpf/ringbuf.c; they stay valid as long as this lives, and nobody else writes to `consumer`.
    unsafe fn new(
        consumer: NonNull<AtomicUsize>,
        producer: NonNull<AtomicUsize>,
        data: NonNull<u8>,
        bytes: usize,
    ) -> Self {
        // SAFETY: the caller's promise.
        let position = unsafe { consumer.as_ref() }.load(Ordering::Relaxed);
        Self { consumer, producer, data, bytes, position, told: position }
    }

    fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&[u8])) -> Drained {
        let mut drained = Drained::default();
        let most_untold = MAX_UNTOLD_BYTES.min(self.bytes / UNTOLD_SHARE_OF_RING);
        let mut written = self.written();
        while drained.records < max_records {
            if self.position == written {
                written = self.written();
                if self.position == written {
                    break;
                }
            }
            let Some(entry) = self.entry(self.position, written) else {
                // The kernel does not write this. Where the next record begins is not known.
                self.position = written;
                drained.broken = true;
                break;
            };
            match entry.state {
                State::Busy => break,
                State::Discarded => {}
                State::Submitted(record) => {
                    self.fetch_ahead(entry.end);
                    deliver(record);
                    drained.records += 1;
                    drained.bytes += record.len();
                }
            }
            self.position = entry.end;
            if self.position.wrapping_sub(self.told) >= most_untold {
                self.tell();
            }
        }
        self.tell();
        drained.more = drained.records == max_records;
        drained
    }

    /// Shows what was submitted before `written` and not read, and leaves it unread.
    fn look(&self, written: usize, show: &mut impl FnMut(&[u8])) {
        let mut position = self.position;
        while position != written
            && let Some(entry) = self.entry(position, written)
        {
            if let State::Submitted(record) = entry.state {
                show(record);
            }
            position = entry.end;
        }
    }

    /// How far was written or reserved.
    fn written(&self) -> usize {
        // SAFETY: `new`. Acquire: the busy marks of the records below are seen.
        unsafe { self.producer.as_ref() }.load(Ordering::Acquire)
    }

    /// What is at `position`, which was not read; absent if it reaches beyond `written`.
    fn entry(&self, position: usize, written: usize) -> Option<Entry<'_>> {
        // SAFETY: the masked position is inside the data, and a record's header is, since it is aligned to 8 bytes.
        let start = unsafe { self.data.byte_add(position & (self.bytes - 1)) };
        // SAFETY: as above. Acquire: without the busy mark, the record is seen whole.
        let header = unsafe { start.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
        let length = (header & !(BUSY | DISCARDED)) as usize;
        let taken = (length + RECORD_HEADER).next_multiple_of(RECORD_HEADER);
        if taken > written.wrapping_sub(position).min(self.bytes) {
            return None;
        }
        let state = if header & BUSY != 0 {
            State::Busy
        } else if header & DISCARDED != 0 {
            State::Discarded
        } else {
            // SAFETY: it begins inside the first of the two mappings of the data and with its header is no longer than one.
            // The kernel writes to it again only after it is told that it was read, for which `self` must be borrowed mutably.
            State::Submitted(unsafe { slice::from_raw_parts(start.byte_add(RECORD_HEADER).as_ptr(), length) })
        };
        Some(Entry { state, end: position.wrapping_add(taken) })
    }

    /// Asks for the memory of the next record while this one is dealt with: another CPU wrote it, so it is in no cache near.
    #[cfg(target_arch = "x86_64")]
    fn fetch_ahead(&self, position: usize) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        for line in 0..LINES_AHEAD {
            // A place beyond the mapping would do no harm either.
            let place = (position & (self.bytes - 1)) + line * LINE;
            // SAFETY: within the two mappings of the data; nothing is read but into a cache.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.data.as_ptr().wrapping_byte_add(place).cast()) };
        }
    }

    /// There is no stable way to ask for it.
    #[cfg(not(target_arch = "x86_64"))]
    const fn fetch_ahead(&self, _position: usize) {}

    /// Tells the kernel how far was read.
    fn tell(&mut self) {
        if self.told != self.position {
            self.told = self.position;
            // SAFETY: `new`. Release: what was read was read before.
            unsafe { self.consumer.as_ref() }.store(self.position, Ordering::Release);
        }
    }
}

/// Some of the ring's memory, mapped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(ring: BorrowedFd<'_>, offset: u64, length: usize, access: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice takes nobody's memory.
        let start = unsafe { mmap(ptr::null_mut(), length, access, MapFlags::SHARED, ring, offset)? };
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and the reader goes with it.
        let _ = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const BYTES: usize = 4096;
    /// Words of positions before the data: one for each, as the kernel's pages are.
    const POSITIONS: usize = 2;

    /// The writer's side of a ring in ordinary memory.
    struct Writer(Box<[AtomicUsize]>);

    /// A ring whose positions begin at `position`. The reader must not outlive the writer.
    fn ring(position: usize) -> (Writer, Reader) {
        let words: Box<[_]> =
            (0..POSITIONS + 2 * BYTES / size_of::<usize>()).map(|_| AtomicUsize::new(0)).collect();
        words[0].store(position, Ordering::Relaxed);
        words[1].store(position, Ordering::Relaxed);
        let start = NonNull::from(&*words).cast::<AtomicUsize>();
        // SAFETY: the words are atomic and in a box that does not move them; tests keep the writer as long as the reader.
        let reader = unsafe { Reader::new(start, start.add(1), start.add(POSITIONS).cast(), BYTES) };
        (Writer(words), reader)
    }

    impl Writer {
        /// Reserves a record with `marks` in its header, filled with `fill`; absent if the ring is full.
        fn write(&self, length: usize, marks: u32, fill: u8) -> Option<usize> {
            let taken = (length + RECORD_HEADER).next_multiple_of(RECORD_HEADER);
            let at = self.written();
            if at.wrapping_add(taken).wrapping_sub(self.told()) > BYTES {
                return None;
            }
            self.put_header(at, length as u32 | marks);
            for word in 1..taken / RECORD_HEADER {
                self.put(at.wrapping_add(word * RECORD_HEADER), [fill; 8]);
            }
            self.0[1].store(at.wrapping_add(taken), Ordering::Release);
            Some(at)
        }

        fn put_header(&self, at: usize, header: u32) {
            let [a, b, c, d] = header.to_ne_bytes();
            self.put(at, [a, b, c, d, 0, 0, 0, 0]);
        }

        fn put(&self, position: usize, eight: [u8; 8]) {
            let at = position % BYTES / RECORD_HEADER;
            for copy in [at, at + BYTES / RECORD_HEADER] {
                self.0[POSITIONS + copy].store(usize::from_ne_bytes(eight), Ordering::Relaxed);
            }
        }

        fn told(&self) -> usize {
            self.0[0].load(Ordering::Acquire)
        }

        fn written(&self) -> usize {
            self.0[1].load(Ordering::Acquire)
        }
    }

    /// Lengths and fills of what is read.
    fn read(reader: &mut Reader, most: usize) -> (Vec<(usize, u8)>, Drained) {
        let mut seen = Vec::new();
        let drained = reader.drain(most, &mut |record| {
            assert!(record.iter().all(|byte| *byte == record[0]));
            seen.push((record.len(), record[0]));
        });
        (seen, drained)
    }

    #[test]
    fn records_come_whole_and_in_order_round_and_round() {
        // The positions pass the last value of their type on the way.
        let (writer, mut reader) = ring((-10 * BYTES as isize) as usize);
        let mut written = VecDeque::new();
        let mut fill = 0_u8;
        for round in 0..1000 {
            let length = 1 + round * 37 % 700;
            while writer.write(length, 0, fill).is_some() {
                written.push_back((length, fill));
                fill = fill.wrapping_add(1);
            }
            let (seen, drained) = read(&mut reader, 3);
            assert_eq!(drained.records, seen.len());
            assert_eq!(drained.bytes, seen.iter().map(|(length, _)| length).sum::<usize>());
            for record in seen {
                assert_eq!(Some(record), written.pop_front());
            }
        }
        let (rest, drained) = read(&mut reader, usize::MAX);
        assert_eq!(VecDeque::from(rest), written);
        assert!(!drained.more && !drained.broken);
        assert_eq!(writer.told(), writer.written());
    }

    #[test]
    fn a_record_that_is_being_written_holds_back_what_is_behind_it() {
        let (writer, mut reader) = ring(0);
        writer.write(16, 0, 1).unwrap();
        let busy = writer.write(16, BUSY, 2).unwrap();
        writer.write(16, 0, 3).unwrap();
        assert_eq!(read(&mut reader, 9).0, [(16, 1)]);
        assert_eq!(writer.told(), busy);
        writer.put_header(busy, 16);
        assert_eq!(read(&mut reader, 9).0, [(16, 2), (16, 3)]);
    }

    #[test]
    fn a_record_that_was_given_up_is_passed_over() {
        let (writer, mut reader) = ring(0);
        writer.write(16, DISCARDED, 1).unwrap();
        writer.write(8, 0, 2).unwrap();
        let (seen, drained) = read(&mut reader, 9);
        assert_eq!(seen, [(8, 2)]);
        assert_eq!((drained.records, drained.bytes), (1, 8));
        assert_eq!(writer.told(), 24 + 16);
    }

    #[test]
    fn looking_shows_what_was_submitted_and_takes_nothing() {
        let (writer, mut reader) = ring(BYTES - 64);
        for (marks, fill) in [(0, 1), (0, 2), (BUSY, 3), (DISCARDED, 4), (0, 5)] {
            writer.write(16, marks, fill).unwrap();
        }
        assert_eq!(read(&mut reader, 1).0, [(16, 1)]);
        let written = writer.written();
        writer.write(16, 0, 6).unwrap();
        let mut seen = Vec::new();
        reader.look(written, &mut |record| seen.push(record[0]));
        assert_eq!(seen, [2, 5]);
        assert_eq!(read(&mut reader, 9).0, [(16, 2)]);
    }

    #[test]
    fn the_limit_says_that_there_may_be_more() {
        let (writer, mut reader) = ring(0);
        for fill in 0..4 {
            writer.write(8, 0, fill).unwrap();
        }
        let (seen, drained) = read(&mut reader, 3);
        assert_eq!((seen.len(), drained.more), (3, true));
        let (seen, drained) = read(&mut reader, 3);
        assert_eq!((seen.len(), drained.more), (1, false));
    }

    #[test]
    fn the_position_is_told_at_a_share_of_the_ring_and_at_the_end() {
        let (writer, mut reader) = ring(0);
        let untold = BYTES / UNTOLD_SHARE_OF_RING;
        const { assert!(BYTES / UNTOLD_SHARE_OF_RING < MAX_UNTOLD_BYTES) };
        let length = untold / 2 - RECORD_HEADER;
        for fill in 0..5 {
            writer.write(length, 0, fill).unwrap();
        }
        let mut told = Vec::new();
        reader.drain(9, &mut |_| told.push(writer.told()));
        assert_eq!(told, [0, 0, untold, untold, 2 * untold]);
        assert_eq!(writer.told(), 2 * untold + untold / 2);
    }

    #[test]
    fn a_header_that_cannot_be_ends_in_what_is_written_next() {
        let (writer, mut reader) = ring(0);
        let at = writer.write(8, 0, 1).unwrap();
        writer.put_header(at, 24);
        let (seen, drained) = read(&mut reader, 9);
        assert!(seen.is_empty() && drained.broken);
        writer.write(8, 0, 2).unwrap();
        assert_eq!(read(&mut reader, 9).0, [(8, 2)]);
    }

    #[test]
    fn reader_and_writer_on_two_threads_agree() {
        const RECORDS: usize = 100_000;
        let (writer, mut reader) = ring(0);
        let writer = &writer;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..RECORDS {
                    while writer.write(8 + number % 300, 0, number as u8).is_none() {
                        std::thread::yield_now();
                    }
                }
            });
            let mut number = 0;
            while number < RECORDS {
                reader.drain(50, &mut |record| {
                    assert_eq!(record.len(), 8 + number % 300);
                    assert!(record.iter().all(|byte| *byte == number as u8));
                    number += 1;
                });
                std::thread::yield_now();
            }
        });
    }
}
