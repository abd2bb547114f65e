//! What the pods noted beside what the records say. Pure.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A pod as it truly was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    /// Its name.
    pub(crate) pod: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Its Deployment, and the Service in front of it.
    pub(crate) app: String,
}

/// One exchange, by the id in its request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    /// Who asked.
    pub(crate) client: Option<Truth>,
    /// Who answered.
    pub(crate) server: Option<Truth>,
    /// It was answered.
    pub(crate) is_ok: bool,
}

/// What a record says of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Naming {
    /// Both ends, and rightly: pods, or the Service that was asked.
    Right,
    /// An end has no name.
    Unnamed,
    /// An end has a name that is not its own.
    Wrong,
}

/// Counts of one pair at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Exchanges that were made and answered.
    pub(crate) made: usize,
    /// Records of them, by what they say.
    pub(crate) right: usize,
    pub(crate) unnamed: usize,
    pub(crate) wrong: usize,
}

/// What there is to say.
pub(crate) struct Verdict<'a> {
    /// By pair of apps and observed end.
    pub(crate) rows: BTreeMap<(String, String), Row>,
    /// Records with a wrong name.
    pub(crate) wrong: Vec<&'a Value>,
}

/// Adds the notes of a pod.
pub(crate) fn read(notes: &str, pod: &Truth, exchanges: &mut BTreeMap<String, Exchange>) -> Result<()> {
    for line in notes.lines() {
        let mut words = line.split(' ');
        let (Some(role), Some(id), Some(how)) = (words.next(), words.next(), words.next()) else {
            anyhow::bail!("a note that is none: {line}");
        };
        let exchange = exchanges.entry(id.to_owned()).or_default();
        if role == "client" {
            exchange.client = Some(pod.clone());
            exchange.is_ok = how == "ok";
        } else {
            exchange.server = Some(pod.clone());
        }
    }
    Ok(())
}

/// Counts by pair of apps and observed end, and gives the records that are wrong.
pub(crate) fn judge<'a>(exchanges: &BTreeMap<String, Exchange>, records: &'a [Value]) -> Result<Verdict<'a>> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for exchange in exchanges.values().filter(|exchange| exchange.is_ok) {
        for end in ["client", "server"] {
            rows.entry((pair(exchange), end.to_owned())).or_default().made += 1;
        }
    }
    let mut wrong = Vec::new();
    for record in records.iter().filter(|record| record["kind"] == "http") {
        let query = record["url.query"].as_str().unwrap_or_default();
        let Some(id) = query.strip_prefix("id=") else { continue };
        let exchange = exchanges.get(id).with_context(|| format!("nobody made the exchange {id}"))?;
        let said = naming(exchange, record);
        if said == Naming::Wrong {
            wrong.push(record);
        }
        if !exchange.is_ok {
            // Which records there are of one that broke depends on how it did; a wrong name is one all the same.
            continue;
        }
        let end = record["observed_at"].as_str().unwrap_or_default().to_owned();
        let row = rows.entry((pair(exchange), end)).or_default();
        match said {
            Naming::Right => row.right += 1,
            Naming::Unnamed => row.unnamed += 1,
            Naming::Wrong => row.wrong += 1,
        }
    }
    Ok(Verdict { rows, wrong })
}

fn pair(exchange: &Exchange) -> String {
    let app = |end: &Option<Truth>| end.as_ref().map_or("?", |truth| &truth.app).to_owned();
    format!("{} → {}", app(&exchange.client), app(&exchange.server))
}

/// What a record says of both ends.
pub(crate) fn naming(exchange: &Exchange, record: &Value) -> Naming {
    let ends = [("client", &exchange.client), ("server", &exchange.server)];
    ends.into_iter().map(|(end, truth)| of_end(end, truth.as_ref(), record)).max().unwrap_or(Naming::Unnamed)
}

fn of_end(end: &str, truth: Option<&Truth>, record: &Value) -> Naming {
    let said = |key: &str| record.get(format!("{end}.k8s.{key}")).and_then(Value::as_str);
    let Some(truth) = truth else {
        // Nobody noted it: any name of a pod would be made up.
        return if said("pod.name").is_some() { Naming::Wrong } else { Naming::Unnamed };
    };
    for (key, is) in [
        ("pod.name", &truth.pod),
        ("pod.uid", &truth.uid),
        ("deployment.name", &truth.app),
        ("service.name", &truth.app),
    ] {
        if said(key).is_some_and(|said| said != is) {
            return Naming::Wrong;
        }
    }
    // Whoever asks through a Service sees the Service.
    let is_named = said("pod.name").is_some() && said("deployment.name").is_some();
    let is_service = end == "server" && said("service.name").is_some();
    if is_named || is_service { Naming::Right } else { Naming::Unnamed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn truth(app: &str, number: usize) -> Truth {
        Truth { pod: format!("{app}-{number}"), uid: format!("uid-{number}"), app: app.to_owned() }
    }

    fn exchanges() -> BTreeMap<String, Exchange> {
        let mut exchanges = BTreeMap::new();
        read("client 7.1 ok\nclient 7.2 ok\n", &truth("web", 1), &mut exchanges).expect("notes");
        read("server 7.1 ok\n", &truth("cart", 2), &mut exchanges).expect("notes");
        read("server 7.2 ok\n", &truth("cart", 3), &mut exchanges).expect("notes");
        exchanges
    }

    fn record(id: &str, changes: &[(&str, Value)]) -> Value {
        let mut record = json!({"kind": "http", "observed_at": "server", "url.query": format!("id={id}"),
            "client.k8s.pod.name": "web-1", "client.k8s.deployment.name": "web", "client.k8s.pod.uid": "uid-1",
            "server.k8s.pod.name": "cart-2", "server.k8s.deployment.name": "cart"});
        for (key, value) in changes {
            record[*key] = value.clone();
        }
        record
    }

    #[test]
    fn a_name_is_right_missing_or_wrong() {
        let none = Value::Null;
        for (id, changes, expected) in [
            ("7.1", vec![], Naming::Right),
            // The same record of the exchange with the other pod.
            ("7.2", vec![], Naming::Wrong),
            ("7.1", vec![("server.k8s.pod.name", none.clone())], Naming::Unnamed),
            (
                "7.1",
                vec![("server.k8s.pod.name", none.clone()), ("server.k8s.service.name", json!("cart"))],
                Naming::Right,
            ),
            ("7.1", vec![("server.k8s.service.name", json!("db"))], Naming::Wrong),
            ("7.1", vec![("client.k8s.pod.uid", json!("uid-9"))], Naming::Wrong),
            ("7.1", vec![("client.k8s.deployment.name", json!("cart"))], Naming::Wrong),
            ("7.1", vec![("client.k8s.pod.name", none)], Naming::Unnamed),
        ] {
            assert_eq!(naming(&exchanges()[id], &record(id, &changes)), expected, "{id} {changes:?}");
        }
    }

    #[test]
    fn exchanges_and_records_are_counted_by_pair_and_end() {
        let records = [record("7.1", &[]), record("7.2", &[])];
        let Verdict { rows, wrong } = judge(&exchanges(), &records).expect("known exchanges");
        let of = |end: &str| rows[&("web → cart".to_owned(), end.to_owned())];
        assert_eq!(of("server"), Row { made: 2, right: 1, unnamed: 0, wrong: 1 });
        assert_eq!(of("client"), Row { made: 2, ..Row::default() });
        assert_eq!(wrong, [&records[1]]);
        assert!(judge(&exchanges(), &[record("8.1", &[])]).is_err(), "nobody made it");
    }
}
