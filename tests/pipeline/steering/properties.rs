//! Whatever a capture leaves out, however late it learns what to leave out, in whatever order segments come: the same
//! exchanges.

use pod2pod_user::http::{Config, Exchange, Outcome};
use support::{
    conversation::{Conversation, duplicate, shuffle_from},
    rng::Rng,
    steered::{Manner, run},
};

use super::{MESSAGES, MIN_SKIP, TEXT, Writer, check, check_in_order, get};

/// SYN, SYN-ACK and the third packet.
const HANDSHAKE: usize = 3;

/// One less than the status of the first response of a conversation.
const FIRST_STATUS: u16 = 210;

/// Begins the target of an exchange whose response is chunked.
const CHUNKED: &str = "/chunked";

/// Exchanges by chance, with bodies from nothing to many times what is skipped. `chunks`: chunked ones too.
/// `pipelined`: two requests at once, too. Each response has a status of its own.
fn conversation(rng: &mut Rng, write: Writer, chunks: bool, pipelined: bool) -> Conversation {
    // Not such that a first acknowledgement is zero, which is taken for none.
    let isn = |rng: &mut Rng| u32::MAX - 1 - rng.below(3000) as u32;
    let mut said = Conversation::new().isns(isn(rng), isn(rng)).cut_every(5 + rng.below(90));
    let mut status = FIRST_STATUS;
    let mut start = || {
        status += 1;
        format!("HTTP/1.1 {status} OK")
    };
    for index in 0..1 + rng.below(6) {
        let path = format!("/{index}");
        let length = [0, 1, 30, MIN_SKIP as usize, 61, 400, 1500][rng.below(7)];
        let chunks = chunks && rng.below(3) == 0;
        let chunked_path = format!("{CHUNKED}{index}");
        let next = get(&format!("/next{index}"));
        let mut ok = |length| write.ok_as(&start(), length);
        said = match rng.below(6) {
            0 => said.client(write.post(&path, length)).server(ok(rng.below(500))),
            1 if pipelined => {
                said.client([write.post(&path, length), next].concat()).server([ok(3), ok(length)].concat())
            }
            2 if pipelined => {
                said.client([get(&path), next].concat()).server([ok(length), ok(length / 2)].concat())
            }
            3 | 4 if chunks => {
                let lengths = [1, length.max(1), 1 + rng.below(300)];
                said.client(get(&chunked_path)).server(write.chunked_as(&start(), &lengths))
            }
            _ => said.client(get(&path)).server(ok(length)),
        };
    }
    match rng.below(4) {
        0 => said
            .client(get("/until-close"))
            .server(format!("{}\r\n\r\n", start()))
            .server(vec![b'x'; 900])
            .server_fin()
            .client_fin(),
        1 => said.client(get("/aborted")).server(&write.ok_as(&start(), 700)[..600]).server_rst(),
        2 => said.client(get("/short")).server(&write.ok_as(&start(), 700)[..600]).server_fin().client_fin(),
        _ => said.close(),
    }
}

fn manner(rng: &mut Rng) -> Manner {
    Manner { min_skip: Some(MIN_SKIP), late: rng.below(5), lag: 1 + rng.below(6), ..Manner::PLAIN }
}

#[test]
fn skips_change_nothing_in_order() {
    let mut skipped = 0;
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let said = conversation(&mut rng, Writer(MESSAGES), true, true);
        let manner = manner(&mut rng);
        skipped += check_in_order(&said, &manner).stats.gap_bytes_cut;
    }
    assert!(skipped > 100_000, "{skipped} bytes skipped");
}

#[test]
fn skips_change_nothing_in_any_order() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let said = conversation(&mut rng, Writer(MESSAGES), true, true);
        let manner = manner(&mut rng);
        for said in [said.clone().seen_by_client(), said.clone().seen_by_server()] {
            let mut segments = said.segments();
            if segments.len() > 90 {
                continue;
            }
            duplicate(&mut segments, 20, &mut rng);
            let whole = run(&segments, &Manner::PLAIN, &Config::default()).lines();
            shuffle_from(&mut segments, HANDSHAKE, &mut rng);
            // A reset or a FIN that comes early is another matter: what it ends is not told the same either way.
            if run(&segments, &Manner::PLAIN, &Config::default()).lines() == whole {
                check(&segments, &manner, &Config::default());
            }
        }
    }
}

#[test]
fn a_credit_changes_nothing_where_lengths_are_known() {
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let said = conversation(&mut rng, Writer(MESSAGES), false, true);
        let min_skip = (rng.below(2) == 0).then_some(MIN_SKIP);
        // Read at once and said at once, the credit is never used up by a head behind a body.
        let manner = Manner { credit: Some(200), min_skip, ..Manner::PLAIN };
        check_in_order(&said, &manner);
    }
}

/// Of a hundred records the ring loses so many.
const LOSSES: [usize; 4] = [0, 3, 20, 50];

/// The sequence number of the first byte of the request, which is true whatever was lost.
fn sequence(exchange: &Exchange) -> u32 {
    let isn = exchange.connection.originator_isn.unwrap_or(0);
    isn.wrapping_add(exchange.offset as u32)
}

/// Checks what is told of a request against what happened to it; whether it is told as complete.
fn check_told(exchange: &Exchange, truth: &[Exchange], what: &str) -> bool {
    let Some(request) = &exchange.request else { return false };
    let is_same = |other: &&Exchange| other.request.is_some() && sequence(other) == sequence(exchange);
    let true_one = truth.iter().find(is_same).unwrap_or_else(|| panic!("no such request: {what}"));
    let true_request = true_one.request.as_ref().unwrap();
    assert!(true_request.target.starts_with(&request.target), "target: {what}");
    assert_eq!(request.method, true_request.method, "{what}");
    assert!(request.body_size <= true_request.body_size, "request size: {what}");
    let Some(response) = &exchange.response else { return false };
    let true_response = true_one.response.as_ref().unwrap();
    assert_eq!(response.status, true_response.status, "wrong response: {what}");
    // The number of a FIN that was lost looks like one byte more.
    let finish = u64::from(exchange.outcome == Some(Outcome::Gap));
    assert!(response.body_size <= true_response.body_size + finish, "response size: {what}");
    if exchange.outcome != Some(Outcome::Complete) {
        return false;
    }
    assert_eq!(true_one.outcome, Some(Outcome::Complete), "{what}");
    let whole = !response.body_cut || !request.target.starts_with(CHUNKED.as_bytes());
    assert!(!whole || response.body_size == true_response.body_size, "response size: {what}");
    assert_eq!(request.body_size, true_request.body_size, "request size: {what}");
    true
}

#[test]
fn nothing_wrong_is_told_whatever_is_lost_or_left_out() {
    let (mut complete, mut true_ones) = ([0; 4], [0; 4]);
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let said = conversation(&mut rng, Writer(TEXT), true, seed % 2 == 0);
        let credit = (rng.below(3) > 0).then_some(150 + rng.below(500) as u32);
        let loss = rng.below(LOSSES.len());
        let manner = Manner { credit, loss: LOSSES[loss], seed, ..manner(&mut rng) };
        for said in [said.clone().seen_by_client(), said.clone().seen_by_server()] {
            let segments = said.segments();
            let truth = run(&segments, &Manner::PLAIN, &Config::default()).exchanges;
            true_ones[loss] += truth.len();
            for exchange in run(&segments, &manner, &Config::default()).exchanges {
                let what = format!("seed {seed}, {manner:?}: {exchange:?}");
                complete[loss] += usize::from(check_told(&exchange, &truth, &what));
            }
        }
    }
    let shares: Vec<usize> = complete.iter().zip(true_ones).map(|(told, all)| 100 * told / all).collect();
    let least = [85, 70, 33, 8];
    assert!(shares.iter().zip(least).all(|(share, least)| *share >= least), "{shares:?} of a hundred");
}

#[test]
fn chunked_bodies_beyond_the_credit_are_told_as_cut_and_nothing_else_changes() {
    let mut cut = 0;
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        // Sides that take turns: what the credit leaves out hides no message.
        let mut said = Conversation::new().cut_every(5 + rng.below(60));
        for index in 0..1 + rng.below(5) {
            let lengths: Vec<usize> = (0..1 + rng.below(60)).map(|_| 1 + rng.below(40)).collect();
            let (request, response) =
                (Writer(MESSAGES).chunked_as("POST /a HTTP/1.1", &lengths), rng.below(400));
            said = match rng.below(3) {
                0 => said.client(request).server(Writer(MESSAGES).ok(response)),
                1 => said.client(get(&format!("/{index}"))).server(Writer(MESSAGES).chunked(&lengths)),
                _ => said.client(get(&format!("/{index}"))).server(Writer(MESSAGES).ok(response)),
            };
        }
        let manner = Manner { credit: Some(300), lag: 30, ..Manner::PLAIN };
        for said in [said.clone().close().seen_by_client(), said.close().seen_by_server()] {
            let segments = said.segments();
            let whole = run(&segments, &Manner::PLAIN, &Config::default());
            let told = run(&segments, &manner, &Config::default());
            assert_eq!(told.exchanges.len(), whole.exchanges.len(), "seed {seed}: {:#?}", told.lines());
            for (exchange, whole) in told.exchanges.iter().zip(&whole.exchanges) {
                let what = format!("seed {seed}: {exchange:?}");
                assert_eq!(exchange.outcome, Some(Outcome::Complete), "{what}");
                assert_eq!((exchange.offset, exchange.index), (whole.offset, whole.index), "{what}");
                assert_eq!((exchange.start, exchange.end), (whole.start, whole.end), "{what}");
                let sizes = |exchange: &Exchange| {
                    let (request, response) =
                        (exchange.request.as_ref().unwrap(), exchange.response.as_ref().unwrap());
                    [(request.body_size, request.body_cut), (response.body_size, response.body_cut)]
                };
                for ((size, is_cut), (true_size, _)) in sizes(exchange).into_iter().zip(sizes(whole)) {
                    assert!(size == true_size || is_cut && size < true_size, "{what}");
                    cut += usize::from(is_cut && size < true_size);
                }
            }
        }
    }
    assert!(cut > 200, "{cut}");
}
