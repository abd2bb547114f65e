//! Which response answers which request, and what became of those without one.

use std::time::Duration;

use pod2pod_user::{
    http::{Config, Outcome},
    reassembly::Side,
};
use support::http::{RESET, SOURCE_ENDED};

use super::{GET, OK, Talk, get, ok};

#[test]
fn pipelining_is_a_queue() {
    Talk::new()
        .c(get("/a") + "HEAD /b HTTP/1.1\r\n\r\n" + &get("/c"))
        .s(ok("a") + "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + &ok("ccc"))
        .check(&["GET /a 200 0/1 complete", "HEAD /b 200 0/0 complete", "GET /c 200 0/3 complete"]);
}

#[test]
fn a_response_before_its_request_ended() {
    let early = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
    let talk = Talk::new().c("POST /up HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").s(early);
    talk.clone().c("defghi").c(GET).s(OK).check(&["POST /up 413 9/2 complete", "GET / 200 0/2 complete"]);
    talk.clone().s_fin().check(&["POST /up 413 3/2 complete request_unfinished"]);
    talk.clone().closed(Some(RESET)).check(&["POST /up 413 3/2 complete request_unfinished"]);
    Talk::new()
        .c("POST /up HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        .s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        .c_fin()
        .check(&["POST /up 417 0/0 complete request_unfinished"]);
}

#[test]
fn a_response_without_a_request() {
    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    Talk::new().s(timeout).s_fin().check(&["- - 408 -/0 complete"]);
    Talk::new().c(GET).s(OK).s(timeout).s_fin().check(&["GET / 200 0/2 complete", "- - 408 -/0 complete"]);
    let run = Talk::new().c(GET).s(OK).s(timeout).run_whole(&Config::default());
    assert_eq!((run.exchanges[1].offset, run.exchanges[1].index), (1 + OK.len() as u64, None));
    assert_eq!(run.exchanges[1].client, Side::Originator);
}

#[test]
fn requests_without_a_response() {
    let talk = Talk::new().c(get("/a") + &get("/b")).s(ok("a"));
    let first = "GET /a 200 0/1 complete";
    talk.clone().s_fin().check(&[first, "GET /b - 0/- closed"]);
    talk.clone().check(&[first, "GET /b - 0/- closed"]);
    talk.clone().closed(Some(RESET)).check(&[first, "GET /b - 0/- reset"]);
    talk.closed(SOURCE_ENDED).check(&[first, "GET /b - 0/- gap"]);
}

#[test]
fn a_client_that_finished_still_gets_its_response() {
    Talk::new().c(GET).c_fin().s(OK).s_fin().check(&["GET / 200 0/2 complete"]);
    Talk::new()
        .c("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        .c_fin()
        .s("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
        .check(&["POST / 400 3/0 complete request_unfinished"]);
}

#[test]
fn a_request_without_its_end_is_no_exchange() {
    let talk = Talk::new().c("GET / HTTP/1.1\r\nHost: h\r\n").c_fin();
    talk.check(&[]);
    assert_eq!(talk.run_whole(&Config::default()).stats.heads_unfinished, 1);
}

#[test]
fn time_outs_and_late_responses() {
    Talk::new().c(GET).wait(9).s(OK).check(&["GET / 200 0/2 complete"]);
    Talk::new().c(GET).wait(10).s(OK).check(&["GET / - 0/- timeout", "GET / 200 0/2 complete late"]);
    Talk::new().c(GET).wait(11).check(&["GET / - 0/- timeout"]);
    let run = Talk::new().c(GET).wait(11).s(OK).run_whole(&Config::default());
    let [timeout, late] = &run.exchanges[..] else { panic!("{run:?}") };
    assert_eq!((timeout.offset, timeout.index), (late.offset, late.index));
    assert_eq!(timeout.end.since(timeout.start), Duration::from_secs(10));
    assert_eq!((run.stats.timeout, run.stats.late, run.stats.complete), (1, 1, 0));
    // An interim response is a word.
    Talk::new().c(GET).wait(9).s("HTTP/1.1 102 P\r\n\r\n").wait(9).s(OK).check(&["GET / 200 0/2 complete"]);
    // A response that has begun does not time out.
    Talk::new()
        .c(GET)
        .s(&OK[..9])
        .wait(50)
        .s(&OK[9..])
        .check(&["GET / - 0/- timeout", "GET / 200 0/2 complete late"]);
    Talk::new().c(GET).s(&OK[..OK.len() - 1]).wait(50).s("k").check(&["GET / 200 0/2 complete"]);
}

#[test]
fn a_pipelined_request_waits_from_the_end_of_the_one_before() {
    Talk::new()
        .c(get("/a") + &get("/b"))
        .s("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        .wait(30)
        .s("a")
        .wait(9)
        .s(ok("b"))
        .check(&["GET /a 200 0/2 complete", "GET /b 200 0/1 complete"]);
}

#[test]
fn long_exchanges_are_told_once_in_between() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    Talk::new()
        .c(GET)
        .s(format!("{head}3\r\nabc\r\n"))
        .wait(61)
        .s("2\r\nde\r\n")
        .wait(61)
        .s("0\r\n\r\n")
        .check(&["GET / 200 0/3 progress", "GET / 200 0/5 complete"]);
}

#[test]
fn expiry_tells_the_same_as_the_next_chunk() {
    let expired = Talk::new().c(GET).wait(11).expire().s(OK).run_whole(&Config::default());
    let pushed = Talk::new().c(GET).wait(11).s(OK).run_whole(&Config::default());
    assert_eq!(expired.exchanges, pushed.exchanges);
    assert_eq!(expired.exchanges[0].outcome, Some(Outcome::Timeout));
}

#[test]
fn the_side_that_asks_is_the_client() {
    let run = Talk::new().s(GET).c(OK).run_whole(&Config::default());
    assert_eq!(run.lines(), ["GET / 200 0/2 complete"]);
    assert_eq!(run.exchanges[0].client, Side::Responder);
    Talk::new().s(GET).c(OK).s(GET).c(OK).check(&["GET / 200 0/2 complete", "GET / 200 0/2 complete"]);
}
