//! Records as they come, for people who look on: each with a filter and a bounded queue of its own. Who is slow loses only what is its own,
//! counted; a worker never waits for anybody.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    Encoder,
    closer::{Allowed, Asked, Asking, Closer},
    text::Columns,
};
use crate::{
    record::{Record, json::Lines},
    route::Filter,
};

/// Who may look on at once: with [`MAX_READER_BYTES`] 4 MiB of them all.
pub const MAX_READERS: usize = 16;
/// Bytes that wait for one of them at most: some hundred records.
pub const MAX_READER_BYTES: usize = 256 * 1024;

/// How records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As JSON lines.
    Json,
    /// As columns of a terminal that is so wide, with colours or without.
    Text(usize, bool),
}

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Records that fit; all if absent.
    pub filter: Option<Filter>,
    /// How.
    pub view: View,
    /// What of them beside what all have.
    pub closer: Option<Asked>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailStats {
    /// Who looks on.
    pub readers: u64,
    /// Who was refused: there were [`MAX_READERS`].
    pub refused: u64,
    /// Records shown, each as often as somebody was.
    pub shown: u64,
    /// Records lost to somebody who was slow.
    pub lost: u64,
}

/// Who looks on. Shared by all workers and the listener.
#[derive(Debug, Default)]
pub struct Tail {
    /// As many as there are: looked at for each record, and nothing else while nobody looks on.
    count: AtomicUsize,
    readers: Mutex<Vec<Arc<Reader>>>,
    refused: AtomicU64,
    shown: AtomicU64,
    lost: AtomicU64,
    allowed: Allowed,
    closer: Arc<Closer>,
}

#[derive(Debug)]
struct Reader {
    filter: Option<Filter>,
    closer: Option<Asked>,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug)]
struct State {
    encoder: Encoder,
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// Since it was last told.
    lost: u64,
}

/// One that looks on, as long as it is kept.
#[derive(Debug)]
pub struct Looking {
    reader: Arc<Reader>,
    tail: Arc<Tail>,
    /// Ends with it.
    _asking: Option<Asking>,
}

/// What came for somebody.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Records, a line or some each, in their order.
    pub lines: Vec<Bytes>,
    /// Records that there was no room for, before these.
    pub lost: u64,
}

impl Tail {
    /// Who looks on may ask for this.
    pub fn new(allowed: Allowed) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// What may be asked for.
    pub const fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// What is asked for.
    pub const fn closer(&self) -> &Arc<Closer> {
        &self.closer
    }

    /// Shows `record` to who looks on.
    #[inline]
    pub fn write(&self, record: &Record) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.show(record);
        }
    }

    #[cold]
    fn show(&self, record: &Record) {
        for reader in lock(&self.readers).iter() {
            let closer = reader.closer.as_ref().and_then(|asked| asked.of(record));
            let record = closer.as_ref().unwrap_or(record);
            if reader.filter.as_ref().is_some_and(|filter| !filter.fits(record)) {
                continue;
            }
            let counter = if reader.put(record) { &self.shown } else { &self.lost };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more looks on from now; absent if there are too many.
    pub fn join(self: &Arc<Self>, wanted: Wanted) -> Option<Looking> {
        let Wanted { filter, view, closer } = wanted;
        let mut readers = lock(&self.readers);
        if readers.len() >= MAX_READERS {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let encoder = match view {
            View::Json => Encoder::Json(Lines::default()),
            View::Text(width, colour) => Encoder::Text(Box::new(Columns::new(width, colour))),
        };
        let state = Mutex::new(State { encoder, lines: VecDeque::new(), bytes: 0, lost: 0 });
        let asking = closer.clone().map(|asked| self.closer.ask(asked));
        let reader = Arc::new(Reader { filter, closer, state, filled: Notify::new() });
        readers.push(Arc::clone(&reader));
        let count = readers.len();
        self.count.store(count, Ordering::Relaxed);
        drop(readers);
        // Not before: who waits for this to be said misses nothing. Without the lock: records wait for nobody's log.
        let filter = reader.filter.as_ref().map_or("all", Filter::text);
        tracing::info!(readers = count, filter, "somebody looks on");
        Some(Looking { reader, tail: Arc::clone(self), _asking: asking })
    }

    /// What was counted so far.
    pub fn stats(&self) -> TailStats {
        TailStats {
            readers: self.count.load(Ordering::Relaxed) as u64,
            refused: self.refused.load(Ordering::Relaxed),
            shown: self.shown.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

impl Reader {
    /// Whether there was room.
    fn put(&self, record: &Record) -> bool {
        let mut state = lock(&self.state);
        let mut line = Vec::new();
        state.encoder.push(&mut line, record);
        let fits = state.bytes + line.len() <= MAX_READER_BYTES;
        if fits {
            state.bytes += line.len();
            state.lines.push_back(line.into());
        } else {
            state.lost += 1;
        }
        drop(state);
        self.filled.notify_one();
        fits
    }
}

impl Looking {
    /// What came since; waits for something.
    pub async fn next(&self) -> News {
        loop {
            let news = {
                let mut state = lock(&self.reader.state);
                state.bytes = 0;
                News { lines: state.lines.drain(..).collect(), lost: std::mem::take(&mut state.lost) }
            };
            if news != News::default() {
                return news;
            }
            self.reader.filled.notified().await;
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let mut readers = lock(&self.tail.readers);
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        let count = readers.len();
        self.tail.count.store(count, Ordering::Relaxed);
        drop(readers);
        tracing::info!(readers = count, "somebody looks on no longer");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{CapturedHeader, MessageFacts};

    fn now(looking: &Looking) -> News {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(looking.next())
    }

    fn every() -> Wanted {
        Wanted { filter: None, view: View::Json, closer: None }
    }

    fn record(status: u16) -> Record {
        Record { status: Some(status), ..Record::blank() }
    }

    #[test]
    fn each_is_shown_what_fits_its_filter() {
        let tail = Arc::new(Tail::default());
        tail.write(&record(200));
        let all = tail.join(every()).unwrap();
        let failed = tail
            .join(Wanted {
                filter: Some(Filter::parse("status>=500").unwrap()),
                view: View::Text(120, false),
                ..every()
            })
            .unwrap();
        for status in [200, 503] {
            tail.write(&record(status));
        }
        let (all, failed) = (now(&all), now(&failed));
        assert_eq!((all.lines.len(), failed.lines.len(), all.lost + failed.lost), (2, 1, 0));
        assert!(all.lines[0].starts_with(b"{\"time\":") && all.lines[1].ends_with(b"}\n"));
        // Its header comes with it.
        assert!(failed.lines[0].starts_with(b"TIME (UTC)") && failed.lines[0].ends_with(b"\n"));
        assert_eq!(tail.stats(), TailStats { readers: 2, refused: 0, shown: 3, lost: 0 });
    }

    #[test]
    fn who_is_slow_loses_what_is_its_own() {
        let tail = Arc::new(Tail::default());
        let (slow, other) = (tail.join(every()).unwrap(), tail.join(every()).unwrap());
        let mut line = Vec::new();
        Lines::default().push(&mut line, &record(200));
        let fits = MAX_READER_BYTES / line.len();
        let mut seen = 0;
        for _ in 0..fits + 3 {
            tail.write(&record(200));
            seen += now(&other).lines.len();
        }
        let told = now(&slow);
        assert_eq!((told.lines.len(), told.lost, seen), (fits, 3, fits + 3));
        assert_eq!(tail.stats().lost, 3);
        tail.write(&record(200));
        assert_eq!((now(&slow).lines.len(), tail.stats().lost), (1, 3));
    }

    #[test]
    fn so_many_may_look_on_and_make_room_when_they_go() {
        let tail = Arc::new(Tail::default());
        let mut looking: Vec<_> = (0..MAX_READERS).map(|_| tail.join(every()).unwrap()).collect();
        assert!(tail.join(every()).is_none());
        assert_eq!(tail.stats(), TailStats { readers: MAX_READERS as u64, refused: 1, ..Default::default() });
        looking.pop();
        assert!(tail.join(every()).is_some());
        drop(looking);
        assert_eq!(tail.stats().readers, 0);
    }

    #[test]
    fn who_looks_closer_sees_more_and_nobody_else_does() {
        let tail = Arc::new(Tail::default());
        let plain = tail.join(every()).unwrap();
        let asked = Asked { headers: vec!["x-a".to_owned()], body_bytes: 3 };
        let filter = Some(Filter::parse("http.request.header.x-a=seen").unwrap());
        let closer = tail.join(Wanted { filter, closer: Some(asked.clone()), ..every() }).unwrap();
        assert_eq!((tail.closer().asked(), tail.closer().version()), (Some(asked), 1));
        let header = |value| CapturedHeader { name: Bytes::from("x-a"), value: Bytes::from(value) };
        let facts =
            |value| MessageFacts { headers: vec![header(value)], body: "body".into(), ..Default::default() };
        for value in ["seen", "other"] {
            let all = Some(Box::new([facts(value), MessageFacts::default()]));
            tail.write(&Record { closer: all, ..record(200) });
        }
        let text = |news: &News| news.lines.concat();
        let (plain, seen) = (now(&plain), now(&closer));
        assert_eq!((plain.lines.len(), seen.lines.len()), (2, 1));
        assert!(memchr::memmem::find(&text(&plain), b"x-a").is_none());
        let seen: serde_json::Value = serde_json::from_slice(&text(&seen)).unwrap();
        assert_eq!(seen["http.request.header.x-a"], serde_json::json!(["seen"]));
        assert_eq!(seen["http.request.body.content"], "bod");
        drop(closer);
        assert_eq!((tail.closer().asked(), tail.closer().version()), (None, 2));
    }
}
