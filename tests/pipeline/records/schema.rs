//! Records of every kind are as the schema says. The checker knows the few keywords that the schema uses.

use std::{collections::HashSet, time::Duration};

use pod2pod_user::{
    enrich,
    ipvs::{
        Confidence, Reuse, Sight, Tuple, Verdict,
        exact::{Cause, Decision, Met, Outcome},
        kernel::Kernel,
        parse::Protocol,
        services::Standing,
        situation::{Severity, Situation},
        state::State,
    },
    record::{fields, json::Lines, schema::schema},
};
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
fn a_reuse_is_as_the_schema_says() {
    let schema = schema();
    let (tuple, server) = (tuple(), ([10, 244, 2, 3].into(), 8080));
    let before = Sight { server, state: State::TimeWait, expires: 100 };
    let now = Sight { server: ([10, 244, 2, 4].into(), 8080), state: State::SynRecv, expires: 59 };
    let kernel = Kernel {
        release: Some("6.1.0".to_owned()),
        conn_reuse_mode: Some(1),
        expire_nodest_conn: Some(0),
        conntrack: Some(1),
        sloppy_tcp: None,
        ..Kernel::default()
    };
    let mut seen = HashSet::new();
    for (verdict, standing) in
        [(Verdict::Rescheduled, Standing::Weight(0)), (Verdict::Reused, Standing::Absent)]
    {
        let reuse = Reuse {
            tuple,
            before,
            now,
            verdict,
            confidence: Confidence::Certain,
            may_have_expired: true,
            idle: Some(Duration::from_millis(1500)),
            standing,
            severity: Severity::Critical,
            situation: Situation::Rescheduled,
        };
        let mut line = Vec::new();
        Lines::default().push(&mut line, &enrich::reuse::record(&reuse, &kernel, 1));
        let record: Value = serde_json::from_slice(&line).unwrap();
        check(&record, &schema);
        assert!(record.get("observed_at").is_none() && record.get("connection.id").is_none(), "{record}");
        assert_eq!(record["ipvs.idle"], 1.5);
        seen.extend(record.as_object().unwrap().keys().cloned());
    }
    let own =
        fields::all().map(|field| field.key).filter(|key| key.starts_with("ipvs.") || *key == "os.version");
    let untold: Vec<_> = own.filter(|key| !seen.contains(*key)).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

#[test]
fn a_decision_is_as_the_schema_says() {
    let schema = schema();
    let server = |last: u8| ([10, 244, 2, last].into(), 8080);
    let met = Met {
        server: server(3),
        standing: Standing::Weight(0),
        state: State::TimeWait,
        flags: 0,
        left: Duration::from_secs(40),
        idle: Duration::from_millis(80_004),
        is_controlled: false,
    };
    let decision = Decision {
        at: Duration::ZERO,
        tuple: tuple(),
        outcome: Outcome::Rescheduled,
        is_repeated: Some(false),
        met: Some(met),
        made: Some((server(4), Standing::Weight(2))),
        after: Some((State::SynRecv, Duration::from_secs(60))),
        isn: 1,
    };
    let told = |decision: &Decision| {
        let record = enrich::reuse::decision(decision, &Kernel::default(), 1)?;
        let mut line = Vec::new();
        Lines::default().push(&mut line, &record);
        let record: Value = serde_json::from_slice(&line).unwrap();
        check(&record, &schema);
        Some(record)
    };
    let record = told(&decision).unwrap();
    for (key, value) in [
        ("ipvs.detector", Value::from("exact")),
        ("ipvs.reuse", "certain".into()),
        ("ipvs.verdict", "rescheduled".into()),
        ("ipvs.real_server.address", "10.244.2.4".into()),
        ("ipvs.real_server.weight", 2.into()),
        ("ipvs.real_server.before.address", "10.244.2.3".into()),
        ("ipvs.state_before", "TIME_WAIT".into()),
        ("ipvs.state", "SYN_RECV".into()),
        ("ipvs.expires_before", 40.into()),
        ("ipvs.expires", 60.into()),
        ("ipvs.idle", 80.004.into()),
    ] {
        assert_eq!(record[key], value, "{key} in {record}");
    }
    let gone = Met { standing: Standing::Absent, ..met };
    let dropped = Decision {
        outcome: Outcome::Dropped(Cause::RemovedServer),
        met: Some(gone),
        made: None,
        after: None,
        ..decision
    };
    let record = told(&dropped).unwrap();
    assert_eq!(
        (&record["ipvs.verdict"], &record["ipvs.real_server.absent"]),
        (&"dropped".into(), &true.into())
    );
    assert_eq!(
        (&record["ipvs.situation"], &record["ipvs.real_server.address"]),
        (&"removed_server_dropped".into(), &"10.244.2.3".into())
    );
    assert!(record.get("ipvs.state").is_none(), "{record}");
    for outcome in [Outcome::New, Outcome::Repeated, Outcome::PassedOn] {
        assert_eq!(told(&Decision { outcome, ..decision }), None, "{outcome:?}");
    }
    assert_eq!(told(&Decision { met: None, ..dropped }), None, "it met no old entry");
}

fn tuple() -> Tuple {
    let (client, service) = (([10, 244, 1, 2].into(), 50_001), ([10, 96, 0, 10].into(), 80));
    Tuple { protocol: Protocol::TCP, client, service }
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

pub(super) fn check(record: &Value, schema: &Value) {
    let record = record.as_object().unwrap();
    let is_traffic = record["kind"] != schema["if"]["not"]["properties"]["kind"]["const"];
    let of_traffic = schema["then"]["required"].as_array().unwrap().iter().filter(|_| is_traffic);
    for required in schema["required"].as_array().unwrap().iter().chain(of_traffic) {
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
