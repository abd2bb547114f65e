//! Heads as they come.

use pod2pod_user::http::Config;

use super::{GET, OK, Talk, get};

#[test]
fn every_form_of_target_and_any_token_as_method() {
    for (line, expected) in [
        ("GET http://h/a?b HTTP/1.1", "GET http://h/a?b 200 0/2 complete"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * 200 0/2 complete"),
        ("QUERY /q HTTP/1.1", "QUERY /q 200 0/2 complete"),
        ("get / HTTP/1.1", "get / 200 0/2 complete"),
        ("X_y!~ / HTTP/1.0", "X_y!~ / 200 0/2 complete"),
        ("GET /a b HTTP/1.1", "GET /a b 200 0/2 complete odd_target"),
        ("GET /\u{e4} HTTP/1.1", "GET /\u{e4} 200 0/2 complete odd_target"),
        ("GET / HTTP/1.9", "GET / 200 0/2 complete odd_version"),
        ("GET / http/1.1", "GET / 200 0/2 complete odd_version"),
        ("  GET /  HTTP/1.1", "GET / 200 0/2 complete odd_start_line"),
    ] {
        Talk::new().c(format!("{line}\r\nHost: h\r\n\r\n")).s(OK).check(&[expected]);
    }
}

#[test]
fn status_lines() {
    for (line, expected) in [
        ("HTTP/1.1 200", "GET / 200 0/2 complete"),
        ("HTTP/1.1 200 ", "GET / 200 0/2 complete"),
        ("HTTP/1.0 599 Fi\u{fc}nf", "GET / 599 0/2 complete"),
        ("HTTP/1.1   200 OK", "GET / 200 0/2 complete odd_start_line"),
        ("ICY 200 OK", "GET / 200 0/2 complete icy_status_line"),
    ] {
        Talk::new().c(GET).s(format!("{line}\r\nContent-Length: 2\r\n\r\nok")).s_fin().check(&[expected]);
    }
}

#[test]
fn empty_lines_before_a_message_and_bare_line_feeds() {
    Talk::new()
        .c("\r\n\r\n\nGET / HTTP/1.1\nHost: h\n\n\r\n")
        .s("\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n")
        .c(get("/b"))
        .s(OK)
        .check(&["GET / 200 0/2 complete bare_lf", "GET /b 200 0/2 complete"]);
}

#[test]
fn line_ends_that_were_translated_twice() {
    Talk::new()
        .c("GET / HTTP/1.1\r\r\nHost: h\r\r\n\r\r\n")
        .s(OK)
        .check(&["GET / 200 0/2 complete odd_start_line"]);
}

#[test]
fn odd_header_lines_do_not_lose_the_message() {
    for (fields, expected) in [
        ("rubbish\r\nHost: h\r\n", "GET / 200 0/2 complete invalid_header"),
        (": no name\r\n", "GET / 200 0/2 complete invalid_header"),
        ("A b: c\r\n", "GET / 200 0/2 complete invalid_header"),
        (" first line folded\r\nHost: h\r\n", "GET / 200 0/2 complete invalid_header"),
        ("A: b\r\n\tc\r\n", "GET / 200 0/2 complete folded_header"),
        ("A: \0\x01\r\n", "GET / 200 0/2 complete invalid_header"),
        ("A: b\rContent-Length: 5\r\n", "GET / 200 0/2 complete"),
    ] {
        let talk = Talk::new().c(format!("GET / HTTP/1.1\r\n{fields}\r\n")).s(OK);
        let run = talk.run_whole(&Config::default());
        assert!(run.lines()[0].starts_with(expected), "{fields:?}: {:?}", run.lines());
        let lines = run.lines();
        talk.check(&[&lines[0]]);
    }
}

#[test]
fn header_fields_that_are_kept() {
    let config = Config {
        request_headers: vec!["X-One".into(), "host".into()],
        response_headers: vec!["SERVER".into()],
        ..Config::default()
    };
    let talk = Talk::new()
        .c("GET / HTTP/1.1\r\nX-ONE: 1\r\nhost:h\r\nother: o\r\nUser-Agent:  u \r\nx-one: 2\r\n 3\r\ntraceparent: t\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 0\r\n\r\n");
    talk.check_with(&config, &["GET / 200 0/0 complete folded_header"]);
    let run = talk.run_whole(&config);
    let texts = |headers: &[pod2pod_user::http::Header]| -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        headers.iter().map(|header| format!("{}={}", text(&header.name), text(&header.value))).collect()
    };
    let exchange = &run.exchanges[0];
    let request = texts(&exchange.request.as_ref().unwrap().headers);
    assert_eq!(request, ["x-one=1", "host=h", "user-agent=u", "x-one=2 3", "traceparent=t"]);
    assert_eq!(texts(&exchange.response.as_ref().unwrap().headers), ["server=s"]);
}

#[test]
fn body_prefixes() {
    let config = Config { request_body_prefix: 4, response_body_prefix: 3, ..Config::default() };
    let talk = Talk::new()
        .c("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n")
        .s(OK);
    talk.check_with(&config, &["POST / 200 6/2 complete"]);
    let exchange = &talk.run_whole(&config).exchanges[0];
    assert_eq!(exchange.request.as_ref().unwrap().body_prefix, "abcd");
    assert_eq!(exchange.response.as_ref().unwrap().body_prefix, "ok");
}

#[test]
fn offsets_count_from_the_first_byte_and_ordinals_from_zero() {
    let talk = Talk::new().c(format!("\r\n{GET}")).s(OK).c(GET).s(OK);
    talk.check(&["GET / 200 0/2 complete", "GET / 200 0/2 complete"]);
    let run = talk.run_whole(&Config::default());
    let places: Vec<_> = run.exchanges.iter().map(|exchange| (exchange.offset, exchange.index)).collect();
    assert_eq!(places, [(3, Some(0)), (3 + GET.len() as u64, Some(1))]);
}
