//! Which topics are sent to: whoever names namespaces is not the one who pays for topics. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use foldhash::HashMap;
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::item::is_topic;

/// Topics at most: some bytes of memory here and in the library, and of every answer that says where they are.
pub const DEFAULT_MAX_TOPICS: usize = 500;
/// More are more than a cluster has for one agent.
pub const MAX_TOPICS: usize = 10_000;
/// A topic that the cluster does not have is not asked for again so soon.
pub const MISSING_TIME: Duration = Duration::from_secs(10);
/// A topic that nothing went to for so long gives way: yesterday's, where a name has a date.
pub const IDLE_TIME: Duration = Duration::from_secs(60 * 60);
/// Whether one gives way is looked at so often.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// Which names are allowed; all if there are none.
#[derive(Clone, Debug, Default)]
pub struct Allowed(Option<GlobSet>);

impl Allowed {
    /// Those that fit one of `globs`.
    ///
    /// # Errors
    /// One is no glob.
    pub fn parse(globs: &[String]) -> Result<Self, globset::Error> {
        if globs.is_empty() {
            return Ok(Self(None));
        }
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(Glob::new(glob)?);
        }
        Ok(Self(Some(set.build()?)))
    }

    /// Whether `topic` is one of them.
    pub fn allows(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|set| set.is_match(topic))
    }
}

/// What is to be done with a record for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is sent.
    Sent,
    /// The cluster did not have it a moment ago.
    Missing,
    /// Nothing, ever.
    Refused(&'static str),
}

/// Topics that were sent to.
#[derive(Debug)]
pub struct Topics {
    allowed: Allowed,
    /// What always has a place.
    default: String,
    most: usize,
    known: HashMap<Box<str>, Known>,
    /// When it was looked whether one gives way.
    looked: Option<Instant>,
    /// Those that gave way.
    gone: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    used: Instant,
    /// When the cluster did not have it.
    missing: Option<Instant>,
}

impl Topics {
    /// Those that are allowed, `most` of them, and `default`.
    pub fn new(allowed: Allowed, default: String, most: usize) -> Self {
        Self { allowed, default, most, known: HashMap::default(), looked: None, gone: Vec::new() }
    }

    /// What becomes of a record for `topic`.
    pub fn admit(&mut self, topic: &str, now: Instant) -> Admission {
        if let Some(known) = self.known.get_mut(topic) {
            known.used = now;
            let since = |missing| now.saturating_duration_since(missing);
            let was_just = known.missing.is_some_and(|missing| since(missing) < MISSING_TIME);
            return if was_just { Admission::Missing } else { Admission::Sent };
        }
        let is_default = topic == self.default;
        if !is_topic(topic.as_bytes()) {
            return Admission::Refused("no topic may be called so");
        }
        if !is_default && !self.allowed.allows(topic) {
            return Admission::Refused("the topic is not an allowed one");
        }
        if !is_default && !self.has_room(now) {
            return Admission::Refused("there are too many topics");
        }
        self.known.insert(topic.into(), Known { used: now, missing: None });
        Admission::Sent
    }

    fn has_room(&mut self, now: Instant) -> bool {
        let is_long_ago = |then| now.saturating_duration_since(then) >= LOOK_PERIOD;
        if self.others() >= self.most && self.looked.is_none_or(is_long_ago) {
            self.looked = Some(now);
            self.known.retain(|topic, known| {
                let is_used = now.saturating_duration_since(known.used) < IDLE_TIME;
                if !is_used {
                    self.gone.push(topic.clone());
                }
                is_used
            });
        }
        self.others() < self.most
    }

    /// How many there are beside the default.
    fn others(&self) -> usize {
        self.known.len() - usize::from(self.known.contains_key(self.default.as_str()))
    }

    /// Those that gave way since this was last asked.
    pub fn take_gone(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.gone)
    }

    /// The cluster does not have `topic`.
    pub fn miss(&mut self, topic: &str, now: Instant) {
        if let Some(known) = self.known.get_mut(topic) {
            known.missing = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(globs: &[&str], most: usize) -> Topics {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Topics::new(Allowed::parse(&globs).unwrap(), "_unrouted".into(), most)
    }

    #[test]
    fn only_what_is_allowed_is_sent() {
        let now = Instant::now();
        let mut some = topics(&["team-*", "shop"], DEFAULT_MAX_TOPICS);
        for (topic, is_sent) in [
            ("shop", true),
            ("team-a", true),
            ("shop2", false),
            ("_unrouted", true),
            ("__x", false),
            ("", false),
        ] {
            assert_eq!(some.admit(topic, now) == Admission::Sent, is_sent, "{topic}");
        }
        assert_eq!(topics(&[], DEFAULT_MAX_TOPICS).admit("any", now), Admission::Sent);
        assert!(Allowed::parse(&["a[".to_owned()]).is_err());
    }

    #[test]
    fn there_are_as_many_topics_as_allowed_and_the_default() {
        let now = Instant::now();
        for most in [1, DEFAULT_MAX_TOPICS, MAX_TOPICS] {
            let mut topics = topics(&[], most);
            assert!((0..most).all(|number| topics.admit(&format!("t{number}"), now) == Admission::Sent));
            assert_eq!(topics.admit("more", now), Admission::Refused("there are too many topics"));
            assert_eq!(
                (topics.admit("t0", now), topics.admit("_unrouted", now)),
                (Admission::Sent, Admission::Sent)
            );
            assert_eq!(topics.admit("more", now), Admission::Refused("there are too many topics"));
        }
    }

    #[test]
    fn what_nothing_went_to_for_long_gives_way_when_there_is_no_room() {
        let begin = Instant::now();
        let mut topics = topics(&[], 2);
        for topic in ["a", "b"] {
            assert_eq!(topics.admit(topic, begin), Admission::Sent);
        }
        let too_early = begin + IDLE_TIME - LOOK_PERIOD;
        assert_eq!(topics.admit("b", too_early), Admission::Sent);
        assert!(
            matches!(topics.admit("c", too_early), Admission::Refused(_)) && topics.take_gone().is_empty()
        );
        assert_eq!(topics.admit("c", begin + IDLE_TIME), Admission::Sent);
        assert_eq!(topics.take_gone(), ["a".into()]);
        assert!(matches!(topics.admit("a", begin + IDLE_TIME), Admission::Refused(_)));
    }

    #[test]
    fn what_the_cluster_does_not_have_is_asked_for_again_later() {
        let begin = Instant::now();
        let mut topics = topics(&[], DEFAULT_MAX_TOPICS);
        topics.miss("never", begin);
        assert_eq!(topics.admit("a", begin), Admission::Sent);
        topics.miss("a", begin);
        let just_before = begin + MISSING_TIME - Duration::from_nanos(1);
        assert_eq!(
            (topics.admit("a", just_before), topics.admit("b", just_before)),
            (Admission::Missing, Admission::Sent)
        );
        assert_eq!(topics.admit("a", begin + MISSING_TIME), Admission::Sent);
    }
}
