//! What the agent's records say of clients that come back behind IPVS, end to end: the failed request of a rolling update names the
//! entry that it met, on which real server, and what cures it; nobody else's record says anything of the kind.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use support::{
    director::{Family, Settings},
    fact,
};

use super::{
    director::has_ipvs,
    score::{Count, Score, Verdict},
    update::{ATTEMPT, Case, Event, INTERVAL, Outcome, Plan, Pod, Prior, Update, Written},
};
use crate::machine;

/// A poll may be late by as much as it is apart from the next one; and the output takes its time.
const LONGEST_WAIT: Duration = Duration::from_millis(2 * INTERVAL.as_millis() as u64 + 500);
/// A SYN without an answer is sent again after it (RFC 6298 section 2.1, net/ipv4/tcp.h TCP_TIMEOUT_INIT).
const SYN_AGAIN: Duration = Duration::from_secs(1);
/// Times left are told in whole seconds, rounded down; so are ages, rounded up.
const ROUNDED: f64 = 1.6;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// What happened to the second connection, as far as its client alone can tell. None if it met no old entry.
fn happened(settings: Settings, case: &Case) -> Option<Verdict> {
    let is_met = case.had_entry || is_flushed(settings, case);
    let outcome = case.outcome.filter(|_| is_met)?;
    // Its SYN was sent again, to an entry that had run out meanwhile.
    let is_second_try = settings.expire_nodest_conn == 0 && case.over.duration_since(case.begun) >= SYN_AGAIN;
    Some(match (case.plan.event, outcome) {
        (Event::Removed, Outcome::TimedOut) => Verdict::Dropped,
        (Event::Removed, Outcome::Answered(Pod::New)) if is_second_try => Verdict::Dropped,
        (_, Outcome::Answered(Pod::New)) => Verdict::Rescheduled,
        _ => Verdict::Reused,
    })
}

/// Of a server that was removed the kernel flushes the entries at once: a poll finds others where they were, and who follows the
/// kernel's decisions nothing.
fn is_flushed(settings: Settings, case: &Case) -> bool {
    let was_there = case.plan.prior != Prior::None && !case.had_entry;
    was_there && case.plan.event == Event::Removed && settings.expire_nodest_conn != 0
}

/// Whether a word is right about it.
fn is_right(settings: Settings, verdict: Verdict, word: &Value) -> bool {
    // Scheduled anew, it was dropped once before, if netfilter still had the old connection.
    let was_dropped = verdict == Verdict::Rescheduled && settings.conntrack != 0;
    word == verdict.as_str() || was_dropped && word == Verdict::Dropped.as_str()
}

/// What its record is to be: kind and outcome.
fn wanted(case: &Case) -> [&'static str; 2] {
    match case.outcome.expect("its client is back") {
        Outcome::Answered(_) => ["http", "complete"],
        Outcome::HungUp => ["http", "reset"],
        Outcome::Refused => ["connect", "refused"],
        Outcome::NoRoute => ["connect", "unreachable"],
        Outcome::TimedOut => ["connect", "timeout"],
    }
}

/// Names of what is not as it should be in a record of a connection that met an old entry.
fn faults(settings: Settings, case: &Case, verdict: Verdict, record: &Value) -> Vec<&'static str> {
    let [old, new] = case.pods;
    let (server, event) = (if verdict == Verdict::Rescheduled { new } else { old }, case.plan.event);
    let is_harmless = verdict == Verdict::Rescheduled || event == Event::Nothing;
    let weight = match (event, is_harmless) {
        (Event::Removed, false) => Value::Null,
        _ => u64::from(is_harmless).into(),
    };
    let is_absent = if weight.is_null() { true.into() } else { Value::Null };
    let severity = &record["ipvs.severity"];
    let idle = case.begun.duration_since(case.ended).as_secs_f64();
    let is_end = |key: &str, end: SocketAddr| {
        record[format!("{key}.address")] == end.ip().to_string()
            && record[format!("{key}.port")] == end.port()
    };
    [
        ("reuse", ["certain", "probable"].iter().any(|word| record["ipvs.reuse"] == *word)),
        ("verdict", is_right(settings, verdict, &record["ipvs.verdict"])),
        ("service", is_end("ipvs.service", case.service)),
        ("real server", is_end("ipvs.real_server", server)),
        ("weight", record["ipvs.real_server.weight"] == weight),
        ("absent", record["ipvs.real_server.absent"] == is_absent),
        (
            "severity",
            if is_harmless { severity == "info" || severity == "warning" } else { severity == "critical" },
        ),
        ("idle", record["ipvs.idle"].as_f64().is_some_and(|told| (told - idle).abs() <= ROUNDED)),
        (
            "explanation",
            is_harmless || record["ipvs.explanation"].as_str().is_some_and(|text| text.contains("Cure: ")),
        ),
    ]
    .into_iter()
    .filter(|(_, is_so)| !is_so)
    .map(|(name, _)| name)
    .collect()
}

/// Whether a record says anything of IPVS.
fn met(record: &Value) -> bool {
    record.as_object().is_some_and(|keys| keys.keys().any(|key| key.starts_with("ipvs.")))
}

/// Mistakes in what was written of one case.
fn mistakes(settings: Settings, case: &Case, written: &[Written]) -> Vec<String> {
    let own: Vec<&Written> = written.iter().filter(|written| case.is_of(&written.record)).collect();
    let (before, after): (Vec<&Written>, Vec<&Written>) =
        own.into_iter().partition(|written| written.at < case.begun);
    let (reuses, after): (Vec<&Written>, Vec<&Written>) =
        after.into_iter().partition(|written| written.record["kind"] == "ipvs_reuse");
    let verdict = happened(settings, case);
    let mut wrong: Vec<String> = before
        .iter()
        .filter(|written| met(&written.record))
        .map(|written| format!("its first connection met nothing: {}", written.record))
        .collect();
    wrong.extend(after.iter().filter_map(|written| mistake(settings, case, verdict, &written.record)));
    let [kind, outcome] = wanted(case);
    let is_main = |record: &Value| {
        record["observed_at"] == "client" && record["kind"] == kind && record["outcome"] == outcome
    };
    match after.iter().find(|written| is_main(&written.record)) {
        Some(main) => {
            let known =
                if case.outcome == Some(Outcome::TimedOut) { case.begun + ATTEMPT } else { case.over };
            let waited = main.at.saturating_duration_since(known);
            if waited > LONGEST_WAIT {
                wrong.push(format!("waited for {waited:?}: {}", main.record));
            }
            let is_named = |reuse: &Value| {
                ["connection.id", "outcome"].iter().all(|key| reuse[*key] == main.record[*key])
            };
            let has_failed = !matches!(case.outcome, Some(Outcome::Answered(_)));
            // What was read at an earlier look was known before the reuse was told.
            let nameless =
                reuses.iter().filter(|reuse| has_failed && main.at < reuse.at && !is_named(&reuse.record));
            wrong.extend(nameless.map(|reuse| format!("does not name what failed: {}", reuse.record)));
        }
        None => wrong.push(format!("not told as {kind} {outcome}: {after:?}")),
    }
    let is_false = |reuse: &&&Written| {
        verdict.is_none_or(|verdict| !is_right(settings, verdict, &reuse.record["ipvs.verdict"]))
    };
    wrong.extend(reuses.iter().filter(is_false).map(|reuse| format!("no such reuse: {}", reuse.record)));
    wrong.into_iter().map(|wrong| format!("{settings:?} {case:?}: {wrong}\n")).collect()
}

/// What is wrong in one record of the second connection.
fn mistake(settings: Settings, case: &Case, verdict: Option<Verdict>, record: &Value) -> Option<String> {
    let Some(verdict) = verdict else {
        return met(record).then(|| format!("it met nothing: {record}"));
    };
    // The other end may not know: a new server has no old entry, and of what is refused no SYN is seen at sockets.
    let is_other_end = record["observed_at"] == "server";
    let may_not_know = case.outcome == Some(Outcome::Answered(Pod::New)) || record["kind"] == "connect";
    if (is_other_end && may_not_know || is_flushed(settings, case)) && !met(record) {
        return None;
    }
    let faults = faults(settings, case, verdict, record);
    (!faults.is_empty()).then(|| format!("{faults:?} wrong in {record}"))
}

/// Every plan for one setting.
fn plans() -> Vec<Plan> {
    use Event::{Drained, Gone, HangsUp, Nothing, Refuses, Removed, Silent, Unplugged};
    let of_prior = |prior: Prior, events: &'static [Event]| {
        BOTH.into_iter()
            .flat_map(move |family| events.iter().map(move |event| Plan { family, prior, event: *event }))
    };
    of_prior(Prior::TimeWait, &[Nothing, Drained, HangsUp, Refuses, Silent, Gone, Unplugged, Removed])
        .chain(of_prior(Prior::Close, &[Nothing, Drained, Refuses, Gone, Removed]))
        .chain(of_prior(Prior::None, &[Nothing, Drained]))
        .collect()
}

/// What the agent told of one case, at the client's end.
fn told(settings: Settings, case: &Case, written: &[Written]) -> Vec<Verdict> {
    let is_own = |written: &&Written| {
        case.is_of(&written.record) && written.at >= case.begun && written.record["observed_at"] == "client"
    };
    let words: Vec<&Value> = written.iter().filter(is_own).map(|own| &own.record["ipvs.verdict"]).collect();
    if let Some(verdict) = happened(settings, case)
        && words.iter().any(|word| is_right(settings, verdict, word))
    {
        return vec![verdict];
    }
    let all = [Verdict::Reused, Verdict::Rescheduled, Verdict::Dropped];
    all.into_iter().filter(|verdict| words.iter().any(|word| *word == verdict.as_str())).collect()
}

fn carry_out(settings: Settings, configured: &[&str], score: &mut Score) -> Vec<String> {
    let mut update = Update::new(settings, configured);
    let cases = update.run(&plans());
    let written = update.end();
    for case in cases.iter().filter(|case| !is_flushed(settings, case)) {
        let happened: Vec<Verdict> = happened(settings, case).into_iter().collect();
        score.add(&happened, &told(settings, case, &written));
    }
    cases.iter().flat_map(|case| mistakes(settings, case, &written)).collect()
}

/// As IPVS is set: `conn_reuse_mode`, `expire_nodest_conn`, `conntrack`.
const fn set([conn_reuse_mode, expire_nodest_conn, conntrack]: [u32; 3]) -> Settings {
    Settings { conn_reuse_mode, expire_nodest_conn, conntrack }
}

/// Carries out every plan for each of these settings, and tells the score.
fn check(settings: &[Settings], configured: &[&str]) {
    if !has_ipvs() {
        return;
    }
    machine::share();
    let (mut score, mut wrong) = (Score::default(), Vec::new());
    for settings in settings {
        wrong.extend(carry_out(*settings, configured, &mut score));
    }
    for (verdict, count) in &score.0 {
        let Count { happened, found, told, right } = *count;
        fact::scored("agent", verdict.as_str(), [happened, found, told, right]);
    }
    assert!(wrong.is_empty(), "{} mistakes:\n{}", wrong.len(), wrong.join("\n"));
}

const SOCKETS: &str = "capture.source=cgroup";
const INTERFACES: &str = "capture.source=tc";
const POLLING: &str = "ipvs.detector=polling";

/// As kube-proxy had it.
#[test]
fn failed_requests_of_a_rolling_update_carry_the_reuse() {
    check(&[set([0, 0, 1])], &[SOCKETS]);
}

/// As the kernel comes but for the mode; and as kube-proxy has it.
#[test]
fn so_they_do_by_polling_alone() {
    check(&[set([0, 0, 0]), set([1, 1, 1])], &[SOCKETS, POLLING]);
}

#[test]
fn so_do_those_that_are_seen_at_interfaces() {
    check(&[set([0, 1, 0])], &[INTERFACES]);
}
