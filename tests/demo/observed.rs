//! The agent's JSON lines as entries to compare. It believes nothing that a line does not say.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    compare::Observed,
    list::{End, Entry},
};

/// Method and target of a record without a request.
const NO_REQUEST: &str = "-";

/// The entries of all HTTP records in `text`; their ordinals are not known yet.
pub(crate) fn parse(text: &str) -> Result<Vec<Observed>> {
    text.lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            // A SYN that was sent again is told too; it is no exchange.
            if record["kind"] == "connect" {
                return Ok(None);
            }
            one(&record).with_context(|| format!("in the record {line}")).map(Some)
        })
        .filter_map(Result::transpose)
        .collect()
}

fn one(record: &Value) -> Result<Observed> {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    let number = |key: &str| record.get(key).and_then(Value::as_u64);
    let need = |key: &str| text(key).with_context(|| format!("no {key}"));
    let end = match need("observed_at")? {
        "client" => End::Client,
        "server" => End::Server,
        other => bail!("observed at {other}"),
    };
    let status = match number("http.response.status_code") {
        Some(status) => Some(u16::try_from(status).context("a status has three digits")?),
        None => None,
    };
    let method = text("http.request.method");
    let response_bytes = number("http.response.body.size");
    let entry = Entry {
        end,
        client: address(record, "client")?,
        server: address(record, "server")?,
        index: 0,
        // OpenTelemetry's rule for methods that it does not know.
        // A response that answers no request is a record too; here it is one that nobody sent.
        method: method.unwrap_or(NO_REQUEST).to_owned(),
        target: if method.is_some() { target(record)? } else { NO_REQUEST.to_owned() },
        status,
        request_bytes: match (method, number("http.request.body.size")) {
            (Some(_), None) => bail!("a request without http.request.body.size"),
            (_, bytes) => bytes.unwrap_or_default(),
        },
        response_bytes: match (status, response_bytes) {
            (Some(_), None) => bail!("a response without http.response.body.size"),
            (_, bytes) => bytes.unwrap_or_default(),
        },
        outcome: need("outcome")?.to_owned(),
    };
    let offset = number("exchange.offset").context("no exchange.offset")?;
    let cut = |key: &str| record.get(key).and_then(Value::as_bool).unwrap_or_default();
    Ok(Observed {
        entry,
        request_cut: cut("http.request.body.cut"),
        response_cut: cut("http.response.body.cut"),
        connection_id: need("connection.id")?.to_owned(),
        offset,
    })
}

/// The request target: as it was sent if path and query do not rebuild it.
fn target(record: &Value) -> Result<String> {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    if let Some(original) = text("url.original") {
        return Ok(original.to_owned());
    }
    let path = text("url.path").context("neither url.original nor url.path")?;
    Ok(text("url.query").map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
}

fn address(record: &Value, whose: &str) -> Result<SocketAddr> {
    let address = record.get(format!("{whose}.address")).and_then(Value::as_str);
    let port = record.get(format!("{whose}.port")).and_then(Value::as_u64);
    let (Some(address), Some(port)) = (address, port) else { bail!("no address and port of the {whose}") };
    Ok(SocketAddr::new(address.parse::<IpAddr>()?, u16::try_from(port)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"time":"2026-11-21T08:15:30.123456789Z","kind":"http","outcome":"complete","observed_at":"server","http.request.method":"GET","url.path":"/cart","url.query":"id=7","http.response.status_code":200,"client.address":"10.1.4.9","client.port":51514,"server.address":"10.1.2.3","server.port":8080,"http.request.body.size":0,"http.response.body.size":5120,"connection.id":"9f0c","exchange.offset":1842}"#;

    #[test]
    fn a_record_becomes_an_entry() {
        let observed = parse(RECORD).expect("a record");
        let line = "server 10.1.4.9:51514 10.1.2.3:8080 0 GET /cart?id=7 200 0 5120 complete";
        assert_eq!(observed[0].entry.to_string(), line);
        assert_eq!((observed[0].connection_id.as_str(), observed[0].offset), ("9f0c", 1842));
    }

    #[test]
    fn what_is_cut_is_told() {
        for (whose, cut) in [("request", (true, false)), ("response", (false, true))] {
            let record = RECORD.replace(r#""kind""#, &format!(r#""http.{whose}.body.cut":true,"kind""#));
            let observed = &parse(&record).expect("a record")[0];
            assert_eq!((observed.request_cut, observed.response_cut), cut);
        }
        let observed = &parse(RECORD).expect("a record")[0];
        assert!(!observed.request_cut && !observed.response_cut);
    }

    #[test]
    fn the_target_is_the_one_on_the_wire() {
        let record = RECORD.replace(r#""url.path""#, r#""url.original":"*","url.path""#);
        assert_eq!(parse(&record).expect("a record")[0].entry.target, "*");
    }

    #[test]
    fn a_response_that_answers_nothing_can_be_compared() {
        let record = RECORD.replace(r#""http.request.method":"GET",""#, r#"""#);
        assert_eq!(parse(&record).expect("a record")[0].entry.method, NO_REQUEST);
    }

    #[test]
    fn a_fact_that_is_missing_is_an_error() {
        for key in ["outcome", "observed_at", "client.port", "http.response.body.size", "exchange.offset"] {
            assert!(parse(&RECORD.replace(&format!("\"{key}\""), "\"else\"")).is_err(), "{key}");
        }
        assert!(parse(&RECORD[..100]).is_err(), "half a line");
    }

    #[test]
    fn without_a_response_there_are_no_bytes_of_it() {
        let record = RECORD
            .replace("http.response.status_code", "no.status")
            .replace("http.response.body.size", "no.size");
        let observed = parse(&record).expect("a record");
        assert_eq!((observed[0].entry.status, observed[0].entry.response_bytes), (None, 0));
    }
}
