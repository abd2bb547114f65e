//! The YAML file as a flat list of keys and values with their lines. What the keys mean is not known here.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::value::Given;

/// Something in the file: a dotted key, its value and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key, levels separated by dots.
    pub path: String,
    /// Line in the file, from 1.
    pub line: u64,
    /// The value; absent if it is a list of something else than texts.
    pub value: Option<Given>,
}

/// All entries of the YAML document `text`.
///
/// # Errors
/// It is no YAML, or no mapping: what the parser says, with line and column.
pub fn entries(text: &str) -> Result<Vec<Entry>, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let root: Node = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    match root {
        Node::Empty => {}
        Node::Map(pairs) => flatten("", pairs, &mut entries),
        Node::Text(_) | Node::List(_) => {
            return Err("the file must be a mapping of keys to values".to_owned());
        }
    }
    Ok(entries)
}

enum Node {
    Empty,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

fn flatten(prefix: &str, pairs: Vec<(Spanned<String>, Node)>, entries: &mut Vec<Entry>) {
    for (key, node) in pairs {
        let path = if prefix.is_empty() { key.value } else { format!("{prefix}.{}", key.value) };
        let line = key.referenced.line();
        let value = match node {
            // A key without a value says nothing.
            Node::Empty => continue,
            Node::Map(pairs) => {
                flatten(&path, pairs, entries);
                continue;
            }
            Node::Text(text) => Some(Given::one(text)),
            Node::List(nodes) => {
                nodes.into_iter().map(into_text).collect::<Option<Vec<_>>>().map(Given::list)
            }
        };
        entries.push(Entry { path, line, value });
    }
}

fn into_text(node: Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(text),
        Node::Empty | Node::List(_) | Node::Map(_) => None,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a text, a list or a mapping")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Empty)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_lines() {
        let text = "# comment\nredact: off\nsampling:\n  rate: 0.1\n  slow: 2s\nignore:\n  paths: [/a, \"/b*\"]\nempty:\n";
        let entries = entries(text).unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.line)).collect();
        assert_eq!(told, [("redact", 2), ("sampling.rate", 4), ("sampling.slow", 5), ("ignore.paths", 7)]);
        assert_eq!(entries[1].value, Some(Given::one("0.1")));
        assert_eq!(entries[0].value.as_ref().unwrap().switch(), Some(false));
        assert_eq!(entries[3].value, Some(Given::list(vec!["/a".to_owned(), "/b*".to_owned()])));
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert!(entries("").unwrap().is_empty());
        assert!(entries("# only\n\n").unwrap().is_empty());
        assert!(entries("---\n").unwrap().is_empty());
        assert!(entries("- a\n").is_err());
        assert!(entries("a: [\n").unwrap_err().contains("line"));
        assert!(entries("a: 1\na: 2\n").is_err());
    }
}
