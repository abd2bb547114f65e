//! The record's fields as an index template of Elasticsearch and OpenSearch: each with its type, so that none is guessed.

use serde_json::{Map, Value, json};

use super::{field::Shape, fields};

/// More text of one field is stored and not searched for: a document with a longer keyword would be refused (Lucene's limit is 32,766
/// bytes).
pub const MAX_KEYWORD_CHARACTERS: u64 = 8191;

/// The template of indices, or data streams, whose names begin with `prefix`.
pub fn index_template(prefix: &str, is_stream: bool) -> String {
    let mut properties = Map::new();
    properties.insert("@timestamp".to_owned(), json!({ "type": "date_nanos" }));
    let mut groups = Vec::new();
    for field in fields::all() {
        if matches!(field.shape, Shape::Headers | Shape::Pairs) {
            let name = field.key.trim_end_matches('.');
            groups.push(json!({ name: { "path_match": format!("{}*", field.key), "mapping": keyword() } }));
        } else {
            properties.insert(field.key.to_owned(), mapping(&field.shape));
        }
    }
    let mut template = json!({
        "index_patterns": [format!("{prefix}*")],
        "priority": 200,
        "template": { "mappings": { "dynamic_templates": groups, "properties": properties } },
        "_meta": { "description": "Records of pod2pod." },
    });
    if let (true, Some(template)) = (is_stream, template.as_object_mut()) {
        template.insert("data_stream".to_owned(), json!({}));
    }
    format!("{template:#}\n")
}

fn keyword() -> Value {
    json!({ "type": "keyword", "ignore_above": MAX_KEYWORD_CHARACTERS })
}

fn mapping(shape: &Shape) -> Value {
    match shape {
        Shape::Time => json!({ "type": "date_nanos" }),
        Shape::Integer => json!({ "type": "long" }),
        Shape::Number => json!({ "type": "double" }),
        Shape::Mark => json!({ "type": "boolean" }),
        Shape::String
        | Shape::Enum(_)
        | Shape::Id
        | Shape::StringOrStrings
        | Shape::Strings
        | Shape::Headers
        | Shape::Pairs => keyword(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_the_beginning_of_another() {
        // A document cannot have a text and an object of one name.
        for field in fields::all().filter(|field| !field.key.ends_with('.')) {
            let inside = format!("{}.", field.key);
            assert!(!fields::all().any(|other| other.key.starts_with(&inside)), "{}", field.key);
        }
    }

    #[test]
    fn every_field_has_a_type() {
        let template: Value = serde_json::from_str(&index_template("a-", true)).unwrap();
        let mappings = &template["template"]["mappings"];
        assert_eq!(mappings["properties"]["http.response.status_code"]["type"], "long");
        assert_eq!(mappings["properties"]["duration"]["type"], "double");
        assert_eq!(mappings["properties"]["url.path"]["ignore_above"], MAX_KEYWORD_CHARACTERS);
        let groups = mappings["dynamic_templates"].as_array().unwrap().len();
        let properties = mappings["properties"].as_object().unwrap().len();
        assert_eq!(groups + properties, fields::all().count() + 1);
        assert!(template["data_stream"].is_object());
    }
}
