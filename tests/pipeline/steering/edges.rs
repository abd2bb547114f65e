//! The sharp edges of a skip, each by name: where segments end, what comes inside, and what comes behind.

use std::time::Duration;

use pod2pod_user::{
    capture::KernelInstant,
    http::{Config, HttpTracker, MAX_SKIP, Outcome},
    reassembly::{Chunk, Content, GapCause, SKIP_LOOK, Side, Start, Wanted, config::MAX_WINDOW},
};
use support::{
    conversation::{Conversation, OwnedSegment, restamp},
    http::connection,
    steered::{Manner, run},
};

use super::{MIN_SKIP, check, check_in_order, chunked, get, ok, post, skipping};

/// Long enough to be skipped.
const LENGTH: usize = 500;
/// How segments are cut where it does not matter.
const PIECE: usize = 50;
const STEP: Duration = Duration::from_millis(1);

fn one(response: &[u8]) -> Conversation {
    Conversation::new().client(get("/a")).cut_every(PIECE).server(response)
}

/// Index of the last segment of `segments` that carries payload of the server.
fn last_of_server(segments: &[OwnedSegment]) -> usize {
    segments.iter().rposition(|segment| segment.source.port() == 80 && segment.payload_length > 0).unwrap()
}

#[test]
fn segments_that_end_before_at_and_behind_the_first_wanted_byte() {
    let whole = ok(LENGTH);
    for behind in [Vec::new(), ok(7)] {
        let said = [whole.clone(), behind.clone()].concat();
        for cut in whole.len() - 3..=whole.len() + 3 {
            let conversation = Conversation::new()
                .client([get("/a"), get("/b")].concat())
                .cut_server_at(&[40, 90, 140, cut.min(said.len())])
                .server(&said)
                .close();
            let told = check_in_order(&conversation, &skipping());
            assert!(told.sent < said.len() - 200, "{} bytes sent", told.sent);
        }
    }
}

#[test]
fn a_fin_inside_the_skip_ends_the_body_there() {
    for sent in [LENGTH - 1, LENGTH, 120] {
        let response = &ok(LENGTH);
        let head = response.len() - LENGTH;
        let conversation = one(&response[..head + sent]).server_fin().client_fin();
        let told = check_in_order(&conversation, &skipping());
        let expected = if sent == LENGTH { Outcome::Complete } else { Outcome::Closed };
        let exchange = &told.exchanges[0];
        assert_eq!(exchange.outcome, Some(expected));
        assert_eq!(exchange.response.as_ref().unwrap().body_size, sent as u64);
    }
}

#[test]
fn a_reset_inside_the_skip_ends_the_body_there() {
    for by_client in [false, true] {
        let said = one(&ok(LENGTH)[..400]);
        let said = if by_client { said.client_rst() } else { said.server_rst() };
        let told = check_in_order(&said, &skipping());
        assert_eq!(told.exchanges[0].outcome, Some(Outcome::Reset));
        assert!(told.stats.gap_bytes_cut > 200);
    }
}

#[test]
fn a_reset_whose_sender_goes_on_is_void() {
    let said = one(&ok(LENGTH)).client(get("/b")).server(ok(3)).close().seen_by_client();
    let mut segments = said.segments();
    let mut forged = segments[last_of_server(&segments) - 5].clone();
    forged.flags = pod2pod_user::capture::TcpFlags(0x04);
    forged.payload.clear();
    forged.payload_length = 0;
    let place = segments.iter().position(|segment| segment.sequence == forged.sequence).unwrap();
    forged.sequence = forged.sequence.wrapping_add(7);
    // Ahead of the stream, where nothing has come yet.
    segments.insert(place - 3, forged);
    restamp(&mut segments, STEP);
    let told = check(&segments, &skipping(), &Config::default());
    assert_eq!(told.exchanges.len(), 2);
    assert_eq!(told.stats.resets_ignored, 1);
}

#[test]
fn pipelined_responses_behind_the_body() {
    let requests = [get("/a"), get("/b"), get("/c")].concat();
    let responses = [ok(LENGTH), ok(LENGTH), ok(1)].concat();
    for piece in [1, 7, PIECE, 10_000] {
        let conversation = Conversation::new().client(&requests).cut_every(piece).server(&responses).close();
        let told = check_in_order(&conversation, &skipping());
        assert_eq!(told.exchanges.len(), 3);
    }
}

#[test]
fn what_has_no_body_whatever_its_head_says() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let not_modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 100000\r\n\r\n";
    let conversation = Conversation::new()
        .client("HEAD /a HTTP/1.1\r\n\r\n")
        .server(head)
        .client(get("/b"))
        .server(not_modified)
        .client(get("/c"))
        .server(ok(1))
        .close();
    let told = check_in_order(&conversation, &skipping());
    assert!(told.steerings.iter().all(|steering| steering.wanted == Wanted::Over), "{:?}", told.steerings);
}

#[test]
fn a_copy_that_reaches_across_the_first_wanted_byte() {
    let said = one(&[ok(LENGTH), ok(9)].concat()).client(get("/b")).close().seen_by_client();
    let segments = said.segments();
    let last = last_of_server(&segments);
    for from in last - 4..=last {
        let mut segments = segments.clone();
        let mut copy = segments[from].clone();
        for segment in &said.segments()[from + 1..=last] {
            copy.payload.extend(&segment.payload);
            copy.payload_length += segment.payload_length;
        }
        segments.insert(last + 1, copy);
        restamp(&mut segments, STEP);
        check(&segments, &skipping(), &Config::default());
    }
}

#[test]
fn sequence_numbers_wrap_inside_the_skip() {
    for before in [1, 100, 300, 545] {
        let isn = u32::MAX - before;
        let conversation = Conversation::new()
            .isns(isn, isn)
            .client(post("/a", LENGTH))
            .cut_every(PIECE)
            .server(ok(LENGTH))
            .client(get("/b"))
            .server(ok(2))
            .close();
        let told = check_in_order(&conversation, &skipping());
        assert!(told.stats.gap_bytes_cut > 600);
    }
}

#[test]
fn uploads_are_skipped_too_and_answered_early_or_late() {
    let upload = post("/a", LENGTH);
    let (first, rest) = upload.split_at(150);
    let expecting =
        String::from_utf8_lossy(&upload).replace("HTTP/1.1\r\n", "HTTP/1.1\r\nExpect: 100-continue\r\n");
    let (head, body) = expecting.split_at(expecting.len() - LENGTH);
    let new = || Conversation::new().cut_every(PIECE);
    for said in [
        new().client(&upload).server(ok(3)),
        new().client(first).server(ok(3)).client(rest),
        new().client(first).server(ok(LENGTH)).client(rest),
        new().client(head).server("HTTP/1.1 100 Continue\r\n\r\n").client(body).server(ok(LENGTH)),
    ] {
        let told = check_in_order(&said.client(get("/b")).server(ok(1)).close(), &skipping());
        assert!(told.stats.gap_bytes_cut > 200);
        assert!(told.exchanges[0].request.as_ref().unwrap().body_cut);
    }
}

#[test]
fn both_directions_skip_at_once() {
    let (upload, download) = (post("/a", LENGTH), ok(LENGTH));
    let mut said = Conversation::new().client(&upload[..100]).server(&download[..100]);
    for (up, down) in upload[100..].chunks(30).zip(download[100..].chunks(30)) {
        said = said.client(up).server(down);
    }
    let length = 100 + 30 * upload[100..].chunks(30).zip(download[100..].chunks(30)).count();
    said = said.client(&upload[length.min(upload.len())..]).server(&download[length.min(download.len())..]);
    let told = check_in_order(&said.client(get("/b")).server(ok(1)).close(), &skipping());
    assert_eq!(told.exchanges.len(), 2);
    assert!(told.stats.gap_bytes_cut > 600);
}

#[test]
fn a_body_to_the_end_of_the_connection_is_counted_to_the_byte() {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let said = Conversation::new().client(get("/until-close")).cut_every(PIECE).server(head);
    let told = check_in_order(&said.server(vec![b'x'; 5000]).server_fin().client_fin(), &skipping());
    assert_eq!(told.exchanges[0].response.as_ref().unwrap().body_size, 5000);
    assert!(told.sent < 300);
}

#[test]
fn of_a_chunked_body_the_rest_of_each_chunk_is_skipped() {
    let response = chunked(&[LENGTH, 10, LENGTH, LENGTH]);
    let told = check_in_order(&one(&response).client(get("/b")).server(ok(1)).close(), &skipping());
    assert!(told.stats.gap_bytes_cut > 3 * 300);
    assert_eq!(told.exchanges[0].response.as_ref().unwrap().body_size, 3 * LENGTH as u64 + 10);
}

#[test]
fn the_wanted_prefix_is_not_skipped() {
    let http = Config { response_body_prefix: 200, request_body_prefix: 90, ..Config::default() };
    let said = Conversation::new().cut_every(PIECE).client(post("/a", LENGTH)).server(ok(LENGTH));
    let told = check(&said.close().seen_by_server().segments(), &skipping(), &http);
    let exchange = &told.exchanges[0];
    assert_eq!(exchange.request.as_ref().unwrap().body_prefix.len(), 90);
    assert_eq!(exchange.response.as_ref().unwrap().body_prefix.len(), 200);
    assert!(told.stats.gap_bytes_cut > 400);
}

#[test]
fn a_skip_begins_at_its_least_length_and_not_one_below() {
    for (length, skips) in [(MIN_SKIP as usize, true), (MIN_SKIP as usize - 1, false)] {
        let response = ok(length);
        let head = response.len() - length;
        let said = Conversation::new().client(get("/a")).cut_server_at(&[head]).cut_every(PIECE.max(head));
        let told = check_in_order(&said.server(response).close(), &skipping());
        assert_eq!(told.stats.gap_bytes_cut > 0, skips, "{length}");
    }
}

#[test]
fn a_longer_body_than_one_skip_takes_is_skipped_piece_by_piece() {
    for (behind, last) in [(0, None), (MIN_SKIP - 1, None), (MIN_SKIP, Some(MIN_SKIP))] {
        let mut tracker = HttpTracker::new(Config { min_skip: Some(MIN_SKIP), ..Config::default() });
        let connection = connection(1, Start::Handshake);
        let mut next = 1;
        let mut push = |content, length| {
            let sender = Side::Responder;
            let (offset, time) = (next, KernelInstant::default());
            tracker.push(Chunk { connection: &connection, sender, time, offset, content }, time);
            next += length;
            (next, tracker.pop_skip().map(|skip| skip.until))
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_SKIP + behind);
        let (body, until) = push(Content::Bytes(head.as_bytes()), head.len() as u64);
        assert_eq!(until, Some(body + MAX_SKIP));
        let gap = Content::Gap { length: MAX_SKIP, cause: GapCause::Cut, may_be_ours: true };
        let (middle, until) = push(gap, MAX_SKIP);
        assert_eq!(until, last.map(|length| middle + length));
    }
    // Reassembly believes what comes behind it.
    const { assert!(MAX_SKIP <= MAX_WINDOW as u64) };
}

#[test]
fn what_was_skipped_is_told_though_the_end_of_it_is_lost() {
    // The record that shows the end of an upload is lost, and nothing follows: the capture knows that it was sent.
    let said = Conversation::new().cut_every(PIECE).client(post("/a", LENGTH)).seen_by_client();
    let segments = said.segments();
    let all = run(&segments, &skipping(), &Config::default());
    let manner = Manner { lost_from: all.records - 1, ..skipping() };
    let told = run(&segments, &manner, &Config::default());
    let [whole, lost] = [all, told].map(|told| told.exchanges[0].request.clone().unwrap());
    assert_eq!((whole.body_size, lost.body_size), (LENGTH as u64, LENGTH as u64));
    assert_eq!(whole.last_byte, lost.last_byte);
}

#[test]
fn a_slow_body_is_no_silence() {
    // Longer than anybody waits, though nothing of it is sent.
    let response = ok(LENGTH);
    let said = Conversation::new()
        .client(get("/a"))
        .cut_every(PIECE)
        .step(SKIP_LOOK - Duration::from_secs(1))
        .server(response);
    for said in [said.clone().close().seen_by_client(), said.close().seen_by_server()] {
        let told = run(&said.segments(), &skipping(), &Config::default());
        let ended: Vec<_> = told.exchanges.iter().filter_map(|exchange| exchange.outcome).collect();
        assert_eq!(ended, [Outcome::Complete]);
        assert_eq!(told.exchanges.last().unwrap().response.as_ref().unwrap().body_size, LENGTH as u64);
    }
}

#[test]
fn verdicts_are_taken_back_when_the_connection_is_over() {
    let told = check_in_order(&one(&ok(LENGTH)).close(), &skipping());
    assert_eq!(told.steerings.last().unwrap().wanted, Wanted::Over);
    let plain = Manner { min_skip: None, ..skipping() };
    assert_eq!(
        run(&one(&ok(LENGTH)).close().seen_by_server().segments(), &plain, &Config::default()).steerings,
        []
    );
}
