//! What pods ask for by annotations, of their own exchanges and within what the operator allows: fewer of them, and which headers and
//! how much of bodies their records have. What is not asked for is as it is configured; secrets are nobody's to ask for.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashMap;

use crate::{
    config::value::Given,
    enrich::Rate,
    kubernetes::{cgroup::PodUid, identity::Pod},
    record::{MessageFacts, Record},
};

/// Annotation by which a pod asks for fewer of its exchanges: a share such as `0.1`.
pub const SAMPLE: &str = "pod2pod.io/sample";
/// Annotation by which a pod says which headers records have that are made at its sockets: `none`, `all-allowed`, or names.
pub const HEADERS: &str = "pod2pod.io/headers";
/// Annotation by which a pod says how much of bodies they have: a size such as `0`, `4KiB`.
pub const BODY_BYTES: &str = "pod2pod.io/body-bytes";

/// Pods whose wishes are remembered; more than a node may have. Past it all are read anew.
pub const MAX_REMEMBERED: usize = 1024;
/// Values that cannot be read are said of so many annotations; they are counted for ever.
pub const MAX_SAID: usize = 100;

/// What pods may ask for.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Fewer of their exchanges.
    pub sample: bool,
    /// Other headers.
    pub headers: bool,
    /// More or less of bodies.
    pub body_bytes: bool,
    /// Headers of requests and of responses that records of any pod have, in lower case.
    pub own_headers: [Vec<String>; 2],
    /// Headers that pods may ask for beside these, in lower case.
    pub more_headers: Vec<String>,
    /// First bytes of bodies that records of any pod have.
    pub own_body_bytes: usize,
    /// First bytes of bodies that pods may ask for at most, if that is more.
    pub more_body_bytes: usize,
    /// Of whom it was said that a value cannot be read, by all workers.
    pub said: Said,
}

/// Annotations of which it was said that they cannot be read.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<HashSet<(PodUid, &'static str)>>>);

impl Said {
    /// Whether it is to be said: not yet, and of not too many.
    fn is_new(&self, pod: PodUid, annotation: &'static str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.len() < MAX_SAID && said.insert((pod, annotation))
    }
}

impl Rules {
    /// Most bytes of a body that anybody may get.
    pub fn most_body_bytes(&self) -> usize {
        if self.body_bytes { self.own_body_bytes.max(self.more_body_bytes) } else { self.own_body_bytes }
    }

    /// Headers that some pods may ask for.
    pub fn offered_headers(&self) -> &[String] {
        if self.headers { &self.more_headers } else { &[] }
    }

    fn are_none(&self) -> bool {
        !(self.sample || self.headers || self.body_bytes)
    }

    fn allow(&self, name: &str) -> bool {
        self.more_headers.iter().chain(self.own_headers.iter().flatten()).any(|allowed| allowed == name)
    }
}

/// Which headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Headers {
    /// Those that any pod's records have.
    #[default]
    Own,
    /// All that may be asked for.
    All,
    /// These, in lower case.
    Only(Vec<String>),
}

/// What one pod asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wish {
    rate: Option<Rate>,
    headers: Headers,
    body_bytes: Option<usize>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Values that cannot be read.
    pub(super) unreadable: u64,
    /// Values that ask for more than there is.
    pub(super) limited: u64,
}

/// What pods ask for, read once a pod. One worker's.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    known: HashMap<PodUid, (Arc<Pod>, Wish), foldhash::fast::RandomState>,
    pub(super) stats: Stats,
}

impl Wishes {
    /// The least share of its exchanges that any of them asks for.
    pub(super) fn rate<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a Arc<Pod>>,
        rules: &Rules,
    ) -> Option<Rate> {
        if !rules.sample {
            return None;
        }
        pods.filter_map(|pod| self.of(pod, rules).rate).min_by_key(|rate| rate.millionths())
    }

    /// Whether more of bodies is to be captured than of any pod.
    pub(super) fn wants_more(&mut self, pod: &Arc<Pod>, rules: &Rules) -> bool {
        self.of(pod, rules).body_bytes.is_some_and(|asked| asked > rules.own_body_bytes)
    }

    /// Leaves in `record` what the pod asks for whose socket was observed, if it is known, and what any has if not.
    pub(super) fn apply(&mut self, pod: Option<&Arc<Pod>>, record: &mut Record, rules: &Rules) {
        if !rules.headers && !rules.body_bytes {
            return;
        }
        let unknown = Wish::default();
        let wish = pod.map_or(&unknown, |pod| self.of(pod, rules));
        let most = wish.body_bytes.map_or(rules.own_body_bytes, |asked| asked.min(rules.most_body_bytes()));
        let [requests, responses] = &rules.own_headers;
        for (facts, own) in [(&mut record.request, requests), (&mut record.response, responses)] {
            leave(facts, &wish.headers, own);
            facts.body.truncate(most);
            if facts.body.is_empty() {
                facts.decoded.clear();
            }
        }
    }

    fn of(&mut self, pod: &Arc<Pod>, rules: &Rules) -> &Wish {
        if rules.are_none() || self.known.get(&pod.uid).is_some_and(|(known, _)| Arc::ptr_eq(known, pod)) {
            return self.known.get(&pod.uid).map_or(&NOTHING, |(_, wish)| wish);
        }
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        let wish = self.read(pod, rules);
        let known = (Arc::clone(pod), wish);
        &self.known.entry(pod.uid).insert(known).into_mut().1
    }

    fn read(&mut self, pod: &Pod, rules: &Rules) -> Wish {
        let value =
            |key: &str| pod.annotations.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value);
        let mut wish = Wish::default();
        let mut unreadable = Vec::new();
        if let Some(text) = value(SAMPLE).filter(|_| rules.sample) {
            wish.rate = rate(text);
            unreadable.extend(wish.rate.is_none().then_some(SAMPLE));
        }
        if let Some(text) = value(HEADERS).filter(|_| rules.headers) {
            let asked = headers(text);
            unreadable.extend(asked.is_none().then_some(HEADERS));
            wish.headers = asked.unwrap_or_default();
            if let Headers::Only(names) = &wish.headers {
                self.stats.limited += u64::from(!names.iter().all(|name| rules.allow(name)));
            }
        }
        if let Some(text) = value(BODY_BYTES).filter(|_| rules.body_bytes) {
            let bytes = Given::one(text).bytes();
            unreadable.extend(bytes.is_none().then_some(BODY_BYTES));
            wish.body_bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            let is_over = wish.body_bytes.is_some_and(|asked| asked > rules.most_body_bytes());
            self.stats.limited += u64::from(is_over);
        }
        self.stats.unreadable += unreadable.len() as u64;
        for annotation in unreadable.into_iter().filter(|annotation| rules.said.is_new(pod.uid, annotation)) {
            tracing::warn!(
                namespace = &*pod.namespace,
                pod = &*pod.name,
                annotation,
                "a pod's annotation is not understood: what is configured holds"
            );
        }
        wish
    }
}

/// Of a pod that asks for nothing.
static NOTHING: Wish = Wish { rate: None, headers: Headers::Own, body_bytes: None };

fn leave(facts: &mut MessageFacts, headers: &Headers, own: &[String]) {
    let is_in = |names: &[String], name: &[u8]| names.iter().any(|one| one.as_bytes() == name);
    match headers {
        Headers::Own => facts.headers.retain(|header| is_in(own, &header.name)),
        Headers::All => {}
        Headers::Only(names) => facts.headers.retain(|header| is_in(names, &header.name)),
    }
}

/// A share from 0 to 1.
fn rate(text: &str) -> Option<Rate> {
    let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share))?;
    Rate::from_millionths((share * 1e6).round() as u32)
}

/// `none`, `all-allowed`, or names with commas between them (tokens: RFC 9110 5.6.2).
fn headers(text: &str) -> Option<Headers> {
    const NONE: &str = "none";
    const ALL: &str = "all-allowed";
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_name = |name: &String| !name.is_empty() && name.bytes().all(in_token);
    match &names[..] {
        [word] if word == NONE => Some(Headers::Only(Vec::new())),
        [word] if word == ALL => Some(Headers::All),
        _ if names.iter().any(|name| name == NONE || name == ALL) => None,
        _ => names.iter().all(is_name).then_some(Headers::Only(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: u32, annotations: &[(&str, &str)]) -> Arc<Pod> {
        Arc::new(Pod {
            namespace: "shop".into(),
            name: "web".into(),
            uid: PodUid::parse(&format!("{number:032x}")).unwrap(),
            node: None,
            zone: None,
            workload: None,
            labels: Box::default(),
            annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        })
    }

    fn rules() -> Rules {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Rules {
            sample: true,
            headers: true,
            body_bytes: true,
            own_headers: [names(&["x-a"]), names(&["server"])],
            more_headers: names(&["x-b"]),
            own_body_bytes: 10,
            more_body_bytes: 100,
            ..Rules::default()
        }
    }

    #[test]
    fn values_are_read_by_their_grammar() {
        let only =
            |names: &[&str]| Some(Headers::Only(names.iter().map(|name| (*name).to_owned()).collect()));
        for (text, expected) in [
            ("none", only(&[])),
            (" None ", only(&[])),
            ("all-allowed", Some(Headers::All)),
            ("X-B", only(&["x-b"])),
            ("x-a, X-b,authorization", only(&["x-a", "x-b", "authorization"])),
            ("", None),
            ("x-a,", None),
            ("x-a,none", None),
            ("all-allowed, x-a", None),
            ("x a", None),
            ("x-a: 1", None),
            ("*", only(&["*"])),
        ] {
            assert_eq!(headers(text), expected, "{text}");
        }
        for (text, expected) in
            [("0.1", Some(100_000)), ("1", Some(1_000_000)), ("1.1", None), ("NaN", None), ("", None)]
        {
            assert_eq!(rate(text).map(Rate::millionths), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_too_much_is_counted_once_a_pod() {
        let (rules, mut wishes) = (rules(), Wishes::default());
        for (annotations, unreadable, limited) in [
            (&[(HEADERS, "none"), (BODY_BYTES, "100"), (SAMPLE, "0.5")][..], 0, 0),
            (&[(HEADERS, "x-a, x-b, server")], 0, 0),
            (&[(HEADERS, "authorization")], 0, 1),
            (&[(BODY_BYTES, "101")], 0, 1),
            (&[(BODY_BYTES, "99999999999GiB")], 1, 0),
            (&[(HEADERS, "a b"), (BODY_BYTES, "-1"), (SAMPLE, "much")], 3, 0),
        ] {
            let pod = pod(1, annotations);
            wishes.stats = Stats::default();
            for _ in 0..3 {
                wishes.of(&pod, &rules);
            }
            assert_eq!(wishes.stats, Stats { unreadable, limited }, "{annotations:?}");
        }
        // What is not allowed is not looked at.
        let (none, mut wishes) = (Rules::default(), Wishes::default());
        assert_eq!(*wishes.of(&pod(1, &[(BODY_BYTES, "-1"), (SAMPLE, "0.5")]), &none), NOTHING);
        assert_eq!((wishes.stats, wishes.known.len()), (Stats::default(), 0));
    }

    #[test]
    fn so_many_pods_are_remembered_and_so_many_told_of() {
        let (rules, mut wishes) = (rules(), Wishes::default());
        for number in 0..MAX_REMEMBERED as u32 {
            wishes.of(&pod(number, &[(BODY_BYTES, "x")]), &rules);
        }
        assert_eq!(wishes.known.len(), MAX_REMEMBERED);
        assert_eq!(rules.said.0.lock().unwrap().len(), MAX_SAID);
        let last = pod(MAX_REMEMBERED as u32, &[(BODY_BYTES, "50")]);
        assert_eq!(wishes.of(&last, &rules).body_bytes, Some(50));
        assert_eq!((wishes.known.len(), wishes.stats.unreadable), (1, MAX_REMEMBERED as u64));
        let said = Said::default();
        let uid = |number: usize| PodUid::parse(&format!("{number:032x}")).unwrap();
        assert!((0..MAX_SAID).all(|number| said.is_new(uid(number), HEADERS)));
        assert!(!said.is_new(uid(0), HEADERS) && !said.is_new(uid(MAX_SAID), HEADERS));
    }

    #[test]
    fn a_pods_newest_annotations_hold() {
        let (rules, mut wishes) = (rules(), Wishes::default());
        for (value, expected) in [("20", true), ("5", false), ("100", true)] {
            assert_eq!(wishes.wants_more(&pod(1, &[(BODY_BYTES, value)]), &rules), expected, "{value}");
        }
    }

    #[test]
    fn of_two_that_sample_the_least_share_holds() {
        let (rules, mut wishes) = (rules(), Wishes::default());
        let pods = [("0.5", 1), ("0.1", 2), ("1", 3)].map(|(share, number)| pod(number, &[(SAMPLE, share)]));
        let mut least = |pods: &[Arc<Pod>]| wishes.rate(pods.iter(), &rules).map(Rate::millionths);
        assert_eq!(least(&pods), Some(100_000));
        assert_eq!(least(&pods[2..]), Some(1_000_000));
        assert_eq!(least(&[pod(4, &[])]), None);
    }

    #[test]
    fn a_body_is_as_long_as_its_pod_asked_and_may() {
        let (rules, mut wishes) = (rules(), Wishes::default());
        for (number, (asked, expected)) in
            (0..).zip([(None, 10), (Some("0"), 0), (Some("50"), 50), (Some("100"), 100), (Some("101"), 100)])
        {
            let mut record = Record::blank();
            record.response.body = vec![b'a'; 500].into();
            record.response.decoded = vec!["gzip"];
            let pod = pod(number, &asked.map(|asked| (BODY_BYTES, asked)).into_iter().collect::<Vec<_>>());
            wishes.apply(Some(&pod), &mut record, &rules);
            let facts = &record.response;
            // Of nothing no coding was removed.
            assert_eq!(
                (facts.body.len(), facts.decoded.len()),
                (expected, usize::from(expected > 0)),
                "{asked:?}"
            );
        }
    }
}
