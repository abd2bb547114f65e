//! Missing bytes: what is still exact, what is told as gap, and that nothing is paired wrongly.

use super::{GET, OK, Talk, get, ok};

#[test]
fn inside_a_body_of_known_length_nothing_is_lost() {
    let talk = Talk::new()
        .c("POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nab")
        .c_gap(98)
        .s("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nab")
        .s_gap(40)
        .s("12345678")
        .c(GET)
        .s(OK);
    talk.check(&["POST / 200 100/50 complete", "GET / 200 0/2 complete"]);
    let run = talk.run_whole(&Default::default());
    let exchange = &run.exchanges[0];
    assert!(exchange.request.as_ref().unwrap().body_cut && exchange.response.as_ref().unwrap().body_cut);
    assert_eq!(exchange.request.as_ref().unwrap().last_byte, None);
    assert_eq!(run.exchanges[1].index, Some(1));
}

#[test]
fn inside_the_content_of_a_chunk_the_framing_stands() {
    Talk::new()
        .c(GET)
        .s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nab")
        .s_gap(98)
        .s("\r\n0\r\n\r\n")
        .c(GET)
        .s(OK)
        .check(&["GET / 200 0/100 complete", "GET / 200 0/2 complete"]);
}

#[test]
fn a_chunked_body_that_lost_its_framing() {
    Talk::new()
        .c(get("/a"))
        .s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        .s_gap(30)
        .s("cde\r\n0\r\n\r\n")
        .c(get("/b"))
        .s(OK)
        .check(&["GET /a 200 0/5 gap", "GET /b 200 0/2 complete"]);
}

#[test]
fn a_body_that_ends_with_the_connection_is_counted_over_gaps() {
    Talk::new()
        .c(GET)
        .s("HTTP/1.1 200 OK\r\n\r\nabc")
        .s_gap(7)
        .s("de")
        .s_fin()
        .check(&["GET / 200 0/12 complete"]);
}

#[test]
fn a_lost_response() {
    Talk::new().c(get("/a")).s_gap(50).c(get("/b")).s(ok("b")).c(get("/c")).s(ok("c")).check(&[
        "GET /a - 0/- gap",
        "GET /b 200 0/1 complete",
        "GET /c 200 0/1 complete",
    ]);
}

#[test]
fn a_response_that_lost_its_head() {
    Talk::new()
        .c(get("/a"))
        .s("HTTP/1.1 200 OK\r\nServer: x\r\nCont")
        .s_gap(20)
        .s("rest of the body")
        .c(get("/b"))
        .s(OK)
        .check(&["GET /a 200 0/0 gap head_cut", "GET /b 200 0/2 complete"]);
    Talk::new()
        .c(get("/a"))
        .s("HTTP/1.")
        .s_gap(20)
        .s("rest of the body")
        .s_fin()
        .check(&["GET /a - 0/- gap"]);
}

#[test]
fn a_gap_before_a_response_and_no_other_request() {
    // Nothing else can have been answered: an interim response, perhaps, is what is missing.
    Talk::new().c(GET).s_gap(25).s(OK).check(&["GET / 200 0/2 complete"]);
}

#[test]
fn a_lost_request() {
    Talk::new().c(get("/a")).s(ok("a")).c_gap(40).s(ok("bb")).c(get("/c")).s(ok("ccc")).check(&[
        "GET /a 200 0/1 complete",
        "- - 200 -/2 gap",
        "GET /c 200 0/3 complete",
    ]);
}

#[test]
fn a_request_that_lost_a_part_of_its_head() {
    Talk::new()
        .c("GET /a HTTP/1.1\r\nHost: h\r\nUser-Ag")
        .c_gap(40)
        .s(ok("a"))
        .c(get("/b"))
        .s(ok("b"))
        .check(&["GET /a 200 0/1 gap head_cut", "GET /b 200 0/1 complete"]);
}

#[test]
fn lost_responses_of_a_pipelining_client_are_not_guessed() {
    Talk::new().c(get("/a") + &get("/b") + &get("/c")).s(ok("a")).s_gap(40).s(ok("?")).check(&[
        "GET /a 200 0/1 complete",
        "GET /b - 0/- gap",
        "GET /c - 0/- gap",
        "- - 200 -/1 gap",
    ]);
}

#[test]
fn behind_messages_lost_of_both_ends_turns_make_pairs_again() {
    let begin = || Talk::new().c(get("/a")).s(ok("a"));
    let end = |talk: Talk| talk.c(get("/b")).s(ok("b")).c(get("/c")).s(ok("c")).c(get("/d")).s(ok("d"));
    end(begin().c_gap(90).s_gap(70)).check(&[
        "GET /a 200 0/1 complete",
        "GET /b 200 0/1 complete",
        "GET /c 200 0/1 complete",
        "GET /d 200 0/1 complete",
    ]);
    // Told in this order the client may have spoken last; it is not seen to pipeline by that.
    end(begin().s_gap(70).c_gap(90)).check(&[
        "GET /a 200 0/1 complete",
        "- - 200 -/1 gap",
        "GET /b - 0/- gap",
        "GET /c 200 0/1 complete",
        "GET /d 200 0/1 complete",
    ]);
}

#[test]
fn lost_requests_of_a_pipelining_client_are_not_guessed() {
    Talk::new()
        .c(get("/a") + &get("/b"))
        .s(ok("a") + &ok("b"))
        .c(get("/c"))
        .c_gap(40)
        .c(get("/e"))
        .s(ok("c") + &ok("d") + &ok("e"))
        .wait(11)
        .c(get("/f"))
        .s(ok("f"))
        .check(&[
            "GET /a 200 0/1 complete",
            "GET /b 200 0/1 complete",
            "GET /c 200 0/1 complete",
            "- - 200 -/1 gap",
            "- - 200 -/1 gap",
            "GET /e - 0/- gap",
            "GET /f 200 0/1 complete",
        ]);
}

#[test]
fn joined_in_the_middle() {
    Talk::joined().s("the rest of some body").c(get("/a")).s(ok("a")).check(&["GET /a 200 0/1 complete"]);
    Talk::joined()
        .s("rest".to_owned() + &ok("x"))
        .c(get("/a"))
        .s(ok("a"))
        .check(&["- - 200 -/1 gap", "GET /a 200 0/1 complete"]);
    Talk::joined()
        .c("a=b&c=dPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na")
        .s(ok("a"))
        .check(&["POST /a 200 1/1 complete"]);
    let run = Talk::joined().s(GET).c(OK).run_whole(&Default::default());
    assert_eq!(run.lines(), ["GET / 200 0/2 complete"]);
    assert_eq!(
        (run.exchanges[0].client, run.exchanges[0].index),
        (pod2pod_user::reassembly::Side::Responder, None)
    );
}

#[test]
fn packets_cut_by_the_snap_length() {
    Talk::new()
        .c("GET /a HTTP/1.1\r\nHost: h\r\n")
        .c_gap(100)
        .s("HTTP/1.1 200 OK\r\nServer: s\r\n")
        .s_gap(1000)
        .c("GET /b HTTP/1.1\r\nHost: h\r\n")
        .c_gap(100)
        .s("HTTP/1.1 404 Not Found\r\nServer: s\r\n")
        .s_gap(1000)
        .check(&["GET /a 200 0/0 gap head_cut", "GET /b 404 0/0 gap head_cut"]);
}

#[test]
fn what_a_gap_may_hide_is_never_blamed_on_the_peers() {
    Talk::new().c(GET).s_gap(9).check(&["GET / - 0/- gap"]);
    Talk::new().c(GET).s_gap(9).wait(11).check(&["GET / - 0/- gap"]);
    Talk::new().c(GET).s_gap(9).closed(Some(support::http::RESET)).check(&["GET / - 0/- gap"]);
}

#[test]
fn what_never_came_is_told_as_what_happened() {
    Talk::new().c(GET).s_never_came(9).check(&["GET / - 0/- closed"]);
    Talk::new().c(GET).s_never_came(9).wait(11).check(&["GET / - 0/- timeout"]);
    Talk::new().c(GET).s_never_came(9).closed(Some(support::http::RESET)).check(&["GET / - 0/- reset"]);
}
