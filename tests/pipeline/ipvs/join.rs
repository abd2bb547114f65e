//! The join by itself: its bounds at the limit and one past it, and what a decision of the kernel does to what is known of a
//! connection, before its SYN was seen and after.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pod2pod_user::ipvs::{
    Confidence, Reuse, Sight, Tuple, Verdict,
    closed::Closed,
    exact::{Cause, Decision, Met as Entry, Outcome},
    join::{Answer, Config, Join, Stats},
    kernel::Kernel,
    look::{Look, Reuses},
    met::Met,
    parse::Protocol,
    services::Standing,
    state::State,
};

use super::settle::{CERTAIN, at, reuse};

/// The service, and the real servers of the old connections and of what is scheduled anew.
const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 10], 80);
const OLD: ([u8; 4], u16) = ([10, 244, 2, 2], 8080);
const NEW: ([u8; 4], u16) = ([10, 244, 2, 3], 8080);

const AMPLE: Config = Config { max_suspects: 100, max_waiting: 100, max_waiting_bytes: 1000 };
/// Of polls, and when the first one ended.
const PERIOD: u64 = 5;
const FIRST: u64 = 100;

fn client(number: u16) -> SocketAddr {
    ([10, 244, 1, 2], 40_000 + number).into()
}

fn tuple(number: u16) -> Tuple {
    let client = client(number);
    Tuple {
        protocol: Protocol::TCP,
        client: (client.ip(), client.port()),
        service: (SERVICE.0.into(), SERVICE.1),
    }
}

/// A poll at `second`, with the entries of these clients in TIME_WAIT, `left` seconds of it, and with what it proved.
fn poll(second: u64, clients: impl IntoIterator<Item = u16>, left: u32, reuses: &[Reuse]) -> Arc<Look> {
    let mut closed = Closed::default();
    let sight = Sight { server: (OLD.0.into(), OLD.1), state: State::TimeWait, expires: left };
    clients.into_iter().for_each(|number| closed.push(&tuple(number), sight));
    Arc::new(Look {
        from: at(second - PERIOD),
        begin: at(second),
        end: at(second),
        period: at(PERIOD),
        closed,
        reuses: Reuses::new(reuses, 100),
        ..Look::default()
    })
}

/// A join, and what it handed over.
struct Run {
    join: Join<u16>,
    told: Vec<(u16, Option<Met>)>,
}

impl Run {
    /// The first poll has these clients' entries.
    fn after_a_poll(config: Config, clients: impl IntoIterator<Item = u16>) -> Self {
        let mut run = Self { join: Join::new(config), told: Vec::new() };
        run.look(&poll(FIRST, clients, 100, &[]));
        run
    }

    fn look(&mut self, look: &Arc<Look>) {
        let told = &mut self.told;
        self.join.look(Arc::clone(look), &mut |what, met| told.push((what, met)));
    }

    fn settle(&mut self, decision: &Decision) {
        let told = &mut self.told;
        self.join.settle(decision, &Kernel::default(), &mut |what, met| told.push((what, met)));
    }

    /// The SYN of a client, a second after the first poll.
    fn syn(&mut self, number: u16) {
        self.syn_with(number, isn(number), FIRST + 1);
    }

    fn syn_with(&mut self, number: u16, isn: u32, second: u64) {
        self.join.syn(client(number), SERVICE.into(), isn, at(second));
    }

    fn ask(&self, number: u16) -> Answer {
        self.join.ask(client(number), SERVICE.into(), Some(at(FIRST + 1)))
    }

    /// Has a record of a client wait, if there is room; what comes back if there is none.
    fn wait(&mut self, number: u16, bytes: usize) -> Option<(u16, Option<Met>)> {
        let (key, syn) = ((client(number), SERVICE.into()), at(FIRST + 1));
        self.join.wait(key, syn, number, bytes, at(FIRST + 2)).err()
    }

    /// What was handed over since.
    fn told(&mut self) -> Vec<(u16, Sum)> {
        let sum = |met: Met| (met.verdict, met.confidence);
        self.told.drain(..).map(|(what, met)| (what, met.map(sum))).collect()
    }
}

fn isn(number: u16) -> u32 {
    0xffff_f000 + u32::from(number)
}

/// Verdict, and how sure it is; absent of one that met no entry.
type Sum = Option<(Option<Verdict>, Confidence)>;

const PROBABLE: Sum = Some((None, Confidence::Probable));

#[test]
fn so_many_connections_are_in_question() {
    const MOST: u16 = 8;
    let config = Config { max_suspects: MOST.into(), ..AMPLE };
    for (count, forgotten) in [(MOST - 1, 0), (MOST, 0), (MOST + 1, 1), (3 * MOST, 2 * MOST)] {
        let mut run = Run::after_a_poll(config, 1..=count);
        (1..=count).for_each(|number| run.syn(number));
        for number in 1..=count {
            let expected = if number <= forgotten { Answer::No } else { Answer::InQuestion };
            assert_eq!(run.ask(number), expected, "{number} of {count}");
        }
        let expected = Stats { questioned: count.into(), forgotten: forgotten.into(), ..Stats::default() };
        assert_eq!(*run.join.stats(), expected, "{count}");
    }
    // A port that comes back again and again takes one place.
    let mut run = Run::after_a_poll(config, 1..=2);
    run.syn(1);
    for round in 0..10 * u64::from(MOST) {
        let second = FIRST + 1 + round * PERIOD;
        run.syn_with(2, round as u32, second);
        run.look(&poll(FIRST + (round + 1) * PERIOD, 1..=2, 120, &[]));
    }
    assert_eq!(run.join.stats().forgotten, 0, "{:?}", run.join.stats());
}

/// A connection that was forgotten while its record waited is not taken for one that was cleared.
#[test]
fn what_waits_for_a_forgotten_connection_leaves_as_probable() {
    let config = Config { max_suspects: 2, ..AMPLE };
    for (others, told) in [(1, None), (2, PROBABLE)] {
        let mut run = Run::after_a_poll(config, 1..=3);
        run.syn(1);
        assert_eq!(run.wait(1, 1), None);
        (2..2 + others).for_each(|number| run.syn(number));
        assert_eq!(run.join.stats().forgotten, u64::from(others == 2));
        // That poll would clear it: the entry ran on.
        run.look(&poll(FIRST + PERIOD, 1..=3, 60, &[]));
        assert_eq!(run.told(), [(1, told)], "beside {others}");
    }
}

#[test]
fn so_many_records_wait() {
    // Records, bytes of each; how many and how large they may be.
    for (records, bytes, max_waiting, max_waiting_bytes, refused) in [
        (3, 1, 4, 100, 0),
        (4, 1, 4, 100, 0),
        (5, 1, 4, 100, 1),
        (9, 1, 4, 100, 5),
        (4, 25, 9, 100, 0),
        (4, 25, 9, 99, 1),
        (5, 25, 9, 100, 1),
        (1, 100, 9, 100, 0),
        (1, 101, 9, 100, 1),
        (1, usize::MAX, 9, 100, 1),
        (1, 0, 0, 100, 1),
    ] {
        let context = format!("{records} of {bytes} into {max_waiting} and {max_waiting_bytes}");
        let config = Config { max_waiting, max_waiting_bytes, ..AMPLE };
        let mut run = Run::after_a_poll(config, 1..=records);
        (1..=records).for_each(|number| run.syn(number));
        let back: Vec<_> = (1..=records).filter_map(|number| run.wait(number, bytes)).collect();
        assert_eq!(back.len(), refused, "{context}");
        for (number, met) in back {
            let met = met.map(|met| (met.verdict, met.confidence));
            assert!(number > records - refused as u16 && met == PROBABLE, "{context}: {number} {met:?}");
        }
        let waits = usize::from(records) - refused;
        assert_eq!(run.join.waiting(), waits, "{context}");
        let stats = run.join.stats();
        assert_eq!((stats.waited, stats.waits_refused), (waits as u64, refused as u64), "{context}");
        // Whoever leaves makes room.
        let until = at(FIRST + 2 + PERIOD + 1);
        assert_eq!(run.join.next_deadline(), (waits > 0).then_some(until), "{context}");
        let told = &mut run.told;
        run.join.expire(until - Duration::from_nanos(1), &mut |what, met| told.push((what, met)));
        assert_eq!(run.told().len(), 0, "{context}");
        let told = &mut run.told;
        run.join.expire(until, &mut |what, met| told.push((what, met)));
        assert_eq!(run.told(), (1..=waits as u16).map(|number| (number, PROBABLE)).collect::<Vec<_>>());
        assert_eq!((run.join.waiting(), run.join.stats().waits_timed_out), (0, waits as u64), "{context}");
        if max_waiting > 0 && bytes <= max_waiting_bytes {
            assert_eq!(run.wait(1, bytes), None, "{context}");
        }
    }
}

/// How long a record may wait: one interval, and as much as a poll may be late.
#[test]
fn waiting_ends_with_the_next_poll_or_a_second_after_its_time() {
    for (period, patience) in
        [(Duration::from_millis(100), 200), (at(1), 2000), (at(5), 6000), (at(60), 61_000)]
    {
        let mut run = Run { join: Join::new(AMPLE), told: Vec::new() };
        let look = poll(FIRST, [1], 100, &[]);
        run.look(&Arc::new(Look { period, ..Arc::into_inner(look).unwrap() }));
        run.syn(1);
        assert_eq!(run.wait(1, 1), None);
        assert_eq!(run.join.next_deadline(), Some(at(FIRST + 2) + Duration::from_millis(patience)));
    }
}

/// A decision on the SYN of client 1 a little after that was seen.
fn decision(outcome: Outcome, has_met: bool) -> Decision {
    let end = |(address, port): ([u8; 4], u16)| (address.into(), port);
    let met = Entry {
        server: end(OLD),
        standing: Standing::Weight(0),
        state: State::TimeWait,
        flags: 0,
        left: at(60),
        idle: at(60),
        is_controlled: false,
    };
    let makes = matches!(outcome, Outcome::New | Outcome::Rescheduled);
    Decision {
        at: at(FIRST + 1) + Duration::from_millis(1),
        tuple: tuple(1),
        outcome,
        is_repeated: None,
        met: has_met.then_some(met),
        made: makes.then_some((end(NEW), Standing::Weight(1))),
        after: None,
        isn: isn(1),
    }
}

/// What a decision says: of the connection, and of one that is in question.
struct Case {
    outcome: Outcome,
    has_met: bool,
    /// The verdict; absent if it met none.
    verdict: Option<Verdict>,
    /// Where it comes out.
    server: ([u8; 4], u16),
}

fn cases() -> Vec<Case> {
    let case = |outcome, has_met, verdict, server| Case { outcome, has_met, verdict, server };
    vec![
        case(Outcome::Reused, true, Some(Verdict::Reused), OLD),
        case(Outcome::Rescheduled, true, Some(Verdict::Rescheduled), NEW),
        case(Outcome::Dropped(Cause::RemovedServer), true, Some(Verdict::Dropped), OLD),
        case(Outcome::Dropped(Cause::Tracked), true, Some(Verdict::Dropped), OLD),
        case(Outcome::Dropped(Cause::NoServer), true, Some(Verdict::Dropped), OLD),
        case(Outcome::Dropped(Cause::Unknown), true, Some(Verdict::Dropped), OLD),
        case(Outcome::New, false, None, NEW),
        case(Outcome::PassedOn, true, None, OLD),
        case(Outcome::Dropped(Cause::NoServer), false, None, OLD),
        case(Outcome::Dropped(Cause::Unknown), false, None, OLD),
    ]
}

#[test]
fn a_decision_settles_a_connection_in_question() {
    for Case { outcome, has_met, verdict, .. } in cases() {
        let context = format!("{outcome:?} {has_met}");
        let mut run = Run::after_a_poll(AMPLE, 1..=2);
        run.syn(1);
        run.syn(2);
        assert_eq!((run.wait(1, 10), run.wait(2, 10)), (None, None));
        run.settle(&decision(outcome, has_met));
        let met = verdict.map(|verdict| (Some(verdict), CERTAIN));
        assert_eq!(run.told(), [(1, met)], "{context}");
        assert_eq!(run.ask(2), Answer::InQuestion, "{context}: another client");
        match (run.ask(1), verdict) {
            (Answer::Met(told), Some(verdict)) => assert_eq!(told.verdict, Some(verdict), "{context}"),
            (answer, verdict) => assert_eq!((answer, verdict), (Answer::No, None), "{context}"),
        }
        let stats = *run.join.stats();
        let counts = (stats.met_by_kernel, stats.cleared);
        assert_eq!(counts, (u64::from(verdict.is_some()), u64::from(verdict.is_none())), "{context}");
        // The poll after it says no other thing, whatever it proves.
        let reuse = Reuse { tuple: tuple(1), ..reuse(1, CERTAIN, false) };
        run.look(&poll(FIRST + PERIOD, 1..=2, 60, &[reuse]));
        if let Some(verdict) = verdict {
            assert!(matches!(run.ask(1), Answer::Met(met) if met.verdict == Some(verdict)), "{context}");
        }
    }
}

#[test]
fn a_decision_may_come_before_its_syn() {
    for Case { outcome, has_met, verdict, server } in cases() {
        let context = format!("{outcome:?} {has_met}");
        // Also of an entry that was open in the last poll, and before the first poll.
        for polled in [Some(vec![1]), Some(vec![]), None] {
            let mut run = match polled {
                Some(clients) => Run::after_a_poll(AMPLE, clients),
                None => Run { join: Join::new(AMPLE), told: Vec::new() },
            };
            run.settle(&decision(outcome, has_met));
            let mut at_server = run.join.ask(client(1), server.into(), Some(at(FIRST + 1)));
            match (run.ask(1), verdict) {
                (Answer::Met(met), Some(verdict)) => {
                    assert_eq!((met.verdict, met.confidence), (Some(verdict), CERTAIN), "{context}");
                    assert_eq!(met.server, (server.0.into(), server.1), "{context}");
                    assert_eq!(at_server, Answer::Met(met), "{context}: by the real server");
                    // The SYN itself changes nothing, nor do copies of it.
                    run.syn(1);
                    run.syn_with(1, isn(1), FIRST + 2);
                    assert_eq!(run.ask(1), Answer::Met(met), "{context}");
                    let copy = run.join.ask(client(1), SERVICE.into(), Some(at(FIRST + 2)));
                    assert_eq!(copy, Answer::Met(met), "{context}");
                }
                (answer, _) => {
                    at_server = if verdict.is_some() { Answer::InQuestion } else { at_server };
                    assert_eq!((answer, at_server), (Answer::No, Answer::No), "{context}");
                }
            }
            assert_eq!(run.join.stats().met_by_kernel, u64::from(verdict.is_some()), "{context}");
            // Another time it is another connection.
            for second in [FIRST - 1, FIRST + 4] {
                let other = run.join.ask(client(1), SERVICE.into(), Some(at(second)));
                assert_eq!(other, Answer::No, "{context} {second}");
            }
        }
    }
}

#[test]
fn a_copy_of_a_syn_settles_nothing() {
    let mut run = Run::after_a_poll(AMPLE, [1]);
    run.syn(1);
    for has_met in [false, true] {
        run.settle(&decision(Outcome::Repeated, has_met));
        assert_eq!(run.ask(1), Answer::InQuestion);
    }
    // One that was dropped met the entry, whatever becomes of its copy.
    run.settle(&decision(Outcome::Dropped(Cause::Tracked), true));
    let dropped = run.ask(1);
    assert!(matches!(dropped, Answer::Met(met) if met.verdict == Some(Verdict::Dropped)), "{dropped:?}");
    run.settle(&decision(Outcome::New, false));
    assert_eq!(run.ask(1), dropped);
    assert_eq!(*run.join.stats(), Stats { questioned: 1, met_by_kernel: 1, ..Stats::default() });
}

#[test]
fn of_several_connections_of_a_tuple_the_one_with_the_number_is_settled() {
    for (outcome, has_met, verdict) in
        [(Outcome::Reused, true, Some(Verdict::Reused)), (Outcome::New, false, None)]
    {
        let of = |isn| Decision { isn, ..decision(outcome, has_met) };
        let mut run = Run::after_a_poll(AMPLE, [1]);
        run.syn(1);
        run.syn_with(1, 77, FIRST + 3);
        assert_eq!(run.ask(1), Answer::InQuestion);
        // Of neither.
        if verdict.is_none() {
            run.settle(&of(99));
            assert_eq!(run.ask(1), Answer::InQuestion, "{outcome:?}");
            // The first one's number is not known any more.
            run.settle(&of(isn(1)));
            assert_eq!(run.ask(1), Answer::InQuestion, "{outcome:?}");
        }
        run.settle(&of(77));
        let last = run.join.ask(client(1), SERVICE.into(), Some(at(FIRST + 3)));
        match verdict {
            None => assert_eq!(last, Answer::No, "{outcome:?}"),
            Some(_) => assert!(matches!(last, Answer::Met(met) if met.verdict == verdict), "{last:?}"),
        }
    }
}

#[test]
fn a_decision_is_not_of_the_connection_before() {
    let mut run = Run::after_a_poll(AMPLE, [1]);
    run.syn(1);
    assert_eq!(run.wait(1, 10), None);
    // The port comes back half a second later, and that is told before its SYN is seen.
    let later = at(FIRST + 1) + Duration::from_millis(500);
    run.settle(&Decision { isn: 88, at: later, ..decision(Outcome::Reused, true) });
    assert_eq!((run.told(), run.ask(1)), (vec![(1, None)], Answer::No));
    for syn in [later, at(FIRST + 1) + Duration::from_nanos(1)] {
        let answer = run.join.ask(client(1), SERVICE.into(), Some(syn));
        assert!(matches!(answer, Answer::Met(met) if met.verdict == Some(Verdict::Reused)), "{answer:?}");
    }
}

#[test]
fn a_decision_on_a_connection_that_was_forgotten_is_taken_all_the_same() {
    let config = Config { max_suspects: 2, ..AMPLE };
    for Case { outcome, has_met, verdict, server } in cases() {
        let context = format!("{outcome:?} {has_met}");
        let mut run = Run::after_a_poll(config, 1..=3);
        run.syn(1);
        assert_eq!(run.wait(1, 1), None);
        run.syn(2);
        run.syn(3);
        assert_eq!((run.ask(1), run.join.stats().forgotten), (Answer::No, 1), "{context}");
        run.settle(&decision(outcome, has_met));
        // What waited for it has left, and what it met is known as far as there is room for it.
        let met = verdict.map(|verdict| (Some(verdict), CERTAIN));
        let told = run.told();
        let [(1, told)] = told[..] else { panic!("{context}: {told:?}") };
        assert_eq!(told, if verdict.is_some() { met } else { PROBABLE }, "{context} {server:?}");
        assert!(run.join.stats().forgotten <= 3, "{context}: {:?}", run.join.stats());
    }
}

/// The join's bound holds for decisions as well: each takes two places, by the virtual address and by the real server.
#[test]
fn so_many_decisions_are_kept() {
    for (decisions, forgotten) in [(3u16, 0), (4, 0), (5, 2), (9, 10)] {
        let mut run = Run { join: Join::new(Config { max_suspects: 8, ..AMPLE }), told: Vec::new() };
        for number in 1..=decisions {
            let own = Decision { tuple: tuple(number), isn: isn(number), ..decision(Outcome::Reused, true) };
            run.settle(&own);
        }
        assert_eq!(run.join.stats().forgotten, forgotten, "{decisions}");
        let first_kept = forgotten as u16 / 2 + 1;
        for number in 1..=decisions {
            assert_eq!(run.ask(number) != Answer::No, number >= first_kept, "{number} of {decisions}");
        }
    }
}

#[test]
fn without_a_table_what_is_in_question_stays_probable() {
    let mut run = Run::after_a_poll(AMPLE, [1]);
    run.syn(1);
    assert_eq!(run.wait(1, 1), None);
    let told = &mut run.told;
    run.join.lose(&mut |what, met| told.push((what, met)));
    assert_eq!(run.told(), [(1, PROBABLE)]);
    assert_eq!((run.join.stats().unsettled, run.join.waiting()), (1, 0));
    // A SYN after that has nothing to be compared with.
    run.syn_with(1, 5, FIRST + 2);
    assert_eq!(run.join.ask(client(1), SERVICE.into(), Some(at(FIRST + 2))), Answer::No);
}
