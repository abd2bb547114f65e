//! `/tail`: records as they come, as server-sent events (HTML Living Standard, section 9.2), until the other side goes or is stuck.
//!
//! `?filter=status>=500&format=text&width=120&colour=1`, or `?headers=x-request-id&body=4096&for=60s` for more of each record, as far as the
//! operator allows. An event without a name is a record; `lost` says how many there was no time for.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::pages::text;
use crate::{
    flags::interval,
    route::Filter,
    sinks::{
        Tail,
        closer::{Allowed, Asked},
        tail::{Looking, MAX_READERS, News, View, Wanted},
    },
};

/// Where it is.
pub(super) const PATH: &str = "/tail";
/// Who takes nothing for so long is stuck, and is left.
const STUCK: Duration = Duration::from_secs(60);
/// A comment is sent when there was nothing else for so long: whatever is between may forget a connection that is silent.
const SILENCE: Duration = Duration::from_secs(15);
/// Widest terminal that is believed.
pub const MAX_WIDTH: usize = 1000;

/// All that may be asked for.
const ALL_HEADERS: &str = "all";
/// Longest time that can be asked for.
pub const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
const HERE: &str = "here are filter, format=json or text, width, colour=0 or 1, headers=all or names, body=BYTES and for=TIME";

/// Either a page, or what has no end.
pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

/// Shows records to who asks, or says why not.
pub(super) fn answer(
    request: &Request<Incoming>,
    peer: SocketAddr,
    tail: &Arc<Tail>,
    looks_on: &Arc<AtomicBool>,
) -> Answer {
    let asked = Query::parse(request.uri().query().unwrap_or_default())
        .map_err(|error| (StatusCode::BAD_REQUEST, error))
        .and_then(|asked| asked.allow(tail.allowed()).map_err(|error| (StatusCode::FORBIDDEN, error)));
    let Query { wanted, time, .. } = match asked {
        Ok(asked) => asked,
        Err((status, error)) => return text(status, format!("{error}\n")).map(Either::Left),
    };
    let mut response = if request.method() == Method::HEAD {
        Response::new(Either::Left(Full::default()))
    } else {
        let closer = wanted.closer.clone();
        let Some(looking) = tail.join(wanted) else {
            let full = format!("{MAX_READERS} look on, and no more can\n");
            return text(StatusCode::SERVICE_UNAVAILABLE, full).map(Either::Left);
        };
        if let (Some(Asked { headers, body_bytes }), Some(time)) = (closer, time) {
            tracing::info!(%peer, ?headers, body_bytes, ?time, "somebody looks closer");
        }
        looks_on.store(true, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send(looking, sender, time.map(|time| Instant::now() + time)));
        Response::new(Either::Right(Events { receiver, looks_on: Arc::clone(looks_on) }))
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is asked for.
#[derive(Debug, PartialEq)]
struct Query {
    wanted: Wanted,
    /// All headers that may be asked for.
    all_headers: bool,
    /// Then it ends.
    time: Option<Duration>,
}

impl Query {
    fn parse(query: &str) -> Result<Self, String> {
        let (mut filter, mut is_text, mut width, mut colour) = (None, false, 120, false);
        let (mut closer, mut all_headers, mut time) = (Asked::default(), false, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("filter", "") => {}
                ("filter", text) => {
                    filter = Some(Filter::parse(text).map_err(|error| format!("filter: {error}"))?);
                }
                ("format", "json") => is_text = false,
                ("format", "text") => is_text = true,
                ("colour", "0") => colour = false,
                ("colour", "1") => colour = true,
                ("headers", ALL_HEADERS) => all_headers = true,
                ("headers", names) => {
                    closer.headers.extend(names.split(',').map(|name| name.trim().to_ascii_lowercase()));
                }
                ("body", text) => {
                    let bytes = text.parse().map_err(|_| "body: a number of bytes".to_owned())?;
                    closer.body_bytes = bytes;
                }
                ("for", text) => {
                    let allowed = Duration::from_nanos(1)..=MAX_TIME;
                    let asked = interval(text, allowed).ok_or("for: a duration such as 60s; at most 24h")?;
                    time = Some(asked);
                }
                ("width", text) => {
                    let number = text.parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width));
                    width = number.ok_or_else(|| format!("width: a number from 1 to {MAX_WIDTH}"))?;
                }
                _ => return Err(HERE.to_owned()),
            }
        }
        let view = if is_text { View::Text(width, colour) } else { View::Json };
        let is_closer = all_headers || closer != Asked::default();
        if is_closer && time.is_none() {
            return Err("headers and body are shown for a time: for=60s".to_owned());
        }
        if is_closer && is_text {
            return Err("headers and body are shown as JSON: format=json".to_owned());
        }
        let closer = is_closer.then_some(closer);
        Ok(Self { wanted: Wanted { filter, view, closer }, all_headers, time })
    }

    /// The same if the operator allows it.
    fn allow(mut self, allowed: &Allowed) -> Result<Self, String> {
        let Some(closer) = &mut self.wanted.closer else { return Ok(self) };
        if self.all_headers {
            closer.headers.clone_from(&allowed.headers);
        }
        let mut over = Vec::new();
        if self.all_headers && allowed.headers.is_empty() {
            over.push("no headers may be asked for (tail.headers)".to_owned());
        }
        for name in closer.headers.iter().filter(|name| !allowed.headers.contains(name)) {
            over.push(format!("the header {name:?} may not be asked for (tail.headers)"));
        }
        if closer.body_bytes > allowed.body_bytes {
            over.push(format!(
                "{} bytes of each body may be asked for (tail.body_bytes)",
                allowed.body_bytes
            ));
        }
        if self.time.is_some_and(|time| time > allowed.time) {
            over.push(format!("headers and body may be asked for {:?} (tail.time)", allowed.time));
        }
        if over.is_empty() { Ok(self) } else { Err(over.join("; ")) }
    }
}

/// Hands on what comes until nobody takes it.
async fn send(looking: Looking, sender: mpsc::Sender<Bytes>, end: Option<Instant>) {
    // At once, so that the other side knows that it looks on.
    let mut chunk = Bytes::from_static(b": here it begins\n\n");
    loop {
        if !matches!(timeout(STUCK, sender.send(chunk)).await, Ok(Ok(()))) {
            return;
        }
        let silence = Instant::now() + SILENCE;
        chunk = tokio::select! {
            news = looking.next() => events(&news),
            () = sleep_until(end.map_or(silence, |end| end.min(silence))) => Bytes::from_static(b":\n\n"),
            () = sender.closed() => return,
        };
        if end.is_some_and(|end| Instant::now() >= end) {
            return;
        }
    }
}

/// As events: each line of text is one of data.
fn events(news: &News) -> Bytes {
    let mut out = Vec::new();
    if news.lost > 0 {
        out.extend_from_slice(format!("event: lost\ndata: {}\n\n", news.lost).as_bytes());
    }
    for lines in &news.lines {
        for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|byte| *byte == b'\n') {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
    }
    out.into()
}

/// A body that has no end.
pub(super) struct Events {
    receiver: mpsc::Receiver<Bytes>,
    looks_on: Arc<AtomicBool>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(ready!(self.receiver.poll_recv(context)).map(|chunk| Ok(Frame::data(chunk))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.looks_on.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::closer::DEFAULT_MAX_TIME;

    #[test]
    fn what_is_asked_for() {
        let check = |query: &str, filter: Option<&str>, view: View| {
            let Query { wanted, .. } = Query::parse(query).unwrap();
            let seen = (wanted.filter.as_ref().map(Filter::text), wanted.view, wanted.closer);
            assert_eq!(seen, (filter, view, None), "{query}");
        };
        check("", None, View::Json);
        check("filter=", None, View::Json);
        check("filter=status%3E%3D500+namespace%3Dshop", Some("status>=500 namespace=shop"), View::Json);
        check("format=text", None, View::Text(120, false));
        check(&format!("format=text&width={MAX_WIDTH}&colour=1"), None, View::Text(MAX_WIDTH, true));
        for (query, expected) in [
            ("filter=statuz%3D5", "filter: word 1, "),
            ("format=xml", "here are "),
            ("since=1", "here are "),
            ("width=0", "width: "),
            (&format!("width={}", MAX_WIDTH + 1), "width: "),
            ("body=4KiB&for=1s", "body: "),
            ("for=0s", "for: "),
            ("for=86401s", "for: "),
            ("headers=all", "headers and body are shown for a time"),
            ("body=1&format=text&for=1s", "headers and body are shown as JSON"),
        ] {
            assert!(Query::parse(query).unwrap_err().starts_with(expected), "{query}");
        }
        assert_eq!(Query::parse("for=24h").unwrap().time, Some(MAX_TIME));
    }

    #[test]
    fn more_is_shown_as_far_as_the_operator_allows() {
        let time = Duration::from_secs(60);
        let allowed = Allowed { headers: vec!["x-a".to_owned(), "x-b".to_owned()], body_bytes: 4096, time };
        let ask = |query: &str, allowed: &Allowed| {
            Query::parse(query).unwrap().allow(allowed).map(|query| query.wanted.closer.unwrap_or_default())
        };
        let asked = |headers: &[&str], body_bytes| {
            Ok(Asked { headers: headers.iter().map(|name| (*name).to_owned()).collect(), body_bytes })
        };
        for (query, expected) in [
            ("for=24h", asked(&[], 0)),
            ("headers=all&for=60s", asked(&["x-a", "x-b"], 0)),
            ("headers=X-B&body=4096&for=1s", asked(&["x-b"], 4096)),
            (
                "body=4097&for=1s",
                Err("4096 bytes of each body may be asked for (tail.body_bytes)".to_owned()),
            ),
            ("body=1&for=61s", Err("headers and body may be asked for 60s (tail.time)".to_owned())),
            ("headers=x-c&for=1s", Err("the header \"x-c\" may not be asked for (tail.headers)".to_owned())),
        ] {
            assert_eq!(ask(query, &allowed), expected, "{query}");
        }
        let nothing = Allowed::default();
        let longest = format!("for={}s", DEFAULT_MAX_TIME.as_secs());
        for (time, expected) in [(longest, true), (format!("for={}s", DEFAULT_MAX_TIME.as_secs() + 1), false)]
        {
            let some = Allowed { body_bytes: 1, ..nothing.clone() };
            assert_eq!(ask(&format!("body=1&{time}"), &some).is_ok(), expected, "{time}");
        }
        assert!(ask("headers=all&for=1s", &nothing).unwrap_err().starts_with("no headers may be asked for"));
        assert!(ask("body=1&for=1s", &nothing).unwrap_err().starts_with("0 bytes of each body"));
    }

    #[test]
    fn records_are_events() {
        let news = News { lines: vec![Bytes::from("{}\n"), Bytes::from("a\nb\n")], lost: 3 };
        assert_eq!(events(&news), "event: lost\ndata: 3\n\ndata: {}\n\ndata: a\ndata: b\n\n");
    }
}
