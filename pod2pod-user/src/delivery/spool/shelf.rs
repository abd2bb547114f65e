//! What a queue knows of its spool: batches that are written and wait for the target, and how many records are on disk alone. The spool's
//! thread, the sink's and the producers meet here, under the queue's lock.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Clock, Loss, SpoolStats, cursor::Cursor, log::News};
use crate::delivery::{
    Batch, Parcel, Queue,
    queue::{State, Token},
};

/// Batches that are written, and those that are under way, take this part of the queue's bytes: the rest is for what comes while the
/// disk is slow. It may be passed by one batch.
const READY_SHARE: usize = 2;

/// Who is to be told when a batch is dealt with.
#[derive(Debug)]
pub(in crate::delivery) struct Ticket {
    /// Its entry on disk, if it has one.
    pub(super) sequence: Option<u64>,
    /// Whoever gave it hears of it when this is dropped.
    pub(super) _token: Option<Token>,
}

impl Ticket {
    /// Of a batch that is on no disk.
    pub(in crate::delivery) const fn loose(token: Token) -> Self {
        Self { sequence: None, _token: Some(token) }
    }

    /// Whether the batch is kept if it is not dealt with.
    pub(in crate::delivery) const fn is_stored(&self) -> bool {
        self.sequence.is_some()
    }
}

/// A batch that waits for the target.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) parcel: Parcel,
    /// Bytes that it takes.
    pub(super) weight: usize,
    /// When it came, milliseconds since 1970.
    pub(super) written: u64,
    pub(super) ticket: Ticket,
}

/// What the spool's thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Write this batch. If it stays it goes on from memory, else it is to be read again.
    Write { batch: Batch, stays: bool },
    /// Hand this one on, which cannot be written.
    HandOn(Batch),
    /// Read the next entry: memory has room for it.
    Read,
    /// It is time.
    Look,
    /// Nobody takes anything any more.
    End,
}

/// What the spool's thread tells when it asks for work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Entries wait to be read.
    pub(super) has_unread: bool,
    /// Nothing can be written, for now: it was tried just before.
    pub(super) is_blocked: bool,
    /// It wrote last: it is the turn of reading.
    pub(super) has_written: bool,
    /// When it looks by itself.
    pub(super) until: Instant,
    /// How it stands.
    pub(super) stats: SpoolStats,
}

/// The queue's side of a spool. Records are in one of its figures each.
pub(in crate::delivery) struct Shelf {
    cursor: Arc<Mutex<Cursor>>,
    clock: Clock,
    most_age: Duration,
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    /// Of those ready, records that are on disk.
    ready_stored: u64,
    /// And those that are not.
    ready_loose: u64,
    /// On disk alone.
    stored: u64,
    /// With the spool's thread.
    writing: u64,
    /// With the target, and on disk.
    taken_stored: u64,
    /// The spool's thread runs.
    is_open: bool,
    /// What was there at the start is known.
    is_recovered: bool,
    /// What comes is lost for want of room on disk.
    is_full: bool,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shelf").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl Shelf {
    pub(super) fn new(cursor: Arc<Mutex<Cursor>>, clock: Clock, most_age: Duration) -> Self {
        Self {
            cursor,
            clock,
            most_age,
            ready: VecDeque::new(),
            ready_bytes: 0,
            ready_stored: 0,
            ready_loose: 0,
            stored: 0,
            writing: 0,
            taken_stored: 0,
            is_open: true,
            is_recovered: false,
            is_full: false,
        }
    }

    /// Records that are not with the target.
    pub(in crate::delivery) const fn records(&self) -> u64 {
        self.ready_stored + self.ready_loose + self.stored + self.writing
    }

    /// Records that a later start finds.
    pub(in crate::delivery) const fn kept(&self) -> u64 {
        self.ready_stored + self.stored + self.taken_stored
    }

    /// Whether what comes goes through the spool's thread.
    pub(in crate::delivery) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether what comes is lost for want of room on disk.
    pub(in crate::delivery) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a batch waits; of those that would be lost at the end, if what is on disk is kept.
    pub(in crate::delivery) fn has_next(&self, keeps: bool) -> bool {
        if keeps { self.ready_loose > 0 } else { !self.ready.is_empty() }
    }

    /// Whether nothing waits, nor comes from disk, but for what is kept.
    pub(in crate::delivery) fn is_over(&self, keeps: bool) -> bool {
        let is_written = !self.is_open || (self.is_recovered && self.writing == 0);
        let is_sent = keeps || self.ready.is_empty() && (!self.is_open || self.stored == 0);
        is_written && is_sent && self.ready_loose == 0
    }

    /// So many records with the target were dealt with that are on disk.
    pub(in crate::delivery) const fn settle(&mut self, records: u64) {
        self.taken_stored = self.taken_stored.saturating_sub(records);
    }

    /// Nobody takes anything any more: records that are lost, and bytes that are free.
    pub(in crate::delivery) fn clear(&mut self) -> (u64, usize) {
        self.ready.clear();
        self.stored += std::mem::take(&mut self.ready_stored);
        (std::mem::take(&mut self.ready_loose), std::mem::take(&mut self.ready_bytes))
    }

    /// All is counted.
    pub(in crate::delivery) fn forget(&mut self) {
        self.clear();
        (self.stored, self.writing, self.taken_stored) = (0, 0, 0);
    }

    const fn count(&mut self, is_stored: bool) -> &mut u64 {
        if is_stored { &mut self.ready_stored } else { &mut self.ready_loose }
    }

    fn add(&mut self, ready: Ready) {
        *self.count(ready.ticket.is_stored()) += ready.parcel.len() as u64;
        self.ready_bytes += ready.weight;
        self.ready.push_back(ready);
    }

    fn remove(&mut self, place: usize) -> Option<Ready> {
        let ready = self.ready.remove(place)?;
        self.ready_bytes -= ready.weight;
        *self.count(ready.ticket.is_stored()) -= ready.parcel.len() as u64;
        Some(ready)
    }

    fn is_expired(&self, ready: &Ready) -> bool {
        Duration::from_millis((self.clock)().saturating_sub(ready.written)) > self.most_age
    }
}

impl Queue {
    pub(super) fn set_shelf(&self, shelf: Shelf) {
        self.lock().shelf = Some(shelf);
    }

    /// The spool's thread is done: what comes goes on without it.
    pub(super) fn close_shelf(&self) {
        let mut state = self.lock();
        if let Some(shelf) = &mut state.shelf {
            shelf.is_open = false;
            // Of a thread that panicked.
            let lost = std::mem::take(&mut shelf.writing);
            state.stats.dropped_failed += lost;
        }
        self.wake_all(&state);
    }

    /// So many records were there at the start.
    pub(super) fn recover(&self, records: u64) {
        self.on_shelf(|state, shelf| {
            shelf.is_recovered = true;
            shelf.stored += records;
            state.stats.received += records;
        });
    }

    /// The next batch as the target is given it, unless it is kept for a later start.
    pub(in crate::delivery) fn take_ready(&self, keeps: bool) -> Option<(Parcel, usize, Ticket)> {
        let mut expired = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        let shelf = state.shelf.as_mut()?;
        let taken = loop {
            let place =
                if keeps { shelf.ready.iter().position(|ready| !ready.ticket.is_stored()) } else { Some(0) };
            let Some(ready) = place.and_then(|place| shelf.remove(place)) else { break None };
            let records = ready.parcel.len() as u64;
            if !shelf.is_expired(&ready) {
                state.held += ready.weight;
                state.taken += records;
                shelf.taken_stored += if ready.ticket.is_stored() { records } else { 0 };
                break Some((ready.parcel, ready.weight, ready.ticket));
            }
            state.bytes -= ready.weight;
            state.stats.lose_spooled(Loss::Expired, records);
            expired.push(ready.ticket);
        };
        if !expired.is_empty() {
            // There is room again.
            self.wake_all(&guard);
        }
        drop(guard);
        expired.into_iter().for_each(|ticket| self.acknowledge(ticket));
        taken
    }

    /// A batch is dealt with. Its entry is passed over by the thread that calls: what was delivered and comes again after a SIGKILL
    /// is no more than what is under way. That is a write of some bytes to memory, without a sync.
    pub(in crate::delivery) fn acknowledge(&self, ticket: Ticket) {
        if let Some(sequence) = ticket.sequence {
            let cursor = self.lock().shelf.as_ref().map(|shelf| Arc::clone(&shelf.cursor));
            if let Some(cursor) = cursor {
                cursor
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pass(sequence..sequence.saturating_add(1));
            }
        }
        drop(ticket);
    }

    /// How the spool stood at last.
    pub(super) fn tell_spool(&self, stats: SpoolStats) {
        self.lock().stats.spool = Some(stats);
    }

    /// Waits for something to do.
    pub(super) fn work(&self, asked: Asked) -> Work {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.done || state.closed {
                return Work::End;
            }
            state.stats.spool = Some(asked.stats);
            if let Some(work) = self.next_work(&mut state, asked) {
                return work;
            }
            let left = asked.until.saturating_duration_since(now);
            if left.is_zero() {
                return Work::Look;
            }
            state.sink_waits = true;
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.sink_waits = false;
        }
    }

    fn next_work(&self, state: &mut State, asked: Asked) -> Option<Work> {
        let shelf = state.shelf.as_mut()?;
        let has_room = state.held + shelf.ready_bytes < self.limit / READY_SHARE && !state.abandoned;
        let stays = has_room && !asked.has_unread;
        let may_read = has_room && asked.has_unread;
        let may_write = !state.batches.is_empty() && (stays || !asked.is_blocked);
        if may_read && (asked.has_written || !may_write) {
            return Some(Work::Read);
        }
        if !may_write {
            return None;
        }
        let batch = state.batches.pop_front()?;
        shelf.writing += batch.records;
        Some(if asked.is_blocked { Work::HandOn(batch) } else { Work::Write { batch, stays } })
    }

    /// A batch goes on from memory.
    pub(super) fn hand_on(&self, ready: Ready) {
        self.on_shelf(|_, shelf| {
            shelf.writing -= ready.parcel.len() as u64;
            shelf.add(ready);
        });
    }

    /// A batch is on disk alone; its bytes are free.
    pub(super) fn store(&self, records: u64, bytes: usize) {
        self.on_shelf(|state, shelf| {
            shelf.writing -= records;
            shelf.stored += records;
            state.bytes -= bytes;
        });
    }

    /// A batch could not be written, and waits at its place.
    pub(super) fn put_back(&self, batch: Batch) {
        self.on_shelf(|state, shelf| {
            shelf.writing -= batch.records;
            state.batches.push_front(batch);
        });
    }

    /// A batch has no place anywhere.
    pub(super) fn lose(&self, records: u64, bytes: usize) {
        self.on_shelf(|state, shelf| {
            shelf.writing -= records;
            state.bytes -= bytes;
            state.stats.lose_spooled(Loss::Full, records);
        });
    }

    /// A batch was read again.
    pub(super) fn bring(&self, ready: Ready) {
        self.on_shelf(|state, shelf| {
            shelf.stored -= ready.parcel.len() as u64;
            state.bytes += ready.weight;
            shelf.add(ready);
        });
    }

    /// Records that were on disk alone are lost.
    pub(super) fn count_news(&self, news: &News) {
        self.on_shelf(|state, shelf| {
            for (loss, records) in Loss::ALL.into_iter().zip(news.lost) {
                shelf.stored -= records;
                state.stats.lose_spooled(loss, records);
            }
        });
    }

    /// Whether what comes is lost for want of room on disk once memory has none.
    pub(super) fn set_full(&self, is_full: bool) {
        self.on_shelf(|_, shelf| shelf.is_full = is_full);
    }

    /// Does that unless all is counted already.
    fn on_shelf(&self, change: impl FnOnce(&mut State, &mut Shelf)) {
        let mut state = self.lock();
        if !state.closed
            && let Some(mut shelf) = state.shelf.take()
        {
            change(&mut state, &mut shelf);
            if state.abandoned {
                let (lost, bytes) = shelf.clear();
                state.stats.dropped_failed += lost;
                state.bytes -= bytes;
            }
            state.shelf = Some(shelf);
        }
        self.changed.notify_one();
        self.wake_producers(&state);
    }
}
