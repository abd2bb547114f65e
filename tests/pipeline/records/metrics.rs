//! What is counted in the HTTP metrics, and under which labels.

use bytes::Bytes;
use pod2pod_user::{
    http::{Exchange, Outcome},
    metrics::{
        HttpMetrics, MAX_PAGES, Metrics,
        http::{DEFAULT_LABEL_SETS, LABEL_SET_BYTES, MAX_LABEL_SETS},
        routes,
    },
    reassembly::Side,
};

use super::{record, with};

fn counted(exchanges: impl IntoIterator<Item = Exchange>) -> (String, HttpMetrics) {
    let (metrics, mut http) = Metrics::new(&routes::Config::default(), DEFAULT_LABEL_SETS).unwrap();
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

/// As many exchanges as asked for, each of a label set of its own.
fn different(count: usize) -> impl Iterator<Item = Exchange> {
    let methods = ["GET", "PUT", "POST"];
    let sets = methods.into_iter().flat_map(|method| (100..1000).map(move |status| (method, status)));
    let exchanges = sets.map(|(method, status)| {
        with(|e| {
            let request = e.request.as_mut().unwrap();
            request.method = Bytes::from_static(method.as_bytes());
            request.target = Bytes::from_static(b"/api/v2/customers/1234/orders/17/items");
            e.response.as_mut().unwrap().status = status;
        })
    });
    exchanges.take(count)
}

#[test]
fn an_outsider_cannot_multiply_label_sets() {
    let (_, http) = counted(different(DEFAULT_LABEL_SETS));
    assert_eq!(http.overflowed(), 0);
    let (text, http) = counted(different(DEFAULT_LABEL_SETS + 1));
    assert_eq!(http.overflowed(), 1);
    assert!(text.contains(
        "error_type=\"_OTHER\",http_request_method=\"_OTHER\",http_response_status_code=\"_OTHER\""
    ));
}

#[test]
fn workers_share_the_label_sets_that_there_may_be() {
    for (asked, given) in [(0, DEFAULT_LABEL_SETS), (300, 300), (MAX_LABEL_SETS + 1, MAX_LABEL_SETS)] {
        let (_, mut http) = Metrics::new(&routes::Config::default(), asked).unwrap();
        let mut other = http.for_worker();
        let (half, rest) = (given / 2, given - given / 2);
        different(half).for_each(|exchange| http.observe(&record(exchange)));
        different(rest).for_each(|exchange| other.observe(&record(exchange)));
        assert_eq!((http.overflowed(), other.overflowed()), (0, 0), "{asked}");
        different(rest + 1).for_each(|exchange| other.observe(&record(exchange)));
        assert_eq!(other.overflowed(), 1, "{asked}");
    }
}

#[test]
fn a_label_set_costs_what_the_budget_counts() {
    for (mode, sets) in
        [(routes::Mode::Off, DEFAULT_LABEL_SETS), (routes::Mode::Learned, 500), (routes::Mode::Learned, 2000)]
    {
        let records: Vec<_> = different(sets).map(record).collect();
        let made = || Metrics::new(&routes::Config { mode, rules: Vec::new() }, sets).unwrap();
        let mut all = None;
        let kept = allocation_counter::measure(|| {
            let (metrics, mut http) = made();
            records.iter().for_each(|record| http.observe(record));
            http.publish();
            all = Some((metrics, http));
        });
        let (metrics, http) = all.unwrap();
        assert_eq!(http.overflowed(), 0);
        // The length of the first page is not known before.
        drop(metrics.page());
        let mut pages = Vec::new();
        let read = allocation_counter::measure(|| {
            // Slow readers: each has its page until it has read it.
            pages.extend((0..2 * MAX_PAGES).map(|_| metrics.page()));
        });
        let each = (kept.bytes_current as u64 + read.bytes_max) / sets as u64;
        assert!(
            each <= LABEL_SET_BYTES,
            "{each} bytes, {} kept and {} read",
            kept.bytes_current,
            read.bytes_max
        );
        assert!(each > LABEL_SET_BYTES / 2, "{each} bytes");
        let mut different: Vec<_> = pages.iter().map(|page| page.as_ptr()).collect();
        different.dedup();
        assert_eq!(different.len(), MAX_PAGES);
        drop(pages);
    }
}
