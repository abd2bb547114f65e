//! Captured bodies without their content codings: every coding, every cut, bombs and rubbish.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use pod2pod_user::{
    enrich::{
        Config, Enricher, WallOffset,
        content::{MAX_WINDOW, Refusal, decode},
    },
    http::{Codings, Exchange},
};
use serde_json::{Value, json};

use super::{line, with};

/// Forty lines, compressed by Node.js with windows of 16 and of 22, 23 and 24 bits: these differ in the first byte only.
const BROTLI_16: &str =
    "e2cc00bf33c1c609f5ee8697206870cda243c6a6cade5a4186ed4d2b124a3c8ee90012c0a126951be243f7c9f911";
const BROTLI_22: &str =
    "1b6706f89d09364ea87737bc0441836b161d323655f6d60a326c6f5a9150e2714c0790000e35a9dc101fba4fce8f00";
const LIMIT: usize = 64 * 1024;

fn content() -> Vec<u8> {
    "hello, hello, hello: the cart of pod2pod\n".repeat(40).into_bytes()
}

fn codings(value: &str) -> Codings {
    let mut codings = Codings::default();
    codings.take(value.as_bytes());
    codings
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn brotli(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Each coding with the same content.
fn coded() -> Vec<(&'static str, Vec<u8>)> {
    let content = content();
    vec![
        ("gzip", gzip(&content)),
        ("x-gzip", gzip(&content)),
        ("deflate", zlib(&content)),
        ("deflate", bare_deflate(&content)),
        ("br", brotli(BROTLI_16)),
        ("br", brotli(BROTLI_22)),
        ("zstd", zstd(&content)),
    ]
}

#[test]
fn every_coding_comes_off() {
    for (name, coded) in coded() {
        let decoded = decode(&Bytes::from(coded), codings(name), LIMIT).unwrap();
        assert_eq!(decoded.content, content(), "{name}");
        assert!(!decoded.capped, "{name}");
    }
    let twice = Bytes::from(zstd(&gzip(&content())));
    assert_eq!(decode(&twice, codings("gzip, zstd"), LIMIT).unwrap().content, content());
}

#[test]
fn a_body_that_was_captured_in_part_gives_the_part() {
    for (name, coded) in coded() {
        let content = content();
        for length in 0..coded.len() {
            match decode(&Bytes::copy_from_slice(&coded[..length]), codings(name), LIMIT) {
                Ok(decoded) => assert!(content.starts_with(&decoded.content), "{name} {length}"),
                Err(refusal) => assert_eq!(refusal, Refusal::Damaged, "{name} {length}"),
            }
        }
    }
}

#[test]
fn no_more_is_given_than_was_asked_for() {
    let length = content().len();
    for (limit, capped) in [(1, true), (length - 1, true), (length, false), (length + 1, false)] {
        for (name, coded) in coded() {
            let decoded = decode(&Bytes::from(coded), codings(name), limit).unwrap();
            assert_eq!(decoded.content.len(), limit.min(length), "{name} {limit}");
            assert_eq!(decoded.capped, capped, "{name} {limit}");
        }
    }
    let bomb = Bytes::from(gzip(&vec![0; 50 << 20]));
    let counted = allocation_counter::measure(|| {
        assert_eq!(decode(&bomb, codings("gzip"), LIMIT).unwrap().content.len(), LIMIT);
    });
    assert!(counted.bytes_max < 1 << 20, "{} bytes for {LIMIT}", counted.bytes_max);
}

#[test]
fn a_decoder_that_wants_too_much_memory_is_refused() {
    let window = |bits: u8| {
        let mut coded = brotli(BROTLI_22);
        coded[0] = 0x11 | (bits - 17) << 1;
        decode(&Bytes::from(coded), codings("br"), LIMIT)
    };
    assert_eq!(1 << 23, MAX_WINDOW);
    assert_eq!(window(23).unwrap().content, content());
    assert_eq!(window(24), Err(Refusal::Window));
    // The large-window extension of brotli.
    assert_eq!(decode(&Bytes::from_static(&[0x11, 0x1e]), codings("br"), LIMIT), Err(Refusal::Window));
    // RFC 8878 3.1.1.1.2: a window of 2^(10 + exponent) bytes and eighths of it; then a last raw block of one byte.
    let zstd = |descriptor: u8| {
        let coded = [&[0x28, 0xb5, 0x2f, 0xfd, 0, descriptor][..], &[0x09, 0, 0, b'x']].concat();
        decode(&Bytes::from(coded), codings("zstd"), LIMIT)
    };
    assert_eq!(zstd(13 << 3).unwrap().content, &b"x"[..]);
    assert_eq!(zstd(13 << 3 | 1), Err(Refusal::Window));
}

#[test]
fn what_cannot_be_decoded_is_given_as_sent() {
    let rubbish = Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff");
    for name in ["gzip", "deflate", "zstd"] {
        assert_eq!(decode(&rubbish, codings(name), LIMIT), Err(Refusal::Damaged), "{name}");
    }
    assert_eq!(decode(&rubbish, codings("aws-chunked"), LIMIT), Err(Refusal::Unknown));
    assert_eq!(decode(&rubbish, codings("gzip, gzip, gzip"), LIMIT), Err(Refusal::Unknown));
}

fn answer(coding: &str, body: Vec<u8>) -> Exchange {
    with(|exchange| {
        let response = exchange.response.as_mut().unwrap();
        response.codings.take(coding.as_bytes());
        response.body_prefix = Bytes::from(body);
    })
}

#[test]
fn a_record_says_what_was_done() {
    let mut enricher = Enricher::new(Config { content_bytes: LIMIT, ..Config::default() });
    let mut told = |mut exchange: Exchange| -> Value {
        let (record, _) = enricher.enrich(&mut exchange, WallOffset::default());
        serde_json::from_str(&line(record)).unwrap()
    };
    let record = told(answer("gzip", gzip(b"{\"a\":1}")));
    assert_eq!(record["http.response.body.content"], json!("{\"a\":1}"));
    assert_eq!(record["http.response.body.decoded"], json!(["gzip"]));
    assert!(record.get("http.response.body.encoding").is_none());
    let record = told(answer("gzip", b"\xff\xfe".to_vec()));
    assert_eq!(record["http.response.body.encoding"], json!("base64"));
    assert!(record.get("http.response.body.decoded").is_none());
    let record = told(answer("", b"plain".to_vec()));
    assert_eq!(record["http.response.body.content"], json!("plain"));
    told(answer("rot13", b"cynva".to_vec()));
    let stats = enricher.stats();
    assert_eq!((stats.bodies_decoded, stats.bodies_damaged, stats.bodies_unknown_coding), (1, 1, 1));
}
