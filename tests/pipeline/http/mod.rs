//! HTTP: conversations in, exchanges out, each at every split point.

mod framing;

use support::http::Talk;
