//! Paths → route templates of few values, for the label `http_route`: rules first, then what the paths themselves show.
//!
//! Learning keeps a tree of path segments. A segment that looks like an identifier is `{id}`; a place in the tree that has
//! seen its share of other values calls every new one `{any}`. So an outsider who invents paths adds a bounded number of
//! routes. Never looks at queries.

use std::{fmt, str::FromStr};

use hashbrown::HashMap;

/// Different values of one segment that are told apart: verbs and resource names are few, names of things are many.
pub const DEFAULT_MAX_VALUES: usize = 10;
/// Segments of a path that are told apart; the rest is `{rest}`. Routes of real services have up to six.
pub const MAX_SEGMENTS: usize = 8;
/// Places of the tree, all together: 10 values on a few levels of a dozen services. About 100 bytes each.
pub const MAX_PLACES: usize = 2000;
/// Rules that are compared one after the other for every exchange.
pub const MAX_RULES: usize = 200;
/// Longest segment that can be a name; a longer one is a token.
pub const MAX_NAME: usize = 32;
/// Hexadecimal digits from this many on are an identifier: words of only a to f are shorter.
const MIN_HEX: usize = 8;

/// The route of what no rule matches, if nothing is learned, and of paths that are no paths.
pub const OTHER: &str = "_OTHER";

/// How routes are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// There is no such label.
    #[default]
    Off,
    /// By rules only.
    Rules,
    /// By rules, and what they do not match by learning.
    Learned,
}

/// What the label shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How.
    pub mode: Mode,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// What [`Config::read`] takes.
pub const ALLOWED: &str =
    "off, auto, or at most 200 templates such as /users/{id}/cart, /static/**, and auto";

impl Config {
    /// Reads a list of templates, in which `auto` asks for learning; or `off`. Absent if it is none.
    pub fn read(items: &[String]) -> Option<Self> {
        if let [only] = items
            && matches!(only.as_str(), "off" | "false")
        {
            return Some(Self::default());
        }
        let auto = items.iter().any(|item| item == "auto");
        let templates = items.iter().filter(|item| *item != "auto");
        let rules = templates.map(|item| item.parse().ok()).collect::<Option<Vec<Rule>>>()?;
        let fits = rules.len() <= MAX_RULES && (auto || !rules.is_empty());
        fits.then_some(Self { mode: if auto { Mode::Learned } else { Mode::Rules }, rules })
    }
}

/// A template such as `/users/{id}/cart` or `/static/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    template: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Exactly(String),
    /// `{name}` or `*`: any one segment.
    Any,
    /// `**`: any number of segments, also none; last.
    Rest,
}

/// Why a text is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It is no path.
    #[error("a route begins with /")]
    NoPath,
    /// A brace without its other one, or text beside it.
    #[error("a segment is a text, {{name}}, * or **")]
    Brace,
    /// `**` before the end.
    #[error("** comes last")]
    RestInside,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let path = text.strip_prefix('/').ok_or(RuleError::NoPath)?;
        let parts = path.split('/').map(part).collect::<Result<Vec<_>, _>>()?;
        let (_, inside) = parts.split_last().ok_or(RuleError::NoPath)?;
        if inside.contains(&Part::Rest) {
            return Err(RuleError::RestInside);
        }
        Ok(Self { template: text.to_owned(), parts })
    }
}

fn part(segment: &str) -> Result<Part, RuleError> {
    match segment {
        "**" => Ok(Part::Rest),
        "*" => Ok(Part::Any),
        _ if !segment.contains(['{', '}', '*']) => Ok(Part::Exactly(segment.to_owned())),
        _ => {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let plain = |name: &&str| !name.is_empty() && !name.contains(['{', '}', '*']);
            name.filter(plain).map(|_| Part::Any).ok_or(RuleError::Brace)
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.template)
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut segments = path.split('/');
        for part in &self.parts {
            match (part, segments.next()) {
                (Part::Rest, _) => return true,
                (Part::Any, Some(segment)) if !segment.is_empty() => {}
                (Part::Exactly(text), Some(segment)) if text == segment => {}
                (Part::Any | Part::Exactly(_), _) => return false,
            }
        }
        segments.next().is_none()
    }
}

/// A route, by its place in [`Routes::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(u32);

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments called `{any}` because their place had its share of values.
    pub values_over_limit: u64,
    /// Segments called `{any}` because the tree was full.
    pub places_over_limit: u64,
    /// Paths with more segments than are told apart.
    pub segments_over_limit: u64,
}

/// Finds routes. The routes are as many as the places of the tree, the rules, and one more.
#[derive(Debug)]
pub struct Routes {
    config: Config,
    /// Places of the tree; the first is the root.
    places: Vec<Place>,
    /// Routes told so far.
    names: Vec<String>,
    by_name: HashMap<String, RouteId, foldhash::fast::RandomState>,
    scratch: String,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Place {
    values: HashMap<String, usize, foldhash::fast::RandomState>,
    /// Where `{id}` and `{any}` lead.
    id: Option<usize>,
    any: Option<usize>,
}

impl Routes {
    /// Routes as configured, none seen.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            places: vec![Place::default()],
            names: Vec::new(),
            by_name: HashMap::default(),
            scratch: String::new(),
            stats: Stats::default(),
        }
    }

    /// Another with the same configuration.
    pub fn fresh(&self) -> Self {
        Self::new(self.config.clone())
    }

    /// The route of a path; absent if there is no such label.
    pub fn of(&mut self, path: Option<&[u8]>) -> Option<RouteId> {
        if self.config.mode == Mode::Off {
            return None;
        }
        let path = path.and_then(|path| std::str::from_utf8(path).ok()).filter(|path| path.starts_with('/'));
        let Some(path) = path else { return Some(self.id_of(OTHER)) };
        let rule = self.config.rules.iter().find(|rule| rule.matches(path));
        if let Some(template) = rule.map(|rule| rule.template.clone()) {
            return Some(self.id_of(&template));
        }
        if self.config.mode == Mode::Rules {
            return Some(self.id_of(OTHER));
        }
        let mut name = std::mem::take(&mut self.scratch);
        name.clear();
        self.learn(path, &mut name);
        let id = self.id_of(&name);
        self.scratch = name;
        Some(id)
    }

    /// The label's value.
    pub fn name(&self, id: RouteId) -> &str {
        self.names.get(id.0 as usize).map_or(OTHER, String::as_str)
    }

    /// What was counted so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn id_of(&mut self, name: &str) -> RouteId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = RouteId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// Follows the path through the tree, and writes how it is called.
    fn learn(&mut self, path: &str, name: &mut String) {
        let mut place = 0;
        for (index, segment) in path.split('/').skip(1).enumerate() {
            name.push('/');
            if index >= MAX_SEGMENTS {
                self.stats.segments_over_limit += 1;
                name.push_str("{rest}");
                return;
            }
            let (next, word) = self.step(place, segment);
            name.push_str(word);
            match next {
                Some(next) => place = next,
                None => {
                    if path.split('/').skip(1).nth(index + 1).is_some() {
                        name.push_str("/{rest}");
                    }
                    return;
                }
            }
        }
    }

    /// The place behind `segment`, none if the tree is full; and how the segment is called.
    fn step<'s>(&mut self, place: usize, segment: &'s str) -> (Option<usize>, &'s str) {
        if is_identifier(segment) {
            return (self.lead(place, |place| &mut place.id), "{id}");
        }
        if let Some(&known) = self.places.get(place).and_then(|place| place.values.get(segment)) {
            return (Some(known), segment);
        }
        let free = self.places.get(place).is_some_and(|place| place.values.len() < DEFAULT_MAX_VALUES);
        if !free {
            self.stats.values_over_limit += 1;
            return (self.lead(place, |place| &mut place.any), "{any}");
        }
        let Some(fresh) = self.add() else { return (None, "{any}") };
        if let Some(place) = self.places.get_mut(place) {
            place.values.insert(segment.to_owned(), fresh);
        }
        (Some(fresh), segment)
    }

    /// Where a wildcard of a place leads; made if there is room.
    fn lead(&mut self, place: usize, which: fn(&mut Place) -> &mut Option<usize>) -> Option<usize> {
        if let Some(known) = self.places.get_mut(place).and_then(|place| *which(place)) {
            return Some(known);
        }
        let fresh = self.add()?;
        if let Some(place) = self.places.get_mut(place) {
            *which(place) = Some(fresh);
        }
        Some(fresh)
    }

    fn add(&mut self) -> Option<usize> {
        if self.places.len() >= MAX_PLACES {
            self.stats.places_over_limit += 1;
            return None;
        }
        self.places.push(Place::default());
        Some(self.places.len() - 1)
    }
}

/// Whether a segment names one thing of many: a number, a UUID (RFC 9562 4), a hash, a token, an address.
fn is_identifier(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let hexadecimal = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    let only_number = digits > 0 && bytes.iter().all(|byte| byte.is_ascii_digit() || b".-_,:".contains(byte));
    only_number
        || bytes.len() > MAX_NAME
        || bytes.iter().any(|byte| b"%@=+".contains(byte) || !byte.is_ascii())
        || (bytes.len() >= MIN_HEX && digits > 0 && bytes.iter().all(hexadecimal))
        || (bytes.len() >= 2 * MIN_HEX && 3 * digits >= bytes.len())
}
