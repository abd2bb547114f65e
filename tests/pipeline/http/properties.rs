//! Properties that hold for any bytes, over conversations made by chance.

use pod2pod_user::http::Config;
use support::{
    http::{Talk, check_chunked, check_http},
    rng::Rng,
};

/// Pieces that conversations by chance are made of: whole messages, halves, and what breaks them.
const PIECES: &[&[u8]] = &[
    b"\xffcGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\xffcPOST /p HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
    b"\xffcPOST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\xffcHEAD /h HTTP/1.1\r\n\r\n",
    b"\xffcCONNECT h:1 HTTP/1.1\r\n\r\n",
    b"\xffcGET /half HTTP/1.1\r\nHost",
    b"\xffc\r\n\r\n",
    b"\xffcPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"\xffcPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\xffc\x16\x03\x01",
    b"\xffcrubbish",
    b"\xffc\x05\x01\0",
    b"\xffcrubbish\r\nmore: of it\r\n",
    b"\xffC0123456789",
    b"\xffS0123456789",
    b"\xffsHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    b"\xffsHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\xffsHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    b"\xffsHTTP/1.1 304 Not Modified\r\n\r\n",
    b"\xffsHTTP/1.1 100 Continue\r\n\r\n",
    b"\xffsHTTP/1.1 101 Switching\r\n\r\n",
    b"\xffsHTTP/1.1 200 OK\r\n\r\nuntil close",
    b"\xffsHTTP/1.1 200 OK\r\nSer",
    b"\xffsrubbish\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
    b"\xffN0123456789",
    b"\xffw0123456789abc",
    b"\xfff",
    b"\xffF",
];

#[test]
fn conversations_by_chance() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut data = vec![rng.next_u64() as u8];
        for _ in 0..rng.below(8) {
            let piece = PIECES[rng.below(PIECES.len())];
            data.extend_from_slice(piece);
            if rng.below(4) == 0 {
                let at = rng.below(data.len());
                data[at] = b"\r\n: 0H\x00\xff"[rng.below(8)];
            }
        }
        told_with_a_failure(&format!("seed {seed}: {}", data.escape_ascii()), || check_http(&data));
    }
}

#[test]
fn chunked_bodies_by_chance() {
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let data: Vec<u8> = (0..rng.below(40)).map(|_| b"0123afx;\r\n\r\n \"a"[rng.below(15)]).collect();
        told_with_a_failure(&format!("seed {seed}: {}", data.escape_ascii()), || check_chunked(&data));
    }
}

/// Heads that repeat themselves, all of the same lengths, so that some are taken for others if they are not looked at whole.
const REPEATED: [[&str; 2]; 4] = [
    [
        "GET /cart/items/7?page=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 2\r\nA: b\r\n\r\nok",
    ],
    [
        "GET /cart/items/8?page=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 1\r\nA: b\r\n\r\nk",
    ],
    [
        "PUT /cart/items/7?page=1 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    [
        "HEAD /cart/items?page=12 HTTP/1.1\r\nHost: shop.example\r\nX-A: b\r\n\r\n",
        "HTTP/1.1 204 OK\r\nServer: nginx/1.22.1\r\nX-A: b\r\n\r\n",
    ],
];

#[test]
fn heads_that_are_known_change_nothing() {
    let with = Config { request_headers: vec!["x-a".to_owned()], ..Config::default() };
    let response_headers = vec!["x-a".to_owned(), "a".to_owned()];
    let with = Config { response_headers, ..with };
    let without = Config { known_heads: 0, ..with.clone() };
    let few = Config { known_heads: 2, ..with.clone() };
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut talk = Talk::new();
        for _ in 0..100 {
            let mut pair = REPEATED[rng.below(REPEATED.len())].map(|message| message.as_bytes().to_vec());
            if rng.below(6) == 0 {
                let message = &mut pair[rng.below(2)];
                let at = rng.below(message.len());
                message[at] = b"\r\n: 0H8\xff"[rng.below(8)];
            }
            if rng.below(8) == 0 {
                let again = REPEATED[rng.below(REPEATED.len())];
                pair[0].extend_from_slice(again[0].as_bytes());
                pair[1].extend_from_slice(again[1].as_bytes());
            }
            talk = talk.c(&pair[0]).s(&pair[1]);
        }
        let expected = talk.run_whole(&without);
        for config in [&with, &few] {
            let run = talk.run_whole(config);
            assert_eq!(run.exchanges, expected.exchanges, "seed {seed}: {talk:?}");
            assert_eq!(run.stats, expected.stats, "seed {seed}: {talk:?}");
        }
    }
}

/// Adds what was tried to a failure of `check`.
fn told_with_a_failure(what: &str, check: impl FnOnce()) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    assert!(outcome.is_ok(), "{what}");
}
