//! What is not HTTP/1, and what comes before it.

use super::{GET, OK, Talk};

fn counted(talk: &Talk) -> (u64, u64, u64, u64, usize) {
    let run = talk.run_whole(&Default::default());
    let stats = &run.stats;
    (
        stats.connections_http,
        stats.connections_http2,
        stats.connections_tls,
        stats.connections_other,
        run.unwanted,
    )
}

#[test]
fn tls() {
    let talk = Talk::new()
        .c("\x16\x03\x01\x02\0\x01\0")
        .s("\x16\x03\x03\0\x7a\x02")
        .c("\x17\x03\x03GET / HTTP/1.1\r\n\r\n");
    talk.check(&[]);
    assert_eq!(counted(&talk), (0, 0, 1, 0, 1));
}

#[test]
fn tls_to_a_server_of_plain_http() {
    Talk::new()
        .c("\x16\x03\x01\x02\0\x01\0")
        .s("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        .s_fin()
        .check(&["- - 400 -/2 complete"]);
}

#[test]
fn http2_with_prior_knowledge() {
    let talk = Talk::new()
        .c("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0")
        .s("\0\0\x06\x04\0\0\0\0\0")
        .c(GET)
        .s(OK);
    talk.check(&["HTTP/2"]);
    assert_eq!(counted(&talk), (0, 1, 0, 0, 1));
}

#[test]
fn other_protocols() {
    for (first, second) in [
        ("EHLO x\r\n", "220 mail ESMTP\r\n"),
        ("get key\r\n", "VALUE key 0 1\r\nx\r\nEND\r\n"),
        ("OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"),
        ("INVITE sip:a@b SIP/2.0\r\nVia: x\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n"),
        ("REQMOD icap://h/ ICAP/1.0\r\nHost: h\r\n\r\n", "ICAP/1.0 200 OK\r\n\r\n"),
        ("*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
        ("\0\0\0\x08\x04\x52\x16\x2f", "N"),
        ("SSH-2.0-x\r\n", "SSH-2.0-y\r\n"),
        ("GNUTELLA CONNECT/0.6\r\n\r\n", "GNUTELLA/0.6 200 OK\r\n\r\n"),
    ] {
        let talk = Talk::new().c(first).s(second.to_owned() + "\r\n");
        talk.check(&[]);
        assert_eq!(counted(&talk), (0, 0, 0, 1, 1), "{first:?}");
    }
}

#[test]
fn http_behind_socks() {
    Talk::new()
        .c("\x05\x01\0")
        .s("\x05\0")
        .c("\x05\x01\0\x03\x01h\0\x50")
        .s("\x05\0\0\x01\x7f\0\0\x01\0\x50")
        .c(GET)
        .s(OK)
        .check(&["GET / 200 0/2 complete"]);
}

#[test]
fn http_0_9_is_ignored() {
    Talk::new().c("GET /\r\n").s("<html>").s_fin().check(&[]);
}

#[test]
fn a_server_that_answers_something_else() {
    Talk::new().c(GET).s("<html>no head</html>").s_fin().check(&["GET / - 0/- closed"]);
}

#[test]
fn proxy_headers() {
    let two: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x6f\0\x50tlvs";
    let one: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 111 80\r\n";
    for header in [one, two] {
        let talk = Talk::new().c([header, GET.as_bytes()].concat()).s(OK);
        talk.check(&["GET / 200 0/2 complete"]);
        let run = talk.run_whole(&Default::default());
        let expected = ("1.2.3.4:111".parse().unwrap(), "5.6.7.8:80".parse().unwrap());
        assert_eq!(run.exchanges[0].proxied, Some(expected));
        assert_eq!(run.exchanges[0].offset, 1 + header.len() as u64);
        assert_eq!(run.stats.connections_proxied, 1);
    }
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x03abc",
    ] {
        let talk = Talk::new().c([header, GET.as_bytes()].concat()).s(OK);
        talk.check(&["GET / 200 0/2 complete"]);
        assert_eq!(talk.run_whole(&Default::default()).exchanges[0].proxied, None);
    }
    // The method of that name is one like any other.
    Talk::new().c("PROXY / HTTP/1.1\r\n\r\n").s(OK).check(&["PROXY / 200 0/2 complete"]);
}

#[test]
fn http2_behind_a_proxy_header() {
    Talk::new().c("PROXY UNKNOWN\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").check(&["HTTP/2"]);
}
