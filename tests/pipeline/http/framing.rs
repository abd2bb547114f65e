//! Where messages end (RFC 9112 6.3).

use super::{GET, OK, Talk, get};

#[test]
fn keep_alive() {
    Talk::new()
        .c("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .c("POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        .s("HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .check(&["GET /a 200 0/5 complete", "POST /b 404 3/3 complete"]);
}

#[test]
fn head_has_no_content_whatever_its_fields_say() {
    Talk::new()
        .c("HEAD / HTTP/1.1\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .c(GET)
        .s(OK)
        .check(&["HEAD / 200 0/0 complete", "HEAD /c 200 0/0 complete", "GET / 200 0/2 complete"]);
}

#[test]
fn no_content_and_not_modified() {
    Talk::new()
        .c(get("/a"))
        .s("HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n")
        .c(get("/b"))
        .s("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n")
        .c(get("/c"))
        .s(OK)
        .check(&["GET /a 204 0/0 complete", "GET /b 304 0/0 complete", "GET /c 200 0/2 complete"]);
}

#[test]
fn interim_responses_are_passed_over() {
    let talk = Talk::new()
        .c("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .s("HTTP/1.1 100 Continue\r\n\r\n")
        .c("abc")
        .s("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n")
        .s("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    talk.check(&["PUT / 201 3/0 complete"]);
    assert_eq!(talk.run_whole(&Default::default()).exchanges[0].interim_responses, 3);
}

#[test]
fn a_body_that_ends_with_the_connection() {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    Talk::new().c(GET).s(head).s("some bytes").s_fin().check(&["GET / 200 0/10 complete"]);
    Talk::new().c(GET).s(head).s_fin().check(&["GET / 200 0/0 complete"]);
    let reset = Some(support::http::RESET);
    Talk::new().c(GET).s(head).s("some").closed(reset).check(&["GET / 200 0/4 reset"]);
    Talk::new().c(GET).s(head).s("some").closed(support::http::SOURCE_ENDED).check(&["GET / 200 0/4 gap"]);
    Talk::new()
        .c(GET)
        .s("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n")
        .s_fin()
        .check(&["GET / 200 0/22 complete"]);
}

#[test]
fn a_body_that_ends_too_early() {
    let talk = Talk::new().c(GET).s("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    talk.clone().s_fin().check(&["GET / 200 0/4 closed"]);
    talk.clone().closed(Some(support::http::RESET)).check(&["GET / 200 0/4 reset"]);
    talk.clone().closed(support::http::SOURCE_ENDED).check(&["GET / 200 0/4 gap"]);
    let talk = Talk::new().c(GET).s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    talk.s_fin().check(&["GET / 200 0/5 closed"]);
}

#[test]
fn transfer_encoding_decides_over_content_length() {
    let mark = "length_and_transfer_encoding";
    Talk::new()
        .c("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        .c(GET)
        .s(OK)
        .check(&[&format!("POST / 200 5/4 complete {mark}"), "GET / 200 0/2 complete"]);
}

#[test]
fn transfer_codings() {
    let request = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n{body}");
    let check = |fields: &str, body: &str, expected: &str| {
        Talk::new().c(request(fields, body)).s(OK).c(GET).s(OK).check(&[expected, "GET / 200 0/2 complete"]);
    };
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    check("Transfer-Encoding: CHUNKED\r\n", chunks, "POST / 200 3/2 complete");
    check("Transfer-Encoding: gzip, chunked\r\n", chunks, "POST / 200 3/2 complete");
    check("Transfer-Encoding: gzip\r\nTransfer-encoding:\tchunked \r\n", chunks, "POST / 200 3/2 complete");
    check("Transfer-Encoding: chunked, chunked\r\n", chunks, "POST / 200 3/2 complete repeated_chunked");
    check("Transfer-Encoding:\r\n chunked\r\n", chunks, "POST / 200 3/2 complete folded_header");
    check("Transfer-Encoding : chunked\r\n", chunks, "POST / 200 3/2 complete space_before_colon");
    check(
        "Transfer-Encoding: identity\r\nContent-Length: 3\r\n",
        "abc",
        "POST / 200 3/2 complete odd_transfer_encoding",
    );
    check("Content-Length: 3, 3\r\n", "abc", "POST / 200 3/2 complete repeated_length");
    check("Content-Length: 9\r\nContent-Length: 3\r\n", "abc", "POST / 200 3/2 complete conflicting_length");
    check("Content-Length: 0003\r\n", "abc", "POST / 200 3/2 complete");
    check("Content-Length: -3\r\n", "", "POST / 200 0/2 complete invalid_length");
    Talk::new()
        .c("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .s(OK)
        .check(&["POST / 200 3/2 complete transfer_encoding_in_http_1_0"]);
}

#[test]
fn a_response_whose_last_coding_is_not_chunked_ends_with_the_connection() {
    for codings in ["gzip", "chunked, gzip", "xchunked"] {
        Talk::new()
            .c(GET)
            .s(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {codings}\r\n\r\n3\r\nabc"))
            .s_fin()
            .check(&["GET / 200 0/6 complete odd_transfer_encoding"]);
    }
}

#[test]
fn chunks_as_they_come() {
    let check = |body: &str, expected: &str| {
        Talk::new()
            .c(GET)
            .s(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
            .c(get("/next"))
            .s(OK)
            .check(&[expected, "GET /next 200 0/2 complete"]);
    };
    check("0\r\n\r\n", "GET / 200 0/0 complete");
    check("3;a=b;c=\"0\\r\\n\"\r\nabc\r\n0;x\r\nTrailer: HTTP/1.1 200 OK\r\n\r\n", "GET / 200 0/3 complete");
    check("A\n0123456789\n000\n\n", "GET / 200 0/10 complete");
    check("3 \r\nabc\r\n0\r\n\r\n", "GET / 200 0/3 complete odd_chunk");
    check("3\r\nabcd\r\n0\r\n\r\n", "GET / 200 0/3 closed broken_chunk");
    check("no chunk at all\r\n", "GET / 200 0/0 closed broken_chunk");
    check("fffffffffffffffff\r\n", "GET / 200 0/0 closed broken_chunk");
}

#[test]
fn bytes_that_belong_to_no_message_do_not_hide_the_next_one() {
    Talk::new()
        .c("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n")
        .s("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more\r\nof it")
        .c(get("/b"))
        .s(OK)
        .c("rubbish{}POST /c HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .s(OK)
        .check(&["POST /a 200 3/2 complete", "GET /b 200 0/2 complete", "POST /c 200 0/2 complete"]);
}

#[test]
fn upgrades_end_http() {
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let talk = Talk::new()
        .c(upgrade)
        .s("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02HTTP/1.1 200 OK\r\n\r\n")
        .c(GET);
    talk.check(&["GET /ws 101 0/0 upgraded"]);
    let run = talk.run_whole(&Default::default());
    assert_eq!((run.stats.upgrades_websocket, run.unwanted), (1, 1));
    assert_eq!(run.stats.tunnel_bytes, 21 + GET.len() as u64);
    let run = Talk::new()
        .c("GET / HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n")
        .s("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n\0\0")
        .run_whole(&Default::default());
    assert_eq!((run.lines(), run.stats.upgrades_http2), (vec!["GET / 101 0/0 upgraded".to_owned()], 1));
}

#[test]
fn connect() {
    let talk = Talk::new().c("CONNECT h:443 HTTP/1.1\r\n\r\n");
    talk.clone()
        .s("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n")
        .c("\x16\x03\x01GET / HTTP/1.1\r\n\r\n")
        .check(&["CONNECT h:443 200 0/0 upgraded length_and_transfer_encoding"]);
    talk.s("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno")
        .c("CONNECT h:443 HTTP/1.1\r\nA: b\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\n\r\n")
        .c(GET)
        .check(&["CONNECT h:443 407 0/2 complete", "CONNECT h:443 200 0/0 upgraded"]);
}
