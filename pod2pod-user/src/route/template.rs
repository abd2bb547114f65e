//! Names made of a record's fields: of an index, a topic, a tag. Read once, filled in for each record.
//!
//! `logs-{namespace|none}-{date}`: a field of the record or a short word, after `|` what stands there if the record has it not; `{date}` is
//! `%Y.%m.%d` of the record's time (UTC), `{date:%Y-%m}` something else of `%Y`, `%m`, `%d`, `%H`.

use smallvec::SmallVec;

use super::word::{FieldKey, WordError, of_text};
use crate::record::{
    ObservedAt, Record,
    field::{Presence, Value},
    fields,
    number::Clock,
};

/// More placeholders are no name.
pub const MAX_PLACEHOLDERS: usize = 8;
/// What `{date}` is.
const USUAL_DATE: &str = "%Y.%m.%d";

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other one.
    #[error("a {{ or }} has no other one")]
    Brace,
    /// No such field.
    #[error("{{{placeholder}}}: {error}")]
    Field {
        /// As written, between the braces.
        placeholder: String,
        /// Why not.
        error: WordError,
    },
    /// A date of something else.
    #[error("{{{0}}}: a date has %Y, %m, %d and %H only")]
    Date(String),
    /// Too many.
    #[error("more than {MAX_PLACEHOLDERS} placeholders")]
    TooLong,
    /// Nothing.
    #[error("it is empty")]
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(Box<str>),
    Date(Box<str>),
    /// The number of a placeholder.
    Field(usize),
}

#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    keys: Keys,
    instead: Option<Box<str>>,
}

/// Where a placeholder's text is.
#[derive(Clone, Debug, PartialEq)]
enum Keys {
    /// In one field.
    One(FieldKey),
    /// Of the observed end, else of the server, else of the client.
    End([&'static str; 2]),
}

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
    placeholders: Vec<Placeholder>,
}

/// What fills it in; each worker has its own.
#[derive(Clone, Debug, Default)]
pub struct Filler {
    clock: Clock,
    time: Vec<u8>,
}

impl Template {
    /// Reads `text`.
    ///
    /// # Errors
    /// It is no template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut template = Self { text: text.into(), parts: Vec::new(), placeholders: Vec::new() };
        let mut rest = text;
        while let Some((literal, behind)) = rest.split_once('{') {
            let (inside, after) = behind.split_once('}').ok_or(TemplateError::Brace)?;
            template.add_literal(literal)?;
            template.add_placeholder(inside)?;
            rest = after;
        }
        template.add_literal(rest)?;
        if template.placeholders.len() > MAX_PLACEHOLDERS {
            return Err(TemplateError::TooLong);
        }
        Ok(template)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What every name begins with.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            Some(Part::Date(_) | Part::Field(_)) | None => "",
        }
    }

    /// Whether it is one name for all records.
    pub fn is_fixed(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// Whether a placeholder may be empty that has nothing instead.
    pub fn may_be_empty(&self) -> bool {
        self.placeholders.iter().any(|one| one.instead.is_none() && !one.keys.is_of_every_record())
    }

    fn add_literal(&mut self, text: &str) -> Result<(), TemplateError> {
        if text.contains('}') {
            return Err(TemplateError::Brace);
        }
        if !text.is_empty() {
            self.parts.push(Part::Literal(text.into()));
        }
        Ok(())
    }

    fn add_placeholder(&mut self, inside: &str) -> Result<(), TemplateError> {
        let date = if inside == "date" { Some(USUAL_DATE) } else { inside.strip_prefix("date:") };
        if let Some(format) = date {
            let rest =
                ["%Y", "%m", "%d", "%H"].iter().fold(format.to_owned(), |rest, one| rest.replace(one, ""));
            if rest.contains('%') || format.is_empty() {
                return Err(TemplateError::Date(inside.to_owned()));
            }
            self.parts.push(Part::Date(format.into()));
            return Ok(());
        }
        let (key, instead) = match inside.split_once('|') {
            Some((key, instead)) => (key, Some(instead.into())),
            None => (inside, None),
        };
        let field = |error| TemplateError::Field { placeholder: inside.to_owned(), error };
        let keys = Keys::parse(key).map_err(field)?;
        self.parts.push(Part::Field(self.placeholders.len()));
        self.placeholders.push(Placeholder { keys, instead });
        Ok(())
    }

    /// Appends the name for `record` to `out`, of what is the record's only bytes for which `clean` has one; false, and nothing is
    /// appended, if a placeholder is empty.
    pub fn fill(
        &self,
        filler: &mut Filler,
        record: &Record,
        out: &mut Vec<u8>,
        clean: impl Fn(u8) -> Option<u8>,
    ) -> bool {
        let start = out.len();
        let values = self.values(record);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Date(format) => filler.push_date(out, format, record.time),
                Part::Field(place) => {
                    let before = out.len();
                    let value = values.get(*place).into_iter().flatten();
                    out.extend(value.filter_map(|byte| clean(*byte)));
                    if out.len() == before {
                        let instead = self.placeholders.get(*place).and_then(|one| one.instead.as_deref());
                        let Some(instead) = instead else {
                            out.truncate(start);
                            return false;
                        };
                        out.extend_from_slice(instead.as_bytes());
                    }
                }
            }
        }
        true
    }

    /// What each placeholder stands for.
    fn values(&self, record: &Record) -> SmallVec<[SmallVec<[u8; 64]>; 2]> {
        let mut values = SmallVec::from_elem(SmallVec::new(), self.placeholders.len());
        if self.placeholders.is_empty() {
            return values;
        }
        let is_client = record.observed_at == ObservedAt::Client;
        fields::visit(record, |key, value| {
            for (placeholder, place) in self.placeholders.iter().zip(&mut values) {
                if placeholder.keys.takes(key, !place.is_empty(), is_client)
                    && let Some(text) = placeholder.keys.text(value)
                {
                    place.clear();
                    place.extend_from_slice(&text);
                }
            }
        });
        values
    }
}

impl Keys {
    fn parse(key: &str) -> Result<Self, WordError> {
        Ok(match key {
            "namespace" => Self::End(["client.k8s.namespace.name", "server.k8s.namespace.name"]),
            "pod" => Self::End(["client.k8s.pod.name", "server.k8s.pod.name"]),
            "service" => Self::End(["client.k8s.service.name", "server.k8s.service.name"]),
            "node" => Self::End(["client.k8s.node.name", "server.k8s.node.name"]),
            _ => Self::One(FieldKey::parse(key)?),
        })
    }

    fn is_of_every_record(&self) -> bool {
        match self {
            Self::One(field) => {
                fields::all().any(|one| one.key == field.key && one.presence == Presence::Always)
            }
            Self::End(_) => false,
        }
    }

    /// Whether it takes what is at `key`, if it `has` something: the client's comes first.
    fn takes(&self, key: &'static str, has: bool, is_client: bool) -> bool {
        match self {
            Self::One(field) => field.key == key,
            Self::End([client, server]) => key == *client || key == *server && !(has && is_client),
        }
    }

    fn text<'a>(&self, value: Value<'a>) -> Option<std::borrow::Cow<'a, [u8]>> {
        match self {
            Self::One(field) => field.text(value),
            Self::End(_) => of_text(value),
        }
    }
}

impl Filler {
    fn push_date(&mut self, out: &mut Vec<u8>, format: &str, time: u64) {
        self.time.clear();
        self.clock.push_time(&mut self.time, time);
        // 2026-11-21T08:15:30
        let mut rest = format.as_bytes();
        while let [first, behind @ ..] = rest {
            let (text, length) = match (first, behind.first()) {
                (b'%', Some(b'Y')) => (self.time.get(..4), 2),
                (b'%', Some(b'm')) => (self.time.get(5..7), 2),
                (b'%', Some(b'd')) => (self.time.get(8..10), 2),
                (b'%', Some(b'H')) => (self.time.get(11..13), 2),
                _ => (rest.get(..1), 1),
            };
            out.extend_from_slice(text.unwrap_or_default());
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        kubernetes::identity::{Identity, Service},
        record::{CapturedHeader, MessageFacts, Party},
    };

    fn party(namespace: &str) -> Option<Arc<Party>> {
        let service = Service { namespace: namespace.into(), name: "web".into() };
        let identity = Identity { service: Some(service.into()), ..Identity::default() };
        Some(Arc::new(Party::new(identity, false, |_, _| false)))
    }

    fn filled(template: &str, record: &Record) -> Option<String> {
        let mut out = b"before ".to_vec();
        let template = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
        let clean = |byte: u8| (byte != b'?').then(|| byte.to_ascii_lowercase());
        let is_filled = template.fill(&mut Filler::default(), record, &mut out, clean);
        let text = String::from_utf8(out).unwrap();
        if is_filled {
            text.strip_prefix("before ").map(str::to_owned)
        } else {
            assert_eq!(text, "before ");
            None
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        let header = CapturedHeader { name: Bytes::from("x-tenant"), value: Bytes::from("SH?OP") };
        let record = Record {
            time: 1_795_249_530_123_456_789,
            status: Some(200),
            server_party: party("shop"),
            client_party: party("front"),
            request: MessageFacts { headers: vec![header], ..Default::default() },
            ..Record::blank()
        };
        let at_client = Record { observed_at: ObservedAt::Client, ..record.clone() };
        let only_client = Record { server_party: None, ..record.clone() };
        for (template, record, expected) in [
            ("fixed", &record, Some("fixed")),
            ("pod2pod-{date}", &record, Some("pod2pod-2026.11.21")),
            ("{date:%Y-%m}/{date:%d%H}", &record, Some("2026-11/2108")),
            ("{namespace}", &record, Some("shop")),
            ("{namespace}", &at_client, Some("front")),
            ("{namespace}", &only_client, Some("front")),
            ("{client.k8s.namespace.name}", &record, Some("front")),
            ("{http.response.status_code}-{kind}", &record, Some("200-http")),
            ("a-{http.request.header.x-tenant}-b", &record, Some("a-shop-b")),
            ("a-{pod}", &record, None),
            ("a-{pod|none}-{service}", &record, Some("a-none-web")),
            ("a-{pod|}", &record, Some("a-")),
        ] {
            assert_eq!(filled(template, record).as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_says_why() {
        for (text, expected) in [
            ("", "it is empty"),
            ("a{b", "a { or } has no other one"),
            ("a}b", "a { or } has no other one"),
            ("{kint}", "{kint}: no field is called kint; did you mean kind?"),
            ("{date:%S}", "{date:%S}: a date has %Y, %m, %d and %H only"),
            ("{}", "{}: no field is named"),
        ] {
            assert_eq!(Template::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(Template::parse(&"{kind}".repeat(MAX_PLACEHOLDERS)).is_ok());
        assert_eq!(Template::parse(&"{kind}".repeat(MAX_PLACEHOLDERS + 1)), Err(TemplateError::TooLong));
    }

    #[test]
    fn what_all_names_begin_with() {
        for (text, prefix, is_fixed) in [("a-{kind}", "a-", false), ("a", "a", true), ("{date}", "", false)] {
            let template = Template::parse(text).unwrap();
            assert_eq!((template.prefix(), template.is_fixed(), template.text()), (prefix, is_fixed, text));
        }
    }
}
