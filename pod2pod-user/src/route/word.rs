//! One word of a filter: a field compared with a value, or the name of an end.

use std::{borrow::Cow, net::IpAddr};

use globset::{GlobBuilder, GlobMatcher};
use smallvec::{SmallVec, smallvec};

use super::filter::MAX_WORDS;
use crate::{
    nearest::nearest,
    record::{
        Party, Record, Role,
        field::{Shape, Value},
        fields,
    },
};

/// Why a word is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Of no field.
    #[error("no field is called {key}{}", suggestion(nearest))]
    NoField {
        /// As written.
        key: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// Compared, and it is a text.
    #[error("{0} is no number, so it can only be = or !=")]
    NoNumber(String),
    /// Nothing to compare with.
    #[error("there is no value")]
    NoValue,
    /// No field.
    #[error("no field is named")]
    NoKey,
    /// Not what the field has.
    #[error("{0} is no {1}")]
    NoSuchValue(String, &'static str),
    /// It is not said what should not be.
    #[error("there is nothing behind !")]
    Nothing,
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

/// Short words for fields: of either end, or often asked for.
const SHORT: &[(&str, &[&str])] = &[
    ("namespace", &["client.k8s.namespace.name", "server.k8s.namespace.name"]),
    ("pod", &["client.k8s.pod.name", "server.k8s.pod.name"]),
    ("service", &["client.k8s.service.name", "server.k8s.service.name"]),
    ("node", &["client.k8s.node.name", "server.k8s.node.name"]),
    ("method", &["http.request.method"]),
    ("host", &["http.request.header.host"]),
    ("path", &["url.path"]),
    ("query", &["url.query"]),
    ("status", &["http.response.status_code"]),
    ("port", &["server.port"]),
];

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    is_wanted: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// A value of one of these fields is so.
    Fields { keys: SmallVec<[FieldKey; 2]>, is: Is },
    /// An end is called so, or has this address.
    Name { role: Option<Role>, namespace: Option<Pattern>, name: Pattern },
}

/// A field, or one of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldKey {
    pub(super) key: &'static str,
    /// Of headers, labels and annotations: which one.
    member: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Is {
    Like(Pattern),
    Compared(Order, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// Longest first.
const OPERATORS: &[(&str, Option<Order>, bool)] = &[
    ("!=", None, false),
    (">=", Some(Order::AtLeast), true),
    ("<=", Some(Order::AtMost), true),
    (">", Some(Order::Above), true),
    ("<", Some(Order::Below), true),
    ("=", None, true),
];

/// Which words a record's fields met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found(u64);

const _: () = assert!(MAX_WORDS <= u64::BITS as usize);

impl Found {
    pub(super) const fn note(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    pub(super) const fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }
}

impl Word {
    /// Reads it.
    pub(super) fn parse(word: &str) -> Result<Self, WordError> {
        let (text, is_wanted) = word.strip_prefix('!').map_or((word, true), |rest| (rest, false));
        if text.is_empty() {
            return Err(WordError::Nothing);
        }
        let at = text.find(['!', '<', '>', '=']);
        let Some((key, rest)) = at.and_then(|at| text.split_at_checked(at)) else {
            return Ok(Self { is_wanted, test: name(None, text)? });
        };
        let operator =
            OPERATORS.iter().find_map(|(word, order, is)| Some((rest.strip_prefix(word)?, *order, *is)));
        let Some((value, order, is_same)) = operator else { return Err(WordError::NoValue) };
        if key.is_empty() {
            return Err(WordError::NoKey);
        }
        if value.is_empty() {
            return Err(WordError::NoValue);
        }
        let test = match (key, order) {
            ("client", None) => name(Some(Role::Client), value)?,
            ("server", None) => name(Some(Role::Server), value)?,
            _ => of_fields(key, order, value)?,
        };
        Ok(Self { is_wanted: is_wanted == is_same, test })
    }

    /// Whether it asks for fields.
    pub(super) const fn is_of_fields(&self) -> bool {
        matches!(self.test, Test::Fields { .. })
    }

    /// Whether a field with this value is what it looks for.
    pub(super) fn meets(&self, key: &'static str, value: Value<'_>) -> bool {
        let Test::Fields { keys, is } = &self.test else { return false };
        keys.iter().any(|field| field.key == key && is.met(value, field.member.as_deref()))
    }

    /// Whether `record` fits, of which the fields were `met`.
    pub(super) fn fits(&self, record: &Record, met: bool) -> bool {
        let is = match &self.test {
            Test::Fields { .. } => met,
            Test::Name { role, namespace, name } => {
                let ends = [
                    (Role::Client, record.client.0, &record.client_party),
                    (Role::Server, record.server.0, &record.server_party),
                ];
                ends.iter().filter(|(of, ..)| role.is_none_or(|role| role == *of)).any(
                    |(_, address, party)| is_called(*address, party.as_deref(), namespace.as_ref(), name),
                )
            }
        };
        is == self.is_wanted
    }
}

/// Whether an end is called so: its pod, what has made it, its Service, its node, or its address.
fn is_called(address: IpAddr, party: Option<&Party>, namespace: Option<&Pattern>, name: &Pattern) -> bool {
    let of_party = party.is_some_and(|party| {
        let identity = &party.identity;
        let fits = |of: Option<&str>, text: &str| {
            namespace.is_none_or(|namespace| of.is_some_and(|of| namespace.matches(of))) && name.matches(text)
        };
        let pod = identity.pod.as_deref().is_some_and(|pod| {
            let workload = pod.workload.as_ref().map(|workload| &*workload.name);
            fits(Some(&pod.namespace), &pod.name)
                || workload.is_some_and(|workload| fits(Some(&pod.namespace), workload))
        });
        let service = identity.service.as_ref();
        pod || service.is_some_and(|service| fits(Some(&service.namespace), &service.name))
            || identity.node.as_deref().is_some_and(|node| fits(None, node))
    });
    of_party || namespace.is_none() && name.matches(&address.to_string())
}

fn name(role: Option<Role>, text: &str) -> Result<Test, WordError> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(Pattern::parse(namespace)?), name),
        None => (None, text),
    };
    Ok(Test::Name { role, namespace, name: Pattern::parse(name)? })
}

fn of_fields(key: &str, order: Option<Order>, value: &str) -> Result<Test, WordError> {
    let short = SHORT.iter().find(|(short, _)| *short == key).map(|(_, keys)| *keys);
    let keys: SmallVec<[FieldKey; 2]> = match short {
        Some(keys) => keys.iter().map(|key| FieldKey { key, member: None }).collect(),
        None => smallvec![FieldKey::parse(key)?],
    };
    let shape = keys.first().and_then(|first| fields::all().find(|field| field.key == first.key));
    let is_number = shape.is_some_and(|field| matches!(field.shape, Shape::Integer | Shape::Number));
    let is = match order {
        Some(_) if !is_number => return Err(WordError::NoNumber(key.to_owned())),
        Some(order) => Is::Compared(order, number(value)?),
        None => match number(value) {
            Ok(number) if is_number => Is::Compared(Order::Equal, number),
            Ok(_) | Err(_) => Is::Like(Pattern::parse(value)?),
        },
    };
    Ok(Test::Fields { keys, is })
}

impl FieldKey {
    /// The field of that key, or the group that it is in.
    pub(super) fn parse(text: &str) -> Result<Self, WordError> {
        if text.is_empty() {
            return Err(WordError::NoKey);
        }
        if let Some(field) = fields::all().find(|field| field.key == text) {
            return Ok(Self { key: field.key, member: None });
        }
        let groups = || fields::all().filter(|field| matches!(field.shape, Shape::Headers | Shape::Pairs));
        let member = groups().find_map(|field| Some((field.key, text.strip_prefix(field.key)?)));
        if let Some((key, member)) = member.filter(|(_, member)| !member.is_empty()) {
            return Ok(Self { key, member: Some(member.into()) });
        }
        let words = SHORT.iter().map(|(short, _)| (*short).to_owned());
        let known = words.chain(fields::all().map(|field| field.key.to_owned()));
        Err(WordError::NoField { key: text.to_owned(), nearest: nearest(text, known) })
    }

    /// What `value` says, which is at its key.
    pub(super) fn text<'a>(&self, value: Value<'a>) -> Option<Cow<'a, [u8]>> {
        let Some(member) = self.member.as_deref() else { return of_text(value) };
        if let Value::Headers(headers) = value {
            let header = headers.iter().find(|header| header.name == member.as_bytes())?;
            return Some(Cow::Borrowed(&header.value));
        }
        let Value::Pairs(pairs) = value else { return None };
        let (_, text) = pairs.iter().find(|(key, _)| **key == *member)?;
        Some(Cow::Borrowed(text.as_bytes()))
    }
}

/// A number, a duration in seconds, or a size in bytes.
fn number(text: &str) -> Result<f64, WordError> {
    const UNITS: &[(&str, f64)] = &[
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let unit = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (digits, scale) = unit.unwrap_or((text, 1.0));
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = if is_plain { digits.parse::<f64>().ok() } else { None };
    let no_number = || WordError::NoSuchValue(text.to_owned(), "duration, size or number");
    number.map(|number| number * scale).ok_or_else(no_number)
}

/// A text, or a glob of such in which `*` stands for anything.
#[derive(Clone, Debug)]
struct Pattern {
    text: Box<str>,
    glob: Option<GlobMatcher>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, WordError> {
        if text.is_empty() {
            return Err(WordError::NoValue);
        }
        let is_glob = text.contains(['*', '?', '[', '{', '\\']);
        let glob = is_glob.then(|| GlobBuilder::new(text).literal_separator(false).build()).transpose();
        let glob = glob.map_err(|_| WordError::NoSuchValue(text.to_owned(), "glob"))?;
        Ok(Self { text: text.into(), glob: glob.map(|glob| glob.compile_matcher()) })
    }

    fn matches(&self, text: &str) -> bool {
        self.glob.as_ref().map_or(*self.text == *text, |glob| glob.is_match(text))
    }

    fn matches_bytes(&self, bytes: &[u8]) -> bool {
        match &self.glob {
            None => self.text.as_bytes() == bytes,
            Some(glob) => glob.is_match(&*String::from_utf8_lossy(bytes)),
        }
    }
}

impl Is {
    /// Whether `value`, or `member` of it, is so.
    fn met(&self, value: Value<'_>, member: Option<&str>) -> bool {
        match (self, value) {
            (_, Value::Headers(headers)) => headers.iter().any(|header| {
                member.is_none_or(|member| member.as_bytes() == header.name) && self.text(&header.value)
            }),
            (_, Value::Pairs(pairs)) => pairs.iter().any(|(key, value)| {
                member.is_none_or(|member| *member == **key) && self.text(value.as_bytes())
            }),
            (_, Value::Texts(texts)) => texts.iter().any(|text| self.text(text)),
            (_, Value::Words(words)) => words.iter().any(|word| self.text(word.as_bytes())),
            (Self::Compared(order, limit), value) => {
                of_number(value).is_some_and(|is| order.holds(is, *limit))
            }
            (Self::Like(_), value) => of_text(value).is_some_and(|text| self.text(&text)),
        }
    }

    fn text(&self, text: &[u8]) -> bool {
        match self {
            Self::Like(pattern) => pattern.matches_bytes(text),
            Self::Compared(..) => false,
        }
    }
}

impl Order {
    fn holds(self, is: f64, limit: f64) -> bool {
        match self {
            // Both are made of the same digits, one by a division.
            Self::Equal => (is - limit).abs() <= f64::EPSILON * limit.abs(),
            Self::Above => is > limit,
            Self::AtLeast => is >= limit,
            Self::Below => is < limit,
            Self::AtMost => is <= limit,
        }
    }
}

fn of_number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Integer(integer) => Some(integer as f64),
        Value::Seconds(nanoseconds) => Some(nanoseconds as f64 / 1e9),
        Value::Millionths(millionths) => Some(f64::from(millionths) / 1e6),
        Value::StatusText(status) => Some(status.into()),
        Value::Absent
        | Value::Word(_)
        | Value::Text(_)
        | Value::Texts(_)
        | Value::Words(_)
        | Value::Base64(_)
        | Value::Address(_)
        | Value::Id(_)
        | Value::Time(_)
        | Value::True
        | Value::Headers(_)
        | Value::PodUid(_)
        | Value::ContainerId(_)
        | Value::Pairs(_) => None,
    }
}

/// A value as a person would write it.
pub fn of_text(value: Value<'_>) -> Option<Cow<'_, [u8]>> {
    let written = |text: String| Some(Cow::Owned(text.into_bytes()));
    match value {
        Value::Word(word) => Some(Cow::Borrowed(word.as_bytes())),
        Value::Text(text) | Value::Base64(text) => Some(Cow::Borrowed(text)),
        Value::Address(address) => written(address.to_string()),
        Value::Id(id) => written(format!("{id:016x}")),
        Value::StatusText(status) => written(status.to_string()),
        Value::Integer(integer) => written(integer.to_string()),
        Value::True => Some(Cow::Borrowed(b"true")),
        Value::PodUid(uid) => written(uid.to_string()),
        Value::ContainerId(id) => written(id.to_string()),
        Value::Seconds(nanoseconds) => written((nanoseconds as f64 / 1e9).to_string()),
        Value::Time(nanoseconds) => written(nanoseconds.to_string()),
        Value::Millionths(millionths) => written((f64::from(millionths) / 1e6).to_string()),
        Value::Absent | Value::Texts(_) | Value::Words(_) | Value::Headers(_) | Value::Pairs(_) => None,
    }
}
