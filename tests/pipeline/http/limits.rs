//! Every limit of the stage: at it and one past it.

use pod2pod_user::http::{Config, MAX_FOREIGN_BYTES};

use super::{GET, OK, Talk, get, ok};

/// A request head of exactly `length` bytes.
fn head(length: usize) -> String {
    let empty = "GET /long HTTP/1.1\r\nA: \r\n\r\n".len();
    format!("GET /long HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(length - empty))
}

#[test]
fn long_heads() {
    let run = |length: usize| {
        let talk = Talk::new().c(head(length)).s(OK).c(GET).s(OK);
        let whole = talk.run_whole(&Config::default());
        let parts = talk.run(&Config::default(), &mut |_, _| 1000);
        assert_eq!(whole.timeless(), parts.timeless());
        (whole.lines(), whole.stats.heads_too_long)
    };
    let next = "GET / 200 0/2 complete".to_owned();
    assert_eq!(run(64 * 1024), (vec!["GET /long 200 0/2 complete".to_owned(), next.clone()], 0));
    assert_eq!(run(64 * 1024 + 1), (vec!["GET /long 200 0/2 gap head_cut".to_owned(), next], 1));
}

#[test]
fn pending_requests() {
    let config = Config { max_pending: 3, ..Config::default() };
    let talk = |count: usize| (0..count).fold(Talk::new(), |talk, at| talk.c(get(&format!("/{at}"))));
    let answers = |talk: Talk, count: usize| (0..count).fold(talk, |talk, _| talk.s(ok("x")));
    let run = answers(talk(3), 3).run_whole(&config);
    assert_eq!((run.exchanges.len(), run.stats.complete, run.stats.requests_over_limit), (3, 3, 0));
    let run = answers(talk(4), 4).run_whole(&config);
    assert_eq!((run.stats.complete, run.stats.gap, run.stats.requests_over_limit), (3, 2, 1));
}

#[test]
fn kept_bytes() {
    let half = &GET[..20];
    let config = |max_kept: usize| Config { max_kept, ..Config::default() };
    let talk = Talk::new().c(half).c(&GET[20..]).s(OK);
    let run = talk.run_whole(&config(GET.len()));
    assert_eq!((run.lines(), run.stats.heads_no_memory), (vec!["GET / 200 0/2 complete".to_owned()], 0));
    let run = talk.run_whole(&config(19));
    assert_eq!(run.stats.heads_no_memory, 1);
    let config = |max_kept: usize| Config { max_kept, response_body_prefix: 2, ..Config::default() };
    let run = Talk::new().c(GET).s(OK).run_whole(&config(2));
    assert_eq!(run.stats.prefixes_no_memory, 0);
    let run = Talk::new().c(GET).s(OK).run_whole(&config(1));
    assert_eq!((run.stats.prefixes_no_memory, run.stats.complete), (1, 1));
}

#[test]
fn foreign_bytes() {
    let talk = |length: u64| Talk::new().c("\0").c(vec![b'\n'; length as usize - 1]);
    assert_eq!(talk(MAX_FOREIGN_BYTES).run_whole(&Config::default()).unwanted, 0);
    assert_eq!(talk(MAX_FOREIGN_BYTES + 1).run_whole(&Config::default()).unwanted, 1);
}
