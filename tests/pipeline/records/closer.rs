//! Records while somebody looks closer: what all have is as if nobody did, and the rest is beside it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use pod2pod_user::{
    enrich::{Closer, Config, Enricher, WallOffset},
    http::Codings,
    record::MessageFacts,
};

use super::{exchange, header, line, with};

const CONTENT: &str = "hello, hello, hello";

fn gzip(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap().into()
}

fn enricher(own_bytes: usize, content_bytes: usize, closer_bytes: usize) -> Enricher {
    let mut enricher = Enricher::new(Config { content_bytes, ..Config::default() });
    enricher.look_closer(Some(Closer {
        own_headers: [vec!["x-own".to_owned()], Vec::new()],
        own_bytes: [own_bytes; 2],
        content_bytes: closer_bytes,
    }));
    enricher
}

fn names(facts: &MessageFacts) -> Vec<&[u8]> {
    facts.headers.iter().map(|header| &header.name[..]).collect()
}

#[test]
fn what_is_everybodys_stays_and_the_rest_is_beside_it() {
    let mut seen = with(|exchange| {
        let request = exchange.request.as_mut().unwrap();
        request.headers.extend([
            header("x-own", "1"),
            header("x-more", "2"),
            header("authorization", "Bearer z"),
        ]);
        request.body_prefix = Bytes::from_static(b"0123456789");
        let response = exchange.response.as_mut().unwrap();
        response.headers.push(header("x-answer", "3"));
        response.codings = Codings::default();
        response.codings.take(b"gzip");
        response.body_prefix = gzip(CONTENT);
    });
    let mut enricher = enricher(4, 4, 12);
    let (record, _) = enricher.enrich(&mut seen, WallOffset::default());
    assert_eq!((names(&record.request), &record.request.body[..]), (vec![&b"x-own"[..]], &b"0123"[..]));
    assert!(names(&record.response).is_empty());
    let [request, response] = &**record.closer.as_ref().unwrap();
    assert_eq!(names(request), [&b"authorization"[..], b"x-more", b"x-own"]);
    assert!(!request.headers.iter().any(|header| header.value == "Bearer z"), "credentials are nobody's");
    assert_eq!(&request.body[..], b"0123456789");
    assert_eq!((names(response), &response.body[..]), (vec![&b"x-answer"[..]], &CONTENT.as_bytes()[..12]));
    assert_eq!(response.decoded, ["gzip"]);
    let written = line(record);
    assert!(
        !written.contains("x-more") && !written.contains("x-answer") && !written.contains("01234"),
        "{written}"
    );
    // Of the four bytes that are all that records have nothing can be decoded; what was given beside is not counted.
    assert_eq!((enricher.stats().bodies_decoded, enricher.stats().bodies_damaged), (0, 1));
}

#[test]
fn when_nobody_looks_any_more_nothing_is_left_of_it() {
    let mut enricher = enricher(0, 0, 10);
    assert!(enricher.enrich(&mut exchange(), WallOffset::default()).0.closer.is_some());
    enricher.look_closer(None);
    assert_eq!(enricher.enrich(&mut exchange(), WallOffset::default()).0.closer, None);
}
