//! Messages that a strict reader would lose, or tell as another one's: cut start lines, odd lines where the connection
//! was joined, lengths that are none, answers that are none.

use pod2pod_user::http::Config;

use super::{GET, OK, Talk, get, ok};

#[test]
fn start_lines_that_the_snap_length_cut_are_told() {
    Talk::new()
        .c("GET /index.htm")
        .c_cut(186)
        .s("HTTP/1.1 200 O")
        .s_cut(1446)
        .s("<html> and so ")
        .s_cut(1446)
        .c("GET /2 HTTP/1.")
        .c_cut(186)
        .s("HTTP/1.1 404 N")
        .s_cut(286)
        .check(&["GET /index.htm 200 0/0 gap head_cut target_cut", "GET /2 404 0/0 gap head_cut"]);
}

#[test]
fn a_start_line_longer_than_a_head_may_be_is_told_by_its_beginning() {
    let run = Talk::new().c(get(&format!("/{}", "a".repeat(70_000)))).s(OK).c(GET).s(OK);
    let run = run.run_whole(&Config::default());
    let lines = run.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("GET /aaa") && lines[0].ends_with("200 0/2 gap head_cut target_cut"));
    assert_eq!(lines[1], "GET / 200 0/2 complete");
}

#[test]
fn where_a_connection_is_joined_the_first_bytes_are_read_like_any_head() {
    for (line, expected) in [
        ("GET /a b HTTP/1.1", "GET /a b 200 0/2 complete odd_target"),
        ("GET /a HTTP/1.2", "GET /a 200 0/2 complete odd_version"),
        ("GET /a HTTP/1.1\r\nrubbish", "GET /a 200 0/2 complete invalid_header"),
        ("GET /a HTTP/1.1 ", "GET /a 200 0/2 complete odd_start_line"),
    ] {
        Talk::joined().c(format!("{line}\r\nHost: h\r\n\r\n")).s(OK).check(&[expected]);
    }
    Talk::joined().s("the rest of a body\r\n").c(GET).s(OK).check(&["GET / 200 0/2 complete"]);
    Talk::joined().s("the rest of a body").c(GET).s(OK).check(&["GET / 200 0/2 complete"]);
}

#[test]
fn a_request_line_without_a_version_is_one_if_it_can_be_nothing_else() {
    for line in ["GET /", "GET / ", "GET / HTTP/", "GET / x y"] {
        Talk::new()
            .c(format!("{line}\r\nHost: h\r\n\r\n"))
            .s(OK)
            .check(&["GET / 200 0/2 complete odd_version"]);
    }
    Talk::new().c("OPTIONS / RTSP/1.0\r\nCSeq: 1\r\n\r\n").s("RTSP/1.0 200 OK\r\n\r\n").check(&[]);
}

#[test]
fn behind_a_length_that_is_none_the_next_request_is_found() {
    for length in ["-1", "0x5", "5abc", "", "99999999999999999999999", "\"5\""] {
        Talk::new()
            .c(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\nhello"))
            .s(OK)
            .c(get("/b"))
            .s(ok("b"))
            .check(&["POST / 200 0/2 complete invalid_length", "GET /b 200 0/1 complete"]);
    }
    Talk::new()
        .c("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello")
        .s("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok")
        .c(get("/b"))
        .s(ok("b"))
        .check(&["POST / 200 5/2 complete invalid_length", "GET /b 200 0/1 complete"]);
}

#[test]
fn an_answer_that_is_none_is_not_replaced_by_the_next_one() {
    for line in ["HTTP/1.1 20 OK", "HTTP/1.1 OK", "+OK"] {
        Talk::new()
            .c(get("/a"))
            .s(format!("{line}\r\n\r\n"))
            .c(get("/b"))
            .s(ok("b"))
            .check(&["GET /a - 0/- gap", "GET /b 200 0/1 complete"]);
    }
    // Rubbish behind an answer changes nothing.
    Talk::new()
        .c(get("/a"))
        .s(ok("a") + "rubbish\r\n")
        .c(get("/b"))
        .s(ok("b"))
        .check(&["GET /a 200 0/1 complete", "GET /b 200 0/1 complete"]);
}
