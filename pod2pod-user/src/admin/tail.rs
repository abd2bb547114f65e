//! `/tail`: records as they come, as server-sent events (HTML Living Standard, section 9.2), until the other side goes or is stuck.
//!
//! `?filter=status>=500&format=text&width=120&colour=1`. An event without a name is a record; `lost` says how many there was no time for.

use std::{
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
    route::Filter,
    sinks::{
        Tail,
        tail::{Looking, MAX_READERS, News, View},
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

/// Either a page, or what has no end.
pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

/// Shows records to who asks, or says why not.
pub(super) fn answer(request: &Request<Incoming>, tail: &Arc<Tail>, looks_on: &Arc<AtomicBool>) -> Answer {
    let wanted = match Wanted::parse(request.uri().query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")).map(Either::Left),
    };
    let mut response = if request.method() == Method::HEAD {
        Response::new(Either::Left(Full::default()))
    } else {
        let Some(looking) = tail.join(wanted.filter, wanted.view) else {
            let full = format!("{MAX_READERS} look on, and no more can\n");
            return text(StatusCode::SERVICE_UNAVAILABLE, full).map(Either::Left);
        };
        looks_on.store(true, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send(looking, sender));
        Response::new(Either::Right(Events { receiver, looks_on: Arc::clone(looks_on) }))
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is asked for.
#[derive(Debug, PartialEq)]
struct Wanted {
    filter: Option<Filter>,
    view: View,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, String> {
        let (mut filter, mut is_text, mut width, mut colour) = (None, false, 120, false);
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
                ("width", text) => {
                    let number = text.parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width));
                    width = number.ok_or_else(|| format!("width: a number from 1 to {MAX_WIDTH}"))?;
                }
                _ => return Err("here are filter, format=json or text, width and colour=0 or 1".to_owned()),
            }
        }
        let view = if is_text { View::Text(width, colour) } else { View::Json };
        Ok(Self { filter, view })
    }
}

/// Hands on what comes until nobody takes it.
async fn send(looking: Looking, sender: mpsc::Sender<Bytes>) {
    // At once, so that the other side knows that it looks on.
    let mut chunk = Bytes::from_static(b": here it begins\n\n");
    loop {
        if !matches!(timeout(STUCK, sender.send(chunk)).await, Ok(Ok(()))) {
            return;
        }
        chunk = tokio::select! {
            news = looking.next() => events(&news),
            () = sleep_until(Instant::now() + SILENCE) => Bytes::from_static(b":\n\n"),
            () = sender.closed() => return,
        };
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

    #[test]
    fn what_is_asked_for() {
        let check = |query: &str, filter: Option<&str>, view: View| {
            let wanted = Wanted::parse(query).unwrap();
            assert_eq!((wanted.filter.as_ref().map(Filter::text), wanted.view), (filter, view), "{query}");
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
        ] {
            assert!(Wanted::parse(query).unwrap_err().starts_with(expected), "{query}");
        }
    }

    #[test]
    fn records_are_events() {
        let news = News { lines: vec![Bytes::from("{}\n"), Bytes::from("a\nb\n")], lost: 3 };
        assert_eq!(events(&news), "event: lost\ndata: 3\n\ndata: {}\n\ndata: a\ndata: b\n\n");
    }
}
