//! Properties that hold for any bytes, over conversations made by chance.

use support::{
    http::{check_chunked, check_http},
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

/// Adds what was tried to a failure of `check`.
fn told_with_a_failure(what: &str, check: impl FnOnce()) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    assert!(outcome.is_ok(), "{what}");
}
