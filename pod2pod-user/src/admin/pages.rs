//! The pages of each listener: what they say to whom, not whether one may ask.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue},
};

use super::Shown;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// What holds no payload and no settings.
    Plain,
    /// Settings.
    Settings,
}

impl Pages {
    pub(super) const fn names(self) -> &'static str {
        match self {
            Self::Plain => "/metrics, /live and /ready",
            Self::Settings => "/config and /tail",
        }
    }

    const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["/metrics", "/live", "/ready"],
            Self::Settings => &["/config", super::tail::PATH],
        }
    }

    /// What is said of a question that has no answer here.
    pub(super) fn refuses(self, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        if !self.paths().contains(&request.uri().path()) {
            return Some(text(StatusCode::NOT_FOUND, format!("here is {}\n", self.names())));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        if !request.body().is_end_stream() {
            let mut response = text(StatusCode::PAYLOAD_TOO_LARGE, "a question without content\n");
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Some(response);
        }
        None
    }

    /// The answer to what it does not refuse.
    pub(super) fn answer(self, request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/metrics" => typed(shown.metrics.page(), "text/plain; version=0.0.4; charset=utf-8"),
            "/config" => {
                let mut response = typed(shown.settings.clone(), "application/json");
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            "/live" if !shown.health.is_live(Instant::now()) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "no heartbeat: nothing is watched\n")
            }
            "/ready" => {
                let readiness = shown.health.readiness(Instant::now());
                let ready = if readiness.is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(ready, format!("{}\n", readiness.says))
            }
            _ => text(StatusCode::OK, "ok\n"),
        }
    }
}

/// An answer in a sentence.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = typed(body, "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn typed(body: impl Into<Bytes>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
