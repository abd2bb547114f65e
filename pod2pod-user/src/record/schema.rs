//! The record's JSON Schema (2020-12), made from the table of fields.

use serde_json::{Map, Value, json};

use super::{
    Kind,
    field::{Field, Presence, Shape},
    fields,
};

/// The schema of one line.
pub fn schema() -> Value {
    let mut properties = Map::new();
    let mut patterns = Map::new();
    let (mut required, mut of_traffic) = (Vec::new(), Vec::new());
    for field in fields::all() {
        match field.presence {
            Presence::Always => required.push(json!(field.key)),
            Presence::OfTraffic => of_traffic.push(json!(field.key)),
            Presence::IfKnown => {}
        }
        if matches!(field.shape, Shape::Headers | Shape::Pairs) {
            patterns.insert(pattern(field.key), property(field));
        } else {
            properties.insert(field.key.to_owned(), property(field));
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pod2pod record",
        "description": "One observation: most are HTTP exchanges or tries to open a connection, each as seen at one place. An absent fact is an absent key.",
        "type": "object",
        "properties": properties,
        "patternProperties": patterns,
        "required": required,
        "if": {"not": {"properties": {"kind": {"const": Kind::IpvsReuse.as_str()}}}},
        "then": {"required": of_traffic},
        "additionalProperties": false,
    })
}

/// Matches the keys that begin with `prefix`, but none that has a row of its own.
fn pattern(prefix: &str) -> String {
    let own: Vec<_> = fields::all()
        .filter_map(|field| field.key.strip_prefix(prefix))
        .filter(|rest| !rest.is_empty())
        .collect();
    let besides = if own.is_empty() { String::new() } else { format!("(?!(?:{})$)", own.join("|")) };
    format!("^{}{besides}", prefix.replace('.', "\\."))
}

fn property(field: &Field) -> Value {
    let mut property = Map::new();
    let mut set = |key: &str, value: Value| {
        property.insert(key.to_owned(), value);
    };
    let description = if field.unit.is_empty() {
        field.sentence.to_owned()
    } else {
        format!("{} Unit: {}.", field.sentence, field.unit)
    };
    set("description", json!(description));
    match field.shape {
        Shape::String | Shape::Pairs => set("type", json!("string")),
        Shape::Enum(words) => {
            set("type", json!("string"));
            set("enum", json!(words()));
        }
        Shape::Time => {
            set("type", json!("string"));
            set("format", json!("date-time"));
        }
        Shape::Id => {
            set("type", json!("string"));
            set("pattern", json!("^[0-9a-f]{16}$"));
        }
        Shape::Integer => {
            set("type", json!("integer"));
            set("minimum", json!(0));
        }
        Shape::Number => {
            set("type", json!("number"));
            set("minimum", json!(0));
        }
        Shape::Mark => set("const", json!(true)),
        Shape::StringOrStrings => {
            set("type", json!(["string", "array"]));
            set("items", json!({"type": "string"}));
        }
        Shape::Strings | Shape::Headers => {
            set("type", json!("array"));
            set("items", json!({"type": "string"}));
        }
    }
    Value::Object(property)
}

impl Shape {
    /// The type as a word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::String | Self::Enum(_) | Self::Time | Self::Id | Self::Pairs => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Mark => "true",
            Self::StringOrStrings => "string or strings",
            Self::Strings | Self::Headers => "strings",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_described() {
        let mut seen = HashSet::new();
        for field in fields::all() {
            assert!(seen.insert(field.key), "{} twice", field.key);
            assert!(field.sentence.ends_with('.'), "{}", field.key);
            assert!(field.sentence.is_ascii(), "{}", field.key);
        }
    }

    #[test]
    fn schema_has_every_field() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let patterns = schema["patternProperties"].as_object().unwrap();
        assert_eq!(properties.len() + patterns.len(), fields::all().count());
        assert_eq!(properties["url.path"]["type"], "string");
        assert_eq!(patterns.len(), 6);
    }
}
