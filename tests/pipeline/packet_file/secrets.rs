//! No byte of a secret is in the file, wherever it stands and however it comes. Secrets are made of `~`, which nothing else has.

use support::{
    conversation::{
        CLIENT_ISN, Conversation, OwnedSegment, SERVER_ISN, START_NS, duplicate, overlapping, shuffle_from,
    },
    rng::Rng,
};

use super::*;

/// Asserts that nothing readable has a byte of a secret; gives it as one text, without what is covered or blank.
fn check(name: &str, run: &Run) -> String {
    let mut seen = String::new();
    for bytes in readable(&run.file) {
        assert!(!bytes.contains(&b'~'), "{name}: {:?}", String::from_utf8_lossy(&bytes));
        seen.extend(bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)));
    }
    check_checksums(&run.file);
    seen
}

const REQUEST: &str = "POST http://~~:~~@h/a;jsessionid=~~?x=1&%70assword=~~&API_KEY=~~&y=2 HTTP/1.1\r\n\
    Host: h\r\nUser-Agent: me\r\nAuthorization: Bearer ~~~\r\nproxy-authorization:~~\r\nCookie: a=~~; b=~~\r\n\
    X-Api-Key: ~~\r\nX-Vault-Token: ~~\r\nX-Anything: ~~\r\nReferer: http://~~@h/?sig=~~&z=3#access_token=~~\r\n\
    Folded: ~~\r\n ~~\r\n~~ ~~\r\nContent-Length: 8\r\n\r\n~~~~~~~~";
const RESPONSE: &str = "HTTP/1.1 200 ~~~\r\nSet-Cookie: a=~~\r\nLocation: /next?token=~~\r\nETag: ~~\r\n\
    Transfer-Encoding: chunked\r\n\r\n5;ext=~\r\n~~~~~\r\n0\r\nX-Trailer: ~~\r\n\r\n";

fn talk() -> Conversation {
    Conversation::new().client(REQUEST).server(RESPONSE).client(REQUEST).server(RESPONSE).close()
}

/// As in [`talk`], with fields that somebody asked for.
fn asked() -> Config {
    config(|config| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        config.http.request_headers = names(&["authorization", "cookie", "referer", "x-vault-token"]);
        config.http.response_headers = names(&["set-cookie", "location"]);
        config.http.request_body_prefix = 0;
    })
}

#[test]
fn of_a_head_only_what_a_record_shows_is_seen() {
    let run = write_segments(asked(), &talk().segments());
    let seen = check("whole", &run);
    for wanted in [
        "POST http://*****@h/a;jsessionid=**?x=1&%70assword=**&API_KEY=**&y=2 HTTP/1.1\r\n",
        "Host: h\r\nUser-Agent: me\r\nAuthorization: **********\r\nproxy-authorization:**\r\nCookie: **********\r\n",
        "X-Anything: **\r\nReferer: http://**@h/?sig=**&z=3#access_token=**\r\nFolded: **\r\n **\r\n*****\r\n",
        "Content-Length: 8\r\n\r\n",
        "HTTP/1.1 200 ***\r\nSet-Cookie: ****\r\nLocation: /next?token=**\r\nETag: **\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5;*****\r\n*****\r\n0\r\n*************\r\n\r\n",
    ] {
        assert!(seen.contains(wanted), "{wanted:?} is not in {seen:?}");
    }
    assert_eq!(run.records.len(), 2);
    assert_eq!(
        seen.matches("POST http://REDACTED:REDACTED@h/a;jsessionid=REDACTED?x=1").count(),
        2,
        "{seen:?}"
    );
}

#[test]
fn nobody_asked_for_a_field_and_its_value_is_not_seen() {
    let run = write_segments(config(|_| ()), &talk().segments());
    let seen = check("whole", &run);
    assert!(seen.contains("\r\nReferer: *****") && !seen.contains("sig="), "{seen:?}");
}

#[test]
fn heads_cut_anywhere() {
    let whole = REQUEST.len().max(RESPONSE.len());
    for at in 1..whole {
        let run = write_segments(asked(), &talk().cut_at(&[at]).segments());
        check(&format!("cut at {at}"), &run);
    }
    for every in [1, 2, 3, 7] {
        let run = write_segments(asked(), &talk().cut_every(every).segments());
        let seen = check(&format!("cut every {every}"), &run);
        // All of it was understood all the same.
        assert_eq!((run.records.len(), run.held.comments), (2, 2));
        assert!(seen.contains("POST http://*****@h/a;jsessionid=**?x=1&%70assword=**"), "{seen:?}");
    }
}

#[test]
fn losses_copies_and_disorder() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for round in 0..200 {
        let mut segments = talk().cut_every(1 + rng.below(200)).segments();
        duplicate(&mut segments, 30, &mut rng);
        for _ in 0..rng.below(4) {
            segments.remove(rng.below(segments.len()));
        }
        if round % 3 == 0 {
            shuffle_from(&mut segments, 3, &mut rng);
        }
        let (cut, keep) = (rng.below(segments.len()), rng.below(60));
        segments[cut] = segments[cut].clone().cut_to(keep);
        check(&format!("round {round}"), &write_segments(asked(), &segments));
    }
}

/// Sequence number of the first byte that the sender of `segment` says.
fn first_byte(segment: &OwnedSegment) -> u32 {
    1 + if segment.destination.port() == 80 { CLIENT_ISN } else { SERVER_ISN }
}

#[test]
fn copies_with_other_bytes_in_the_same_place() {
    let seed = 8;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for round in 0..100 {
        let mut segments = talk().cut_every(1 + rng.below(200)).segments();
        // Behind what was seen first, so that nobody takes their bytes for those of the stream.
        for _ in 0..5 {
            let at = 3 + rng.below(segments.len() - 3);
            let back =
                (rng.below(300) as u32).min(segments[at].sequence.wrapping_sub(first_byte(&segments[at])));
            let copy = overlapping(&segments[at], back, b'~');
            let mut other = segments[at].clone();
            other.payload.fill(b'~');
            for late in [copy, other] {
                let place = at + 1 + rng.below(segments.len() - at);
                segments.insert(place, late);
            }
        }
        let run = write_segments(asked(), &segments);
        check(&format!("round {round}"), &run);
        assert_eq!(run.records.len(), 2, "round {round}");
    }
}

#[test]
fn what_is_no_http_is_blank() {
    let foreign = [
        Conversation::new().client("~~~~ ~~~~\r\n\r\n").server("~~~~"),
        Conversation::new().client("~ / HTTP/1.1\r\nHost: ~\r\n").server("~~"),
        Conversation::joined_in_the_middle().client("password=~~~\r\n~~").server("~~~"),
        Conversation::new().client(format!("GET /?token=~~{} HTTP/1.1\r\n", "~".repeat(70_000))),
        Conversation::new().client("GET http://user:~~~"),
        Conversation::new().client("GET /a?token=~~~"),
        Conversation::new().client("GET /a HTTP/1.1\r\nAuthorization: ~~"),
    ];
    for (number, conversation) in foreign.into_iter().enumerate() {
        for end in [conversation.clone(), conversation.close()] {
            let run = write_segments(config(|_| ()), &end.segments());
            check(&format!("conversation {number}"), &run);
        }
    }
}

#[test]
fn a_later_connection_with_the_same_numbers_shows_nothing_of_an_earlier_one() {
    let secret = "~".repeat(60);
    let http =
        Conversation::new().client("GET /plain HTTP/1.1\r\nHost: h\r\n\r\n").server("HTTP/1.1 204 x\r\n\r\n");
    let foreign = Conversation::new().client(&secret).server(&secret).close();
    let mut segments = foreign.segments();
    segments.extend(http.isns(CLIENT_ISN + 9, SERVER_ISN + 9).start_at(START_NS + 1_000_000_000).segments());
    segments.extend(foreign.start_at(START_NS + 2_000_000_000).segments());
    let run = write_segments(config(|_| ()), &segments);
    let seen = check("generations", &run);
    assert!(seen.contains("GET /plain HTTP/1.1\r\nHost: h\r\n\r\n"), "{seen:?}");
}

#[test]
fn a_second_copy_shows_no_byte_that_differs() {
    let mut segments = Conversation::new().client("GET /plain HTTP/1.1\r\n\r\n").segments();
    let request = segments.last().unwrap().clone();
    let mut other = request.clone();
    other.payload = b"GET /~~~~~ HTTP/1.1\r\n\r\n".to_vec();
    segments.push(other.clone());
    segments.insert(3, OwnedSegment { payload: request.payload[..5].to_vec(), payload_length: 5, ..request });
    segments.push(other);
    check("copies", &write_segments(config(|_| ()), &segments));
}

#[test]
fn a_copy_that_waits_too_shows_no_byte_that_differs() {
    let head = "GET /plain HTTP/1.1\r\n\r\n";
    let mut segments = Conversation::new().client(head).cut_client_at(&[5]).segments();
    let end = segments.pop().unwrap();
    let begin = segments.pop().unwrap();
    let other = OwnedSegment { payload: b"~~~~~ HTTP/1.1\r\n\r\n".to_vec(), ..end.clone() };
    // The end comes first, twice; the first one wins.
    segments.extend([end, other, begin]);
    let run = write_segments(config(|_| ()), &segments);
    let seen = check("copies", &run);
    assert!(seen.contains("plain HTTP/1.1\r\n\r\n***** HTTP/1.1\r\n\r\nGET /"), "{seen:?}");
}

#[test]
fn of_a_target_that_was_cut_no_user_is_named() {
    for target in ["http://~:~", "http://~", "http://a@~", "~:~"] {
        let talk =
            Conversation::new().client(format!("CONNECT {target}")).client("lost").client("behind\r\n");
        let mut segments = talk.server("HTTP/1.1 200 OK\r\n\r\n").close().segments();
        segments.remove(4);
        let run = write_segments(config(|_| ()), &segments);
        assert!(
            run.records.iter().any(|record| record.contains("target_cut")),
            "{target}: {:?}",
            run.records
        );
        assert!(run.records.iter().all(|record| !record.contains('~')), "{:?}", run.records);
        check(target, &run);
    }
}

#[test]
fn bodies_that_records_show_are_covered_all_the_same() {
    let config = config(|config| {
        config.http.request_body_prefix = 4;
        config.http.response_body_prefix = 4;
        config.enrich.content_bytes = 4;
    });
    let run = write_segments(config, &talk().segments());
    assert!(run.records[0].contains("~~~~"), "{}", run.records[0]);
    check("bodies", &run);
}
