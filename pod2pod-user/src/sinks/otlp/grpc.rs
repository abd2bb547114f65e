//! OTLP over gRPC: where records go, and what an answer comes to (OTLP, "OTLP/gRPC response").

use std::time::{Duration, SystemTime};

use super::{Signal, find, partial, text, wire::Content};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Trouble, TroubleKind},
    sinks::{
        elasticsearch::cut,
        grpc_client::{Called, Code, Status},
        http::judge,
        http_client::let_in,
    },
};

/// What a detail of a status is that says when to come back (google/rpc/error_details.proto).
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// How servers say that a message is too long for them: in Go, and in Java.
const TOO_LARGE: [&str; 2] = ["larger than max", "exceeds maximum"];

/// The method that takes a signal.
pub(super) const fn method_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Spans => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    }
}

/// What an answer comes to.
pub(super) fn read(parcel: &Parcel, called: Called, now: SystemTime) -> Answer {
    let (status, message) = match called {
        Called::Told(status, message) => (status, message),
        // Who answers is not who was asked.
        Called::Http(status, headers) => return judge(status, &headers, now),
    };
    let after = retry_after(&status.details);
    let later = |kind| Answer::Later(Trouble { kind, detail: words(&status), after });
    match status.code {
        Code::OK => partial(parcel, &message),
        Code::RESOURCE_EXHAUSTED if after.is_some() => later(TroubleKind::Throttled),
        Code::RESOURCE_EXHAUSTED if TOO_LARGE.iter().any(|words| status.message.contains(words)) => {
            Answer::TooLarge
        }
        Code::CANCELLED
        | Code::DEADLINE_EXCEEDED
        | Code::ABORTED
        | Code::OUT_OF_RANGE
        | Code::UNAVAILABLE
        | Code::DATA_LOSS => later(TroubleKind::Unavailable),
        // It is for people to say who we are, and that another place is right: records wait for them.
        Code::UNAUTHENTICATED | Code::PERMISSION_DENIED => later(TroubleKind::Unauthorized),
        Code::UNIMPLEMENTED => later(TroubleKind::Nonsense),
        _ => Answer::Never(Refusal::new(RefusalKind::Rejected, words(&status))),
    }
}

/// What an answer to nothing says, in words.
///
/// # Errors
/// It does not let us in, or is not what we look for.
pub(super) fn found(called: Called) -> Result<String, Trouble> {
    let status = match called {
        Called::Told(status, _) => status,
        Called::Http(status, _) => {
            let_in(status)?;
            return Err(Trouble::new(
                TroubleKind::Nonsense,
                format!("answers {status}, and not as gRPC does"),
            ));
        }
    };
    let kind = match status.code {
        Code::UNAUTHENTICATED | Code::PERMISSION_DENIED => TroubleKind::Unauthorized,
        Code::UNIMPLEMENTED => TroubleKind::Nonsense,
        _ => return Ok(format!("answers an export of nothing with {}", words(&status))),
    };
    Err(Trouble::new(kind, words(&status)))
}

fn words(status: &Status) -> String {
    let name = status.code.name();
    let message = cut(&status.message);
    let hint = if status.code == Code::UNIMPLEMENTED { " (does it take this signal?)" } else { "" };
    if message.is_empty() { format!("{name}{hint}") } else { format!("{name}{hint}: {message}") }
}

/// How long a server wants to be left alone: `google.rpc.Status` has details of any kind, one of which is `RetryInfo` with a `Duration`.
fn retry_after(mut details: &[u8]) -> Option<Duration> {
    while let Some((field, content)) = super::take(&mut details) {
        let (3, Content::Bytes(any)) = (field, content) else { continue };
        if text(find(any, 1)) != RETRY_INFO {
            continue;
        }
        // One that says nothing else says: now.
        let Some(Content::Bytes(info)) = find(any, 2) else { return Some(Duration::ZERO) };
        let Some(Content::Bytes(delay)) = find(info, 1) else { return Some(Duration::ZERO) };
        let number = |field| match find(delay, field) {
            Some(Content::Number(number)) => number,
            Some(Content::Bytes(_)) | None => 0,
        };
        // Less than nothing is nothing.
        let seconds = number(1).cast_signed().try_into().unwrap_or(0);
        let nanoseconds = u32::try_from(number(2)).unwrap_or(0);
        return Some(Duration::new(seconds, nanoseconds.min(999_999_999)));
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::{
        super::wire::{bytes, message, number},
        *,
    };
    use crate::delivery::Verdict;

    fn parcel() -> Parcel {
        Parcel::new("abc".as_bytes(), vec![1, 2, 3])
    }

    fn told(code: u32, message: &str, details: Vec<u8>) -> Answer {
        let status = Status { code: Code(code), message: message.to_owned(), details };
        read(&parcel(), Called::Told(status, Bytes::new()), SystemTime::UNIX_EPOCH)
    }

    /// `google.rpc.Status` that says to come back after this time.
    fn retry_info(delay: Option<(i64, u64)>) -> Vec<u8> {
        let mut details = Vec::new();
        number(&mut details, 1, 14);
        message(&mut details, 3, |any| bytes(any, 1, b"type.googleapis.com/google.rpc.DebugInfo"));
        message(&mut details, 3, |any| {
            bytes(any, 1, RETRY_INFO.as_bytes());
            message(any, 2, |info| {
                if let Some((seconds, nanoseconds)) = delay {
                    message(info, 1, |duration| {
                        number(duration, 1, seconds.cast_unsigned());
                        number(duration, 2, nanoseconds);
                    });
                }
            });
        });
        details
    }

    #[test]
    fn codes_are_tried_again_as_the_protocol_says() {
        assert_eq!(told(0, "", Vec::new()), Answer::Delivered);
        for code in [1, 4, 10, 11, 14, 15] {
            let Answer::Later(trouble) = told(code, "x", Vec::new()) else { panic!("{code}") };
            assert_eq!((trouble.kind, trouble.after), (TroubleKind::Unavailable, None), "{code}");
            assert!(trouble.detail.ends_with(": x"), "{trouble:?}");
        }
        for code in [2, 3, 5, 6, 8, 9, 13, 17, u32::MAX] {
            let Answer::Never(refusal) = told(code, "no such tenant", Vec::new()) else { panic!("{code}") };
            assert!(refusal.detail.ends_with(": no such tenant"), "{refusal:?}");
        }
        for (code, kind) in
            [(7, TroubleKind::Unauthorized), (16, TroubleKind::Unauthorized), (12, TroubleKind::Nonsense)]
        {
            let Answer::Later(trouble) = told(code, "", Vec::new()) else { panic!("{code}") };
            assert_eq!(trouble.kind, kind, "{code}");
        }
    }

    #[test]
    fn what_is_exhausted_is_time_or_room() {
        let Answer::Later(trouble) = told(8, "slow down", retry_info(Some((7, 500_000_000)))) else {
            panic!()
        };
        assert_eq!(
            (trouble.kind, trouble.after),
            (TroubleKind::Throttled, Some(Duration::from_millis(7500)))
        );
        for words in
            ["grpc: received message larger than max (5 vs. 4)", "gRPC message exceeds maximum size 4"]
        {
            assert_eq!(told(8, words, Vec::new()), Answer::TooLarge);
        }
        // A quota that nobody knows the end of: the protocol says not to come back.
        assert!(matches!(told(8, "quota", Vec::new()), Answer::Never(_)));
    }

    #[test]
    fn when_to_come_back() {
        let check = |details: &[u8], seconds: Option<u64>| {
            assert_eq!(retry_after(details), seconds.map(Duration::from_secs), "{details:?}");
        };
        check(&retry_info(Some((120, 0))), Some(120));
        check(&retry_info(Some((-1, 0))), Some(0));
        check(&retry_info(None), Some(0));
        check(b"", None);
        check(b"nonsense", None);
        let whole = retry_info(Some((120, 0)));
        for cut in 0..whole.len() {
            check(&whole[..cut], None);
        }
    }

    #[test]
    fn so_many_are_refused_as_were_rejected() {
        let mut answer = Vec::new();
        message(&mut answer, 1, |out| number(out, 1, 2));
        let status = Status { code: Code::OK, message: String::new(), details: Vec::new() };
        let answer = read(&parcel(), Called::Told(status, answer.into()), SystemTime::UNIX_EPOCH);
        let Answer::Judged(verdicts) = answer else { panic!("{answer:?}") };
        assert_eq!(verdicts[0], Verdict::Delivered);
        assert!(
            verdicts[1..].iter().all(|verdict| matches!(verdict, Verdict::Never(_))) && verdicts.len() == 3
        );
    }

    #[test]
    fn who_does_not_speak_it_is_judged_by_its_status() {
        let http = |status: u16| {
            let called = Called::Http(StatusCode::from_u16(status).unwrap(), HeaderMap::new());
            read(&parcel(), called, SystemTime::UNIX_EPOCH)
        };
        assert!(matches!(http(503), Answer::Later(Trouble { kind: TroubleKind::Unavailable, .. })));
        assert!(matches!(http(404), Answer::Later(Trouble { kind: TroubleKind::Nonsense, .. })));
        assert!(matches!(http(401), Answer::Later(Trouble { kind: TroubleKind::Unauthorized, .. })));
    }

    #[test]
    fn what_a_probe_finds() {
        let status = |code, message: &str| {
            let status = Status { code: Code(code), message: message.to_owned(), details: Vec::new() };
            found(Called::Told(status, Bytes::new())).map_err(|trouble| (trouble.kind, trouble.detail))
        };
        assert_eq!(status(0, ""), Ok("answers an export of nothing with OK".to_owned()));
        assert_eq!(
            status(3, "empty"),
            Ok("answers an export of nothing with INVALID_ARGUMENT: empty".to_owned())
        );
        assert_eq!(
            status(12, "unknown service"),
            Err((
                TroubleKind::Nonsense,
                "UNIMPLEMENTED (does it take this signal?): unknown service".to_owned()
            ))
        );
        assert_eq!(status(16, ""), Err((TroubleKind::Unauthorized, "UNAUTHENTICATED".to_owned())));
        for (code, kind) in [(403, TroubleKind::Unauthorized), (200, TroubleKind::Nonsense)] {
            let called = Called::Http(StatusCode::from_u16(code).unwrap(), HeaderMap::new());
            assert_eq!(found(called).unwrap_err().kind, kind);
        }
    }
}
