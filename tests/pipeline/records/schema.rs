//! Records of every kind are as the schema says. The checker knows the few keywords that the schema uses.

use pod2pod_user::record::schema::schema;
use serde_json::Value;

use super::{all_kinds, parsed};

#[test]
fn records_of_all_kinds_are_as_the_schema_says() {
    let schema = schema();
    for exchange in all_kinds() {
        let record = parsed(exchange);
        check(&record, &schema);
    }
}

#[test]
fn the_checker_refuses_what_is_wrong() {
    let schema = schema();
    let wrong = |key: &str, value: Value| {
        let mut record = parsed(super::exchange());
        record[key] = value;
        assert!(std::panic::catch_unwind(|| check(&record, &schema)).is_err(), "{key}");
    };
    wrong("unknown", Value::Bool(true));
    wrong("duration", "1".into());
    wrong("outcome", "fine".into());
    wrong("client.port", 1.5.into());
    wrong("http.request.header.x", "plain".into());
}

fn check(record: &Value, schema: &Value) {
    let record = record.as_object().unwrap();
    for required in schema["required"].as_array().unwrap() {
        assert!(record.contains_key(required.as_str().unwrap()), "{required} is missing");
    }
    for (key, value) in record {
        let property = schema["properties"].get(key).or_else(|| pattern_property(schema, key));
        let property = property.unwrap_or_else(|| panic!("{key} is not in the schema"));
        check_value(key, value, property);
    }
}

/// The patterns are prefixes, with a look-ahead that leaves out keys that are properties.
fn pattern_property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let patterns = schema["patternProperties"].as_object()?;
    let prefix =
        |pattern: &str| pattern.trim_start_matches('^').split("(?!").next().unwrap().replace('\\', "");
    patterns.iter().find(|(pattern, _)| key.starts_with(&prefix(pattern))).map(|(_, property)| property)
}

fn check_value(key: &str, value: &Value, property: &Value) {
    if let Some(constant) = property.get("const") {
        assert_eq!(value, constant, "{key}");
        return;
    }
    let types: Vec<&str> = match &property["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let fits = types.iter().any(|kind| match *kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.as_f64().is_some_and(|number| number >= 0.0),
        "array" => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        other => panic!("{key}: the checker does not know {other}"),
    });
    assert!(fits, "{key}: {value} is no {types:?}");
    if let Some(words) = property.get("enum") {
        assert!(words.as_array().unwrap().contains(value), "{key}: {value} is none of {words}");
    }
    if property.get("pattern").is_some() {
        let text = value.as_str().unwrap();
        assert!(
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            "{key}: {text}"
        );
    }
}
