//! Records to whoever takes OTLP over HTTP or gRPC (OpenTelemetry Protocol 1.9): log records, or spans of exchanges.
//!
//! An answer may say that some were rejected, and not which ones: so many are counted as refused, and the rest as delivered.

mod grpc;
mod item;
mod wire;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::{Method, header};

pub use self::item::{Encoder, Signal};
use self::wire::{Content, take};
use super::{
    coding::Coding,
    elasticsearch::cut,
    grpc_client,
    http::{MAX_ANSWER_BYTES, judge},
    http_client::{Access, Client, MAX_BODY_TIME, Reading},
    own::OwnConnections,
    probe::Probe,
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, TroubleKind, Verdict},
    secrets::SecretError,
};

/// How requests travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// gRPC over HTTP/2, which it speaks at once where there is no TLS (RFC 9113, section 3.3).
    Grpc,
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// How requests travel.
    pub protocol: Protocol,
    /// What becomes of a record.
    pub signal: Signal,
    /// How bodies are compressed.
    pub coding: Coding,
}

/// What takes OTLP.
pub(super) struct Otlp(Way);

enum Way {
    Http { client: Client, path: String, coding: Coding },
    Grpc { client: grpc_client::Client, method: &'static str },
}

impl Target for Otlp {
    async fn send(&self, parcel: &Parcel) -> Answer {
        match &self.0 {
            Way::Http { client, path, coding } => post(client, path, *coding, parcel).await,
            Way::Grpc { client, method } => {
                let called = client.call(method, parcel.bytes().clone()).await;
                called.map(|called| grpc::read(parcel, called, SystemTime::now()))
            }
        }
        .unwrap_or_else(Answer::Later)
    }
}

impl Probe for Otlp {
    async fn probe(&self) -> Result<String, Trouble> {
        match &self.0 {
            Way::Http { client, .. } => client.probe().await,
            Way::Grpc { client, method } => grpc::found(client.call(method, Bytes::new()).await?),
        }
    }
}

impl Otlp {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Config { access, protocol, signal, coding } = config;
        Ok(Self(match protocol {
            Protocol::Http => {
                let path = path_of(access.url.path(), signal);
                let reading = Reading { most: MAX_ANSWER_BYTES, time: MAX_BODY_TIME };
                Way::Http { client: Client::new(access, own, reading)?, path, coding }
            }
            Protocol::Grpc => {
                let client = grpc_client::Client::new(access, own, coding, MAX_ANSWER_BYTES)?;
                Way::Grpc { client, method: grpc::method_of(signal) }
            }
        }))
    }
}

async fn post(client: &Client, path: &str, coding: Coding, parcel: &Parcel) -> Result<Answer, Trouble> {
    let mut request = client.request_at(&Method::POST, path);
    request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
    if let Some(coding) = coding.name() {
        request = request.header(header::CONTENT_ENCODING, coding);
    }
    let request = request.body(Full::new(coding.encode(parcel.bytes().clone())));
    let request = request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?;
    let (head, body) = client.send(request).await?;
    Ok(read(parcel, head.status, &head.headers, body))
}

/// Where a signal goes, below what the URL's path says (OTLP, "OTLP/HTTP request").
fn path_of(path: &str, signal: Signal) -> String {
    let own = match signal {
        Signal::Logs => "/v1/logs",
        Signal::Spans => "/v1/traces",
    };
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let path = path.trim_end_matches('/');
    if path.ends_with(own) { format!("{path}{query}") } else { format!("{path}{own}{query}") }
}

/// What an answer comes to (OTLP, "OTLP/HTTP response").
fn read(parcel: &Parcel, status: StatusCode, headers: &http::HeaderMap, body: Option<Bytes>) -> Answer {
    let body = body.unwrap_or_default();
    match judge(status, headers, SystemTime::now()) {
        Answer::Delivered => partial(parcel, &body),
        // Only 429, 502, 503 and 504 are to be tried again: a collector says 500 of what it will never take.
        Answer::Later(_) if matches!(status.as_u16(), 500 | 501 | 505..=599) => {
            Answer::Never(refusal(status, &body))
        }
        Answer::Never(_) => Answer::Never(refusal(status, &body)),
        answer @ (Answer::Judged(_) | Answer::TooLarge | Answer::Later(_)) => answer,
    }
}

/// `Status` (google/rpc/status.proto) has a message.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let message = text(find(body, 2));
    let detail = if message.is_empty() { status.to_string() } else { format!("{status}: {}", cut(&message)) };
    Refusal::new(RefusalKind::Rejected, detail)
}

/// `ExportLogsServiceResponse`, `ExportTraceServiceResponse`: `partial_success` has how many, and why.
fn partial(parcel: &Parcel, body: &[u8]) -> Answer {
    let Some(Content::Bytes(partial)) = find(body, 1) else { return Answer::Delivered };
    let Some(Content::Number(rejected @ 1..)) = find(partial, 1) else { return Answer::Delivered };
    let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(parcel.len());
    let message = text(find(partial, 2));
    let detail =
        format!("{rejected} of {} were rejected, it is not told which: {}", parcel.len(), cut(&message));
    let refused = Verdict::Never(Refusal::new(RefusalKind::Rejected, detail));
    let mut verdicts = vec![Verdict::Delivered; parcel.len() - rejected];
    verdicts.resize(parcel.len(), refused);
    Answer::Judged(verdicts)
}

/// The last such field of a message.
fn find(mut message: &[u8], field: u64) -> Option<Content<'_>> {
    let mut found = None;
    while let Some((number, content)) = take(&mut message) {
        if number == field {
            found = Some(content);
        }
    }
    found
}

fn text(content: Option<Content<'_>>) -> String {
    match content {
        Some(Content::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Content::Number(_)) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{
        wire::{message, number},
        *,
    };

    const RECORDS: usize = 5;

    fn parcel() -> Parcel {
        Parcel::new(vec![b'x'; RECORDS], (1..=RECORDS as u32).collect())
    }

    fn answer(status: u16, body: Vec<u8>) -> Answer {
        read(&parcel(), StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), Some(body.into()))
    }

    #[test]
    fn where_signals_go() {
        for (path, expected) in [
            ("/", "/v1/logs"),
            ("/otlp", "/otlp/v1/logs"),
            ("/otlp/?a=b", "/otlp/v1/logs?a=b"),
            ("/v1/logs", "/v1/logs"),
        ] {
            assert_eq!(path_of(path, Signal::Logs), expected);
        }
        assert_eq!(path_of("/", Signal::Spans), "/v1/traces");
    }

    #[test]
    fn so_many_are_refused_as_were_rejected() {
        let body = |rejected: u64| {
            let mut body = Vec::new();
            message(&mut body, 1, |out| {
                number(out, 1, rejected);
                wire::text(out, 2, b"too old");
            });
            body
        };
        assert_eq!(answer(200, Vec::new()), Answer::Delivered);
        assert_eq!(answer(200, b"<html>".to_vec()), Answer::Delivered);
        // A warning that is none of records.
        assert_eq!(answer(200, body(0)), Answer::Delivered);
        for (told, refused) in [(1, 1), (RECORDS as u64, RECORDS), (u64::MAX, RECORDS)] {
            let Answer::Judged(verdicts) = answer(200, body(told)) else { panic!("{told}") };
            let (delivered, rest) = verdicts.split_at(RECORDS - refused);
            assert!(delivered.iter().all(|verdict| *verdict == Verdict::Delivered));
            let detail = format!("{refused} of {RECORDS} were rejected, it is not told which: too old");
            let expected = Verdict::Never(Refusal::new(RefusalKind::Rejected, detail));
            assert!(rest.len() == refused && rest.iter().all(|verdict| *verdict == expected), "{rest:?}");
        }
    }

    #[test]
    fn what_is_tried_again_is_as_the_protocol_says() {
        let mut told = Vec::new();
        wire::text(&mut told, 2, b"no such tenant");
        for status in [400, 500, 501, 505] {
            let Answer::Never(refusal) = answer(status, told.clone()) else { panic!("{status}") };
            assert!(refusal.detail.ends_with(": no such tenant"), "{refusal:?}");
        }
        for status in [429, 502, 503, 504] {
            assert!(matches!(answer(status, told.clone()), Answer::Later(_)), "{status}");
        }
        assert_eq!(answer(413, told), Answer::TooLarge);
    }
}
