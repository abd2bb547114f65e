//! No secret leaves enrichment, and nothing else is touched.

use bytes::Bytes;
use pod2pod_user::enrich::{Config, Redaction};

use super::{enrich, header, line, with};

/// Every place a credential can be, each holding the word `hunter2`.
fn secrets() -> pod2pod_user::http::Exchange {
    with(|e| {
        let request = e.request.as_mut().unwrap();
        request.target = Bytes::from_static(
            b"http://hunter2:hunter2@h/a;jsessionid=hunter2?x=1&%70assword=hunter2&API_KEY=hunter2&y=2",
        );
        request.headers = vec![
            header("host", "h"),
            header("authorization", "Bearer hunter2"),
            header("proxy-authorization", "Basic hunter2"),
            header("cookie", "a=hunter2"),
            header("x-api-key", "hunter2"),
            header("x-vault-token", "hunter2"),
            header("referer", "http://hunter2@h/?sig=hunter2&z=3#access_token=hunter2"),
            header("x-request-id", "kept"),
        ]
        .into();
        e.response.as_mut().unwrap().headers = vec![
            header("set-cookie", "a=hunter2"),
            header("location", "/next?token=hunter2"),
            header("etag", "kept"),
        ];
    })
}

#[test]
fn secrets_are_replaced_by_default() {
    let (record, _) = enrich(secrets(), Config::default());
    let told = line(&record);
    assert!(!told.contains("hunter2"), "{told}");
    for kept in ["x=1&", "&y=2", "&z=3", "\"kept\"", "http://REDACTED:REDACTED@h/a;jsessionid=REDACTED?"] {
        assert!(told.contains(kept), "{kept} is not in {told}");
    }
    assert_eq!(told.matches("[REDACTED]").count(), 6, "{told}");
}

#[test]
fn nothing_is_replaced_if_it_is_off() {
    let (record, _) = enrich(secrets(), Config { redaction: Redaction::Off, ..Config::default() });
    let told = line(&record);
    assert!(!told.contains("REDACTED"), "{told}");
    assert!(told.contains(
        "http://hunter2:hunter2@h/a;jsessionid=hunter2?x=1&%70assword=hunter2&API_KEY=hunter2&y=2"
    ));
}

#[test]
fn redaction_does_not_make_an_original() {
    let (record, _) = enrich(
        with(|e| e.request.as_mut().unwrap().target = Bytes::from_static(b"/a?token=hunter2")),
        Config::default(),
    );
    assert_eq!((record.query.as_deref(), record.original.as_deref()), (Some(&b"token=REDACTED"[..]), None));
}
