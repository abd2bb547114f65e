//! Records of connections joined with what a simulated kernel did with them: each comes once and in time, what is certain
//! happened, and a connection that met an entry which the last poll had closed says so.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use pod2pod_user::ipvs::{
    Confidence, Detector, Verdict, detect,
    join::{Answer, Config, Join},
    kernel::Kernel,
    look::{Look, Reuses},
    met::Met,
};

use support::simulation::{Entry, Sent, Setting, Simulation};

use super::{READING, poll, reading};

/// How long a simulation lasts, milliseconds.
const END: u64 = 300_000;
/// A record is told this long after its SYN at most, milliseconds.
const LATEST: usize = 12_000;

/// A connection, as its record tells of it.
#[derive(Debug)]
struct Record {
    first: Sent,
    /// The client's entry as the last whole reading before the SYN had it.
    known: Option<Entry>,
    /// The SYN came while the table was read, or is so close to that that it does not matter.
    is_blurred: bool,
    due: u64,
    asked: u64,
    told: Option<(u64, Option<Met>)>,
}

#[derive(Debug, Default)]
struct Found {
    certain: usize,
    probable: usize,
    dropped: usize,
    waited: u64,
    cleared: u64,
    unmet: usize,
}

struct Run {
    simulation: Simulation,
    join: Join<usize>,
    records: Vec<Record>,
    sent: Vec<Sent>,
    interval: u64,
}

fn client(number: usize) -> SocketAddr {
    ([10, 244, 1, 2], 50_000 + number as u16).into()
}

fn service() -> SocketAddr {
    ([10, 96, 0, 10], 80).into()
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Run {
    /// SYNs are seen in their order.
    fn see(&mut self, clear: &HashMap<usize, Entry>, polls: &[u64], context: &str) {
        for sent in std::mem::take(&mut self.simulation.sent) {
            self.tell(sent.time, context);
            self.join.syn(client(sent.client), service(), sent.isn, at(sent.time));
            let is_first =
                !self.sent.iter().rev().any(|own| (own.client, own.isn) == (sent.client, sent.isn));
            self.sent.push(sent);
            if is_first {
                let is_blurred = polls.iter().any(|poll| sent.time >= *poll && sent.time <= poll + READING);
                let due = sent.time + 1 + self.simulation.rng.below(LATEST) as u64;
                let known = clear.get(&sent.client).copied();
                self.records.push(Record { first: sent, known, is_blurred, due, asked: due, told: None });
            }
        }
    }

    /// Records whose time has come ask, and leave or wait.
    fn tell(&mut self, until: u64, context: &str) {
        let mut due: Vec<usize> = (0..self.records.len())
            .filter(|index| self.records[*index].due <= until && self.records[*index].due != 0)
            .collect();
        due.sort_by_key(|index| self.records[*index].due);
        for index in due {
            let Record { first, due, .. } = self.records[index];
            let Self { join, records, .. } = self;
            join.expire(at(due), &mut |index: usize, met| tell_once(&mut records[index], due, met, context));
            let key = (client(first.client), service());
            match join.ask(key.0, key.1, Some(at(first.time))) {
                Answer::No => tell_once(&mut records[index], due, None, context),
                Answer::Met(met) => tell_once(&mut records[index], due, Some(met), context),
                Answer::InQuestion => {
                    join.wait(key, at(first.time), index, 1, at(due)).expect("there is room");
                }
            }
            records[index].due = 0;
        }
        let records = &mut self.records;
        self.join
            .expire(at(until), &mut |index: usize, met| tell_once(&mut records[index], until, met, context));
    }
}

fn tell_once(record: &mut Record, now: u64, met: Option<Met>, context: &str) {
    assert!(record.told.is_none(), "{context}: told twice: {record:?}");
    record.told = Some((now, met));
}

fn simulate(seed: u64, setting: Setting, interval: u64) -> Found {
    let context = format!("seed {seed} {setting:?} interval {interval}");
    let config = Config { max_suspects: 1000, max_waiting: 1000, max_waiting_bytes: 1000 };
    let simulation = Simulation::new(seed, setting);
    let mut run =
        Run { simulation, join: Join::new(config), records: Vec::new(), sent: Vec::new(), interval };
    let mut detector = Detector::new(detect::Config::default());
    let kernel = Kernel {
        conn_reuse_mode: Some(setting.reuse_mode),
        expire_nodest_conn: Some(setting.expire_nodest.into()),
        ..Kernel::default()
    };
    let (mut polls, mut clear) = (vec![0], HashMap::new());
    for now in (interval..END).step_by(interval as usize) {
        run.simulation.run_until(now);
        run.see(&clear, &polls, &context);
        run.tell(now, &context);
        let (text, fresh) = reading(&mut run.simulation, false);
        // Some SYNs that came meanwhile are seen before the poll is known, some after it.
        if run.simulation.rng.below(2) == 0 {
            run.see(&clear, &[now], &context);
        }
        let services = run.simulation.services();
        let reuses = poll(&mut detector, &text, now, &services, &kernel);
        let look = Look {
            from: at(*polls.last().unwrap()),
            begin: at(now),
            end: at(now + READING),
            period: at(interval),
            closed: detector.closed(),
            reuses: Reuses::new(&reuses, 1000),
            services: Some(services),
            kernel: kernel.clone(),
        };
        let Run { join, records, .. } = &mut run;
        join.look(Arc::new(look), &mut |index: usize, met| {
            tell_once(&mut records[index], now + READING, met, &context)
        });
        polls.push(now);
        clear = fresh;
    }
    run.tell(u64::MAX / 2_000_000, &context);
    let Run { join, records, sent, interval, .. } = run;
    let mut found = Found { waited: join.stats().waited, cleared: join.stats().cleared, ..Found::default() };
    for record in &records {
        check(record, &sent, &mut found, &context);
        check_wait(record, interval, &context);
    }
    found
}

fn check(record: &Record, sent: &[Sent], found: &mut Found, context: &str) {
    let Record { first, known, is_blurred, told, .. } = record;
    let Some((told_at, met)) = told else { panic!("{context}: never told: {record:?}") };
    let own: Vec<&Sent> =
        sent.iter().filter(|sent| (sent.client, sent.isn) == (first.client, first.isn)).collect();
    // The client came back with its port before: only the last connection is remembered.
    let is_old = |other: &Sent| {
        other.client == first.client
            && other.isn != first.isn
            && other.time > first.time
            && other.time <= *told_at
    };
    let is_replaced = sent.iter().any(is_old);
    match met {
        Some(met) if met.confidence == Confidence::Certain => {
            found.certain += 1;
            let is_there = |sent: &&&Sent| {
                let address = sent.server.map(|server| ([10, 244, 2, 2 + server as u8].into(), 8080));
                address == Some(met.server)
            };
            let is_true = match met.verdict {
                Some(Verdict::Reused) => {
                    own.iter().any(|sent| is_there(&sent) && (sent.met.is_some() || met.may_have_expired))
                }
                Some(Verdict::Rescheduled) => own.iter().any(|sent| is_there(&sent) && sent.made),
                Some(Verdict::Dropped) | None => false,
            };
            assert!(is_true, "{context}: {met:?} of {own:?}");
        }
        Some(met) => {
            found.probable += 1;
            found.unmet += usize::from(own.iter().all(|sent| sent.met.is_none()));
            if met.verdict == Some(Verdict::Dropped) {
                found.dropped += 1;
                assert!(own.iter().any(|sent| sent.server.is_none()), "{context}: {met:?} of {own:?}");
            }
        }
        None => {
            // The entry that it met was closed in the last poll before.
            let has_to = first.met.is_some_and(|met| {
                known.is_some_and(|known| known.id == met.id && known.state.is_closed())
                    && met.state.is_closed()
            });
            assert!(!has_to || *is_blurred || is_replaced, "{context}: {record:?} of {own:?}");
        }
    }
}

/// Whoever waits, waits for one interval at most, and for a poll that is late.
fn check_wait(record: &Record, interval: u64, context: &str) {
    let Some((told_at, _)) = record.told else { return };
    if told_at > END {
        // All that was left was told then.
        return;
    }
    assert!(told_at <= record.asked + interval + 1000, "{context}: {record:?}");
}

#[test]
fn records_come_once_and_in_time_and_certain_ones_are_true() {
    let base = 0x6a6f_696e;
    let mut all = Found::default();
    for round in 0..48u64 {
        let setting = Setting {
            reuse_mode: u32::from(round & 1 != 0),
            expire_nodest: round & 2 != 0,
            conntrack: round & 4 != 0,
            direct: round & 8 != 0,
        };
        let interval = [1000, 5000, 16_000][round as usize % 3];
        let found = simulate(base + round, setting, interval);
        all.certain += found.certain;
        all.probable += found.probable;
        all.dropped += found.dropped;
        all.waited += found.waited;
        all.cleared += found.cleared;
        all.unmet += found.unmet;
    }
    // A simulation in which nothing happens proves nothing.
    let has_all = all.certain > 500 && all.probable > 200 && all.dropped > 20 && all.waited > 500;
    assert!(has_all, "from seed {base}: {all:?}");
    assert!(all.unmet * 20 < all.probable, "hardly any was probable and met nothing: {all:?}");
}
