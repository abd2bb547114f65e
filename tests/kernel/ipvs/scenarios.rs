//! Clients that come back with their ports, in every state of the old entry, whatever became of its real server, and however
//! the kernel is set: what the watch tells, beside what arrived at the servers.
//!
//! All cases of a setting share a director and go through their steps together; each has a service and ports of its own.

use std::thread;

use nix::sys::signal::Signal;
use support::{
    director::{Family, Settings},
    fact,
};

use super::{
    case::{Case, Event, Outcome, Plan, Prior},
    director::has_ipvs,
    score::{Count, Score, Verdict},
    world::{Done, World, settle, until},
};
use crate::machine;

/// Directors at a time: most of the time all of them wait.
const WORLDS: usize = 4;

/// Of both detectors.
#[derive(Default)]
struct Scores {
    polling: Score,
    exact: Score,
}

impl Scores {
    fn add(&mut self, done: &Done) {
        self.polling.add(&done.happened, &done.verdicts());
        if let Some(told) = &done.exact {
            self.exact.add(&done.happened, told);
        }
    }

    /// For the table that the tier ends with.
    fn tell(&self) {
        for (detector, score) in [("polling", &self.polling), ("exact", &self.exact)] {
            for (verdict, count) in &score.0 {
                let Count { happened, found, told, right } = *count;
                fact::scored(detector, verdict.as_str(), [happened, found, told, right]);
            }
        }
    }
}

/// Every plan for one setting.
fn plans() -> Vec<Plan> {
    use Event::{Drained, DrainedAndRefusing, DrainedAndSilent, Nothing, Removed};
    use Prior::{Close, CloseWait, Established, FinWait, HalfOpen, TimeWait, Udp};
    let mut plans = Vec::new();
    let mut add = |families: &[Family], is_persistent, priors: &[Prior], events: &[Event]| {
        for family in families {
            for prior in priors {
                let plan =
                    |event: &Event| Plan { family: *family, is_persistent, prior: *prior, event: *event };
                plans.extend(events.iter().map(plan));
            }
        }
    };
    let both = [Family::V4, Family::V6];
    add(
        &both,
        false,
        &[TimeWait, FinWait, CloseWait, Close, Established, HalfOpen],
        &[Nothing, Drained, Removed],
    );
    add(&[Family::V4], false, &[TimeWait, FinWait], &[DrainedAndRefusing, DrainedAndSilent]);
    add(&both, false, &[Udp], &[Nothing, Drained, Removed]);
    add(&both, true, &[TimeWait], &[Nothing, Drained, Removed]);
    plans
}

/// What polling has to call certain (the table of verdicts): the entry left a state that only a SYN leaves, or has another
/// server. A SYN to an entry in ESTABLISHED, one that is refused, and one that is dropped show nothing.
fn is_shown(done: &Done) -> Option<Verdict> {
    if done.happened.contains(&Verdict::Rescheduled) {
        return Some(Verdict::Rescheduled);
    }
    let leaves =
        matches!(done.plan.prior, Prior::TimeWait | Prior::FinWait | Prior::CloseWait | Prior::Close);
    let is_open = done.outcome != Some(Outcome::Refused);
    (done.happened == [Verdict::Reused] && leaves && is_open).then_some(Verdict::Reused)
}

fn severity(event: Event) -> &'static str {
    if event == Event::Nothing { "info" } else { "critical" }
}

/// Mistakes of the watch in one case.
fn mistakes(settings: Settings, done: &Done) -> Vec<String> {
    let Done { plan, outcome, happened, exact, told } = done;
    let mut mistakes = Vec::new();
    let context = format!("{settings:?} {plan:?}: {outcome:?}, {happened:?}, told {told:?}");
    for one in told.iter().filter(|one| one.is_certain) {
        if !happened.iter().any(|verdict| verdict.as_str() == one.verdict) {
            mistakes.push(format!("certain, and not so: {context}"));
        }
        if one.verdict == Verdict::Reused.as_str() && one.severity != severity(plan.event) {
            mistakes.push(format!("not as severe: {context}"));
        }
    }
    let is_told = |verdict: Verdict| told.iter().any(|one| one.is_certain && one.verdict == verdict.as_str());
    // It sees every SYN: nothing is missing.
    if exact.as_ref().is_some_and(|exact| exact != happened) {
        mistakes.push(format!("exact mode says {exact:?}: {context}"));
    }
    if is_shown(done).is_some_and(|verdict| !is_told(verdict)) {
        mistakes.push(format!("not told as certain: {context}"));
    }
    mistakes
}

/// Every setting of three values.
fn settings() -> Vec<Settings> {
    let one = |number: u32| Settings {
        conn_reuse_mode: number & 1,
        expire_nodest_conn: number >> 1 & 1,
        conntrack: number >> 2 & 1,
    };
    (0..8).map(one).collect()
}

#[test]
fn clients_that_come_back_are_told_as_what_became_of_them() {
    if !has_ipvs() {
        return;
    }
    machine::share();
    let (mut scores, mut wrong) = (Scores::default(), Vec::new());
    let settings = settings();
    for some in settings.chunks(WORLDS) {
        let worlds: Vec<_> = thread::scope(|scope| {
            let run = |settings: Settings| (settings, World::new(settings).run(&plans()));
            let running: Vec<_> = some.iter().map(|settings| scope.spawn(move || run(*settings))).collect();
            running.into_iter().map(|world| world.join().unwrap()).collect()
        });
        for (settings, all) in worlds {
            for done in &all {
                scores.add(done);
                wrong.extend(mistakes(settings, done));
            }
        }
    }
    scores.tell();
    assert!(wrong.is_empty(), "{} mistakes:\n{}", wrong.len(), wrong.join("\n"));
}

/// Seconds that an entry in TIME_WAIT has at first, and those that are left of them when the second connection comes: a later last
/// packet is taken for one of the old connection if it is no more than 5 s later.
const TIME_WAIT: u32 = 120;
const LEFT: u32 = TIME_WAIT - 8;

/// The second connection begins and ends while nobody looks: its entry is in TIME_WAIT before and after.
#[test]
fn a_connection_between_two_polls_is_probable() {
    if !has_ipvs() {
        return;
    }
    machine::share();
    let mut world = World::new(Settings { conn_reuse_mode: 0, ..Settings::default() });
    let plan = |family| Plan { family, is_persistent: false, prior: Prior::TimeWait, event: Event::Nothing };
    let mut cases = world.open(&[plan(Family::V4), plan(Family::V6)]);
    until("old enough", || world.not_closed(&cases, |left| left <= LEFT));
    world.poller.look();
    let mark = world.mark();
    world.poller.signal(Signal::SIGSTOP);
    world.director.client.within(|| cases.iter_mut().for_each(Case::begin));
    settle(&mut cases, |_| true);
    cases.iter_mut().for_each(Case::end_second);
    until("closed again", || world.not_closed(&cases, |left| left > LEFT));
    world.poller.signal(Signal::SIGCONT);
    world.poller.look();
    let mut scores = Scores::default();
    for done in &world.done(&cases, &mark) {
        assert_eq!(done.happened, [Verdict::Reused], "{:?}", done.plan);
        let told: Vec<_> = done.told.iter().map(|told| (told.verdict.as_str(), told.is_certain)).collect();
        assert_eq!(told, [("reused", false)], "{:?}", done.plan);
        scores.add(done);
    }
    scores.tell();
}
