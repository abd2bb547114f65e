//! What is counted in the HTTP metrics, and under which labels.

use bytes::Bytes;
use pod2pod_user::{
    http::{Exchange, Outcome},
    metrics::{HttpMetrics, Metrics, http::MAX_LABEL_SETS, routes},
    reassembly::Side,
};

use super::{record, with};

fn counted(exchanges: impl IntoIterator<Item = Exchange>) -> (String, HttpMetrics) {
    let (metrics, mut http) = Metrics::new(&routes::Config::default()).unwrap();
    exchanges.into_iter().for_each(|exchange| http.observe(&record(exchange)));
    http.publish();
    (String::from_utf8(metrics.render()).unwrap(), http)
}

fn check(exchange: Exchange, expected: &[&str]) {
    let (text, _) = counted([exchange]);
    let counts: Vec<_> = text.lines().filter(|line| line.contains("_duration_seconds_count")).collect();
    assert_eq!(counts, expected);
}

#[test]
fn labels_are_closed_sets() {
    check(
        super::exchange(),
        &[
            r#"http_server_request_duration_seconds_count{error_type="",http_request_method="GET",http_response_status_code="200",network_protocol_version="1.1"} 1"#,
        ],
    );
    check(
        with(|e| {
            e.connection.local = Some(Side::Originator);
            e.request.as_mut().unwrap().method = Bytes::from_static(b"get");
            e.request.as_mut().unwrap().minor_version = 0;
            e.response.as_mut().unwrap().status = 503;
        }),
        &[
            r#"http_client_request_duration_seconds_count{error_type="503",http_request_method="_OTHER",http_response_status_code="503",network_protocol_version="1.0"} 1"#,
        ],
    );
    check(
        with(|e| {
            e.outcome = Some(Outcome::Timeout);
            e.response = None;
        }),
        &[
            r#"http_server_request_duration_seconds_count{error_type="timeout",http_request_method="GET",http_response_status_code="",network_protocol_version="1.1"} 1"#,
        ],
    );
}

#[test]
fn one_exchange_is_counted_once() {
    check(with(|e| e.late = true), &[]);
    check(with(|e| e.outcome = None), &[]);
    check(with(|e| e.request = None), &[]);
    let (text, _) = counted([super::exchange(), super::exchange()]);
    assert!(text.contains("http_server_request_duration_seconds_sum{error_type=\"\",http_request_method=\"GET\",http_response_status_code=\"200\",network_protocol_version=\"1.1\"} 0.003668"), "{text}");
}

#[test]
fn an_outsider_cannot_multiply_label_sets() {
    let methods = ["GET", "PUT", "POST"];
    let sets = methods.iter().flat_map(|method| (100..1000).map(move |status| (method, status)));
    let exchanges = sets.map(|(method, status)| {
        with(|e| {
            e.request.as_mut().unwrap().method = Bytes::from_static(method.as_bytes());
            e.response.as_mut().unwrap().status = status;
        })
    });
    let (_, http) = counted(exchanges.clone().take(MAX_LABEL_SETS));
    assert_eq!(http.overflowed(), 0);
    let (text, http) = counted(exchanges.take(MAX_LABEL_SETS + 1));
    assert_eq!(http.overflowed(), 1);
    assert!(text.contains(
        "error_type=\"_OTHER\",http_request_method=\"_OTHER\",http_response_status_code=\"_OTHER\""
    ));
}
