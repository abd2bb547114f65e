//! Records to an HTTP/1.1 collector: JSON lines or an array of objects, one request a batch, until it has them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method, StatusCode, header};

use super::{
    coding::Coding,
    http_client::{Access, Client, MAX_BODY_TIME, Reading},
    own::OwnConnections,
    probe::Probe,
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, TroubleKind},
    secrets::SecretError,
};

/// Bytes of an answer that are read at most: only its head counts.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What became of the records is in the head.
const READING: Reading = Reading { most: MAX_ANSWER_BYTES, time: MAX_BODY_TIME };

/// How records are put into a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// An object a line.
    #[default]
    Lines,
    /// An array of objects.
    Array,
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// POST, PUT or PATCH.
    pub method: Method,
    /// How records are put into a body.
    pub body: Body,
    /// How bodies are compressed.
    pub coding: Coding,
}

/// The collector.
pub(super) struct Collector {
    client: Client,
    method: Method,
    body: Body,
    coding: Coding,
}

impl Target for Collector {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.post(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Probe for Collector {
    async fn probe(&self) -> Result<String, Trouble> {
        self.client.probe().await
    }
}

impl Collector {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Config { access, method, body, coding } = config;
        Ok(Self { client: Client::new(access, own, READING)?, method, body, coding })
    }

    async fn post(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let content_type = match self.body {
            Body::Lines => "application/x-ndjson",
            Body::Array => "application/json",
        };
        let mut request = self.client.request(&self.method).header(header::CONTENT_TYPE, content_type);
        if let Some(coding) = self.coding.name() {
            request = request.header(header::CONTENT_ENCODING, coding);
        }
        let request = request.body(Full::new(self.body(parcel)));
        let request = request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?;
        let (head, _) = self.client.send(request).await?;
        Ok(judge(head.status, &head.headers, SystemTime::now()))
    }

    fn body(&self, parcel: &Parcel) -> Bytes {
        let bytes = match self.body {
            Body::Lines => parcel.bytes().clone(),
            Body::Array => array(parcel).into(),
        };
        self.coding.encode(bytes)
    }
}

/// Objects of one line each as an array.
fn array(parcel: &Parcel) -> Vec<u8> {
    let mut array = Vec::with_capacity(parcel.bytes().len() + 2);
    array.push(b'[');
    for (place, item) in parcel.items().enumerate() {
        if place > 0 {
            array.push(b',');
        }
        array.extend_from_slice(item.trim_ascii_end());
    }
    array.push(b']');
    array
}

/// What a status says about all records of a request (RFC 9110, section 15).
pub(super) fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Answer {
    let later = |kind| {
        let after = headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
        Answer::Later(Trouble { kind, detail: status.to_string(), after })
    };
    match status.as_u16() {
        200..=299 => Answer::Delivered,
        // It is for people to say that another place is right, and to correct a wrong one: records wait for them.
        300..=399 | 404 | 405 | 411 | 415 | 421 | 423 | 424 | 426 | 431 => later(TroubleKind::Nonsense),
        401 | 403 | 407 => later(TroubleKind::Unauthorized),
        413 => Answer::TooLarge,
        425 | 429 => later(TroubleKind::Throttled),
        408 | 500..=599 => later(TroubleKind::Unavailable),
        400..=499 => Answer::Never(Refusal::new(RefusalKind::Rejected, status)),
        _ => later(TroubleKind::Nonsense),
    }
}

/// How long a server wants to be left alone: seconds, or until a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(value).ok()?.duration_since(now).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::http_client::MAX_CONNECT_TIME;

    #[test]
    fn a_second_address_and_a_body_that_does_not_end_have_their_time_in_an_attempt() {
        assert!(2 * MAX_CONNECT_TIME + MAX_BODY_TIME < crate::sinks::remote::DEFAULT_TIMEOUT);
    }

    #[test]
    fn bodies() {
        let parcel = Parcel::new("{\"a\":1}\n{\"b\":2}\n".as_bytes(), vec![8, 16]);
        assert_eq!(array(&parcel), b"[{\"a\":1},{\"b\":2}]");
        assert_eq!(array(&parcel.only(|_| false)), b"[]");
    }

    #[test]
    fn statuses() {
        let answer = |status: u16| {
            judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), SystemTime::UNIX_EPOCH)
        };
        let check = |statuses: &[u16], expected: fn(&Answer) -> bool| {
            for status in statuses {
                assert!(expected(&answer(*status)), "{status}: {:?}", answer(*status));
            }
        };
        check(&[200, 202, 204, 299], |answer| *answer == Answer::Delivered);
        check(&[413], |answer| *answer == Answer::TooLarge);
        check(&[400, 406, 409, 422, 451], |answer| matches!(answer, Answer::Never(_)));
        fn kind(answer: &Answer) -> Option<TroubleKind> {
            if let Answer::Later(trouble) = answer { Some(trouble.kind) } else { None }
        }
        check(&[408, 500, 503, 599], |answer| kind(answer) == Some(TroubleKind::Unavailable));
        check(&[425, 429], |answer| kind(answer) == Some(TroubleKind::Throttled));
        check(&[401, 403, 407], |answer| kind(answer) == Some(TroubleKind::Unauthorized));
        check(&[101, 301, 307, 404, 405, 415, 431, 999], |answer| {
            kind(answer) == Some(TroubleKind::Nonsense)
        });
    }

    #[test]
    fn when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, seconds: Option<u64>| {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        };
        check("120", Some(120));
        check("0", Some(0));
        // The date is RFC 9110's own example, section 5.6.7.
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:27 GMT", None);
        check("-1", None);
        check("soon", None);
    }
}
