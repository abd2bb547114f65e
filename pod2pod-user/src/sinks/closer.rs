//! Looking closer: headers and first bytes of bodies that records have for a while, for somebody who asked, and for nobody else. What may
//! be asked for is the operator's; sinks never see it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::record::{MessageFacts, Record};

/// Longest time that an operator allows, if nobody says other: long enough to see a failure happen again.
pub const DEFAULT_MAX_TIME: Duration = Duration::from_secs(10 * 60);

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Headers of requests and responses, in lower case.
    pub headers: Vec<String>,
    /// First bytes of each body at most.
    pub body_bytes: usize,
    /// For so long at most.
    pub time: Duration,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { headers: Vec::new(), body_bytes: 0, time: DEFAULT_MAX_TIME }
    }
}

/// What somebody asks for, or what all do together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Headers, in lower case.
    pub headers: Vec<String>,
    /// First bytes of each body.
    pub body_bytes: usize,
}

impl Asked {
    /// The record as who asked for this sees it, if it has what was asked for.
    pub(super) fn of(&self, record: &Record) -> Option<Record> {
        let [request, response] = record.closer.as_deref()?;
        let mut seen = Record { closer: None, ..record.clone() };
        self.show(&mut seen.request, request);
        self.show(&mut seen.response, response);
        Some(seen)
    }

    /// What all records have anyway stays as it is.
    fn show(&self, own: &mut MessageFacts, all: &MessageFacts) {
        let is_own = |name: &[u8]| own.headers.iter().any(|header| header.name == name);
        let is_asked = |name: &[u8]| self.headers.iter().any(|asked| asked.as_bytes() == name);
        let headers = all.headers.iter().filter(|header| is_own(&header.name) || is_asked(&header.name));
        own.headers = headers.cloned().collect();
        let shown = self.body_bytes.min(all.body.len());
        if shown > own.body.len() {
            own.body = all.body.slice(..shown);
            own.decoded.clone_from(&all.decoded);
        }
    }
}

/// What is asked for now. Shared by who asks and all workers.
#[derive(Debug, Default)]
pub struct Closer {
    /// Changes with every change: looked at for each segment, and nothing else while nobody asks.
    version: AtomicU64,
    asked: Mutex<Vec<Arc<Asked>>>,
}

/// Somebody asks, as long as this is kept.
#[derive(Debug)]
pub(super) struct Asking {
    closer: Arc<Closer>,
    asked: Arc<Asked>,
}

impl Closer {
    /// Which change was the last.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// What all ask for together; absent if nobody does.
    pub fn asked(&self) -> Option<Asked> {
        let asked = self.lock();
        let headers: BTreeSet<_> = asked.iter().flat_map(|asked| asked.headers.iter().cloned()).collect();
        let body_bytes = asked.iter().map(|asked| asked.body_bytes).max()?;
        Some(Asked { headers: headers.into_iter().collect(), body_bytes })
    }

    /// From now on it is there for `asked`.
    pub(super) fn ask(self: &Arc<Self>, asked: Asked) -> Asking {
        let asked = Arc::new(asked);
        self.lock().push(Arc::clone(&asked));
        self.version.fetch_add(1, Ordering::Relaxed);
        Asking { closer: Arc::clone(self), asked }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.closer.lock().retain(|asked| !Arc::ptr_eq(asked, &self.asked));
        self.closer.version.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::CapturedHeader;

    fn asked(headers: &[&str], body_bytes: usize) -> Asked {
        Asked { headers: headers.iter().map(|name| (*name).to_owned()).collect(), body_bytes }
    }

    fn facts(headers: &[&'static str], body: &'static str) -> MessageFacts {
        let header = |name: &&'static str| CapturedHeader {
            name: Bytes::from_static(name.as_bytes()),
            value: Bytes::from_static(b"v"),
        };
        MessageFacts {
            headers: headers.iter().map(header).collect(),
            body: Bytes::from_static(body.as_bytes()),
            ..MessageFacts::default()
        }
    }

    #[test]
    fn what_is_asked_for_is_what_all_ask_for_together() {
        let closer = Arc::<Closer>::default();
        assert_eq!((closer.asked(), closer.version()), (None, 0));
        let first = closer.ask(asked(&["x-b", "x-a"], 10));
        let second = closer.ask(asked(&["x-a", "x-c"], 4));
        assert_eq!((closer.asked(), closer.version()), (Some(asked(&["x-a", "x-b", "x-c"], 10)), 2));
        drop(first);
        assert_eq!((closer.asked(), closer.version()), (Some(asked(&["x-a", "x-c"], 4)), 3));
        drop(second);
        assert_eq!((closer.asked(), closer.version()), (None, 4));
    }

    #[test]
    fn each_sees_what_it_asked_for_and_what_all_see() {
        let all = [facts(&["own", "x-a", "x-b"], "0123456789"), facts(&["x-a"], "abc")];
        let record = Record {
            request: facts(&["own"], "01"),
            response: facts(&[], ""),
            closer: Some(Box::new(all)),
            ..Record::blank()
        };
        let names = |facts: &MessageFacts| {
            let name = |header: &CapturedHeader| String::from_utf8(header.name.to_vec()).unwrap();
            facts.headers.iter().map(name).collect::<Vec<_>>()
        };
        let seen = asked(&["x-b", "absent"], 4).of(&record).unwrap();
        assert_eq!(
            (names(&seen.request), &seen.request.body[..]),
            (vec!["own".into(), "x-b".into()], &b"0123"[..])
        );
        assert_eq!(
            (names(&seen.response).len(), &seen.response.body[..], seen.closer),
            (0, &b"abc"[..], None)
        );
        // Less than all see is not what anybody asks for.
        let seen = asked(&[], 1).of(&record).unwrap();
        assert_eq!((names(&seen.request), &seen.request.body[..]), (vec!["own".into()], &b"01"[..]));
        assert_eq!(asked(&["x-b"], 4).of(&Record::blank()), None);
    }
}
