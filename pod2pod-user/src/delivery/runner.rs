//! A sink's loop: takes batches from its queue, sends them to its target, and deals with the answers.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
};

use super::{
    Answer, CircuitState, DeadLetters, Queue, Refusal, RefusalKind, SinkStats, Target, Trouble, TroubleKind,
    Verdict,
    backoff::{Dice, backoff},
    circuit::{Circuit, MAX_ASKED, May},
    concurrency::Concurrency,
    job::Job,
    queue::Taken,
};

/// When the program ends a batch waits this long at most before it is sent again: there are some seconds left.
const HURRIED_WAIT: Duration = Duration::from_millis(250);
/// An attempt without an answer has failed after this time, once the program ends.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(2);
/// With a spool the rest is kept after this time, once the program ends: who starts it again need not wait for long.
const KEEPING_TIME: Duration = Duration::from_secs(2);
/// Warnings about a target that keeps failing come this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// What a target may be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Batches under way at once, at most; with one, records arrive in their order.
    pub concurrency: usize,
    /// An attempt without an answer for so long has failed.
    pub timeout: Duration,
    /// Attempts for one batch; without a number as many as it takes.
    pub attempts: Option<u32>,
}

/// Items that were sent.
struct Flown {
    job: Job,
    answer: Answer,
    took: Duration,
}

/// What is to be sent next.
enum Next {
    /// What waits at this place.
    Again(usize),
    /// The next of the queue.
    New,
}

/// The loop of one sink.
pub struct Runner<T> {
    name: Arc<str>,
    target: Rc<T>,
    queue: Arc<Queue>,
    limits: Limits,
    circuit: Circuit,
    concurrency: Concurrency,
    dice: Dice,
    /// To be sent again, in order.
    waiting: Vec<Job>,
    flights: JoinSet<Flown>,
    /// When these were queued.
    flying_since: Vec<Instant>,
    /// Where records go that the target will never take.
    dead: Option<DeadLetters>,
    /// The program ends: there is no time to wait for long.
    hurries: watch::Sender<bool>,
    /// From then on what is on disk is not sent any more, but kept for the next start.
    keeps_from: Option<Instant>,
    keeps: bool,
    warned_of_trouble: Option<Instant>,
    warned_of_refusal: Option<Instant>,
}

impl<T: Target> Runner<T> {
    /// A loop from `queue` to `target`.
    pub fn new(name: Arc<str>, target: T, queue: Arc<Queue>, limits: Limits) -> Self {
        Self {
            name,
            target: Rc::new(target),
            queue,
            limits,
            circuit: Circuit::default(),
            concurrency: Concurrency::new(limits.concurrency, clock()),
            dice: Dice::default(),
            waiting: Vec::new(),
            flights: JoinSet::new(),
            flying_since: Vec::new(),
            dead: None,
            hurries: watch::Sender::new(false),
            keeps_from: None,
            keeps: false,
            warned_of_trouble: None,
            warned_of_refusal: None,
        }
    }

    /// Keeps what the target will never take.
    #[must_use]
    pub fn with_dead_letters(self, dead: Option<DeadLetters>) -> Self {
        Self { dead, ..self }
    }

    /// Sends until nothing comes any more and everything is dealt with, or nobody waits for it any more.
    pub async fn run(self) {
        LocalSet::new().run_until(self.work()).await;
    }

    async fn work(mut self) {
        loop {
            let look = self.launch(clock());
            self.tell();
            if self.queue.is_abandoned() || self.is_done() {
                return;
            }
            tokio::select! {
                Some(flown) = self.flights.join_next() => {
                    // A target's panic is the program's.
                    let flown = flown.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    self.land(flown, clock());
                }
                () = self.queue.changed() => {}
                () = until(look) => {}
            }
        }
    }

    fn is_hurried(&self) -> bool {
        *self.hurries.borrow()
    }

    /// Nothing comes, nothing waits, nothing is under way.
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty() && self.queue.is_over(self.keeps)
    }

    /// Sends what may be sent at `now`; when to look again if nothing happens until then.
    fn launch(&mut self, now: Instant) -> Option<Instant> {
        if self.queue.is_ended() && !self.is_hurried() {
            self.hurries.send_replace(true);
            self.keeps_from = now.checked_add(KEEPING_TIME);

            self.circuit.hurry(now);
            self.waiting.iter_mut().for_each(|job| job.due = now);
        }
        if self.is_hurried() {
            // A target that is down need not be asked for what is kept.
            let is_down = self.circuit.state() != CircuitState::Closed;
            self.keeps |= is_down || self.keeps_from.is_some_and(|then| then <= now);
        }
        if self.keeps {
            self.keep();
        }
        while let Some(next) = self.next(now) {
            match self.circuit.ask(now, self.flights.len()) {
                May::Send => {}
                May::NotBefore(until) => return Some(until),
                May::WaitForAnswer => return None,
            }
            match next {
                Next::Again(place) => {
                    let job = self.waiting.remove(place);
                    self.send(job);
                }
                Next::New => {
                    let Some(Taken { parcel, weight, ticket, since }) = self.queue.take(self.keeps) else {
                        break;
                    };
                    let ticket = ticket.map(Rc::new);
                    self.send(Job { parcel, weight, ticket, failures: 0, due: now, since });
                }
            }
        }
        let due = self.waiting.iter().map(|job| job.due).chain(self.keeps_from);
        due.filter(|due| *due > now).min()
    }

    /// What is on disk and waits to be sent again is found there at the next start.
    fn keep(&mut self) {
        for job in self.waiting.extract_if(.., |job| job.is_stored()) {
            self.queue.give_back(job.weight);
        }
    }

    /// What is to be sent next, if there is a place for it. What waits to be sent again keeps its place, so that memory is bounded.
    fn next(&mut self, now: Instant) -> Option<Next> {
        let (under_way, limit) = (self.flights.len(), self.concurrency.limit());
        // Where one is sent at a time it is the first of those that wait, or none: they have an order.
        let among = if self.limits.concurrency == 1 { 1 } else { self.waiting.len() };
        let again = self.waiting.iter().take(among).position(|job| job.due <= now);
        let is_free = under_way + if again.is_some() { 0 } else { self.waiting.len() } < limit;
        match again {
            Some(place) if is_free => Some(Next::Again(place)),
            None if !self.queue.has_next(self.keeps) => None,
            None if is_free => Some(Next::New),
            Some(_) | None => {
                self.concurrency.hold();
                None
            }
        }
    }

    fn send(&mut self, job: Job) {
        self.flying_since.extend(job.since);
        let (target, timeout) = (Rc::clone(&self.target), self.limits.timeout);
        let mut hurries = self.hurries.subscribe();
        self.flights.spawn_local(async move {
            let begin = clock();
            let late = |after| {
                Answer::Later(Trouble::new(TroubleKind::Timeout, format_args!("no answer in {after:?}")))
            };
            let answer = tokio::select! {
                answer = target.send(&job.parcel) => answer,
                () = until(Some(begin + timeout)) => late(timeout),
                () = hurried(&mut hurries) => late(HURRIED_TIMEOUT),
            };
            Flown { answer, took: clock() - begin, job }
        });
    }

    fn land(&mut self, flown: Flown, now: Instant) {
        let Flown { job, answer, took } = flown;
        if let Some(place) = self.flying_since.iter().position(|since| Some(*since) == job.since) {
            self.flying_since.swap_remove(place);
        }
        let items = job.parcel.len() as u64;
        let answer = match answer {
            Answer::Judged(verdicts) if verdicts.len() as u64 != items => {
                let detail = format_args!("{} answers for {items} records", verdicts.len());
                Answer::Later(Trouble::new(TroubleKind::Nonsense, detail))
            }
            Answer::Delivered
            | Answer::Judged(_)
            | Answer::TooLarge
            | Answer::Later(_)
            | Answer::Never(_) => answer,
        };
        self.queue.count(0, None, |stats| stats.latency.observe(took));
        match &answer {
            Answer::Later(trouble) => {
                if trouble.kind == TroubleKind::Throttled {
                    self.concurrency.refused(now);
                }
                self.fail(trouble, now);
            }
            Answer::Judged(verdicts) => self.weigh(verdicts, now, took),
            Answer::Delivered | Answer::TooLarge | Answer::Never(_) => {
                self.concurrency.answered(now, took);
                self.succeed();
            }
        }
        match answer {
            Answer::Delivered => {
                self.count(&job, items, |stats| stats.delivered += items);
                self.finish(job);
            }
            Answer::Judged(verdicts) => self.judge(job, &verdicts, now),
            Answer::TooLarge => self.divide(job, now),
            Answer::Later(trouble) => self.try_again(job, Some(&trouble), now),
            Answer::Never(refusal) => {
                job.parcel.items().for_each(|item| self.bury(&job, item, &refusal, now));
                self.finish(job);
            }
        }
    }

    /// Takes answers of items together: some that wait are too much for now, and if all do it is as if there had been no answer.
    fn weigh(&mut self, verdicts: &[Verdict], now: Instant, took: Duration) {
        let waiting = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Later(kind) => Some(*kind),
            Verdict::Delivered | Verdict::Duplicate | Verdict::Never(_) => None,
        });
        let count = waiting.clone().count();
        let Some(kind) = { waiting }.next_back() else {
            self.concurrency.answered(now, took);
            return self.succeed();
        };
        self.concurrency.refused(now);
        let detail = format_args!("said of {count} of {} records", verdicts.len());
        let trouble = Trouble::new(kind, detail);
        if count == verdicts.len() {
            self.fail(&trouble, now);
        } else {
            self.note(&trouble, now);
            self.succeed();
        }
    }

    /// Counts items of a job that are dealt with.
    fn count(&self, job: &Job, items: u64, count: impl FnOnce(&mut SinkStats)) {
        self.queue.count(items, job.ticket.as_deref(), count);
    }

    /// All items of a job are dealt with; of its batch too, if it was the last of it.
    fn finish(&self, job: Job) {
        self.queue.give_back(job.weight);
        if let Some(ticket) = job.ticket.and_then(Rc::into_inner) {
            self.queue.acknowledge(ticket);
        }
    }

    fn succeed(&mut self) {
        let was = self.circuit.state();
        self.circuit.succeed();
        if was != self.circuit.state() {
            tracing::info!(sink = &*self.name, "the target takes records again");
        }
    }

    fn fail(&mut self, trouble: &Trouble, now: Instant) {
        let random = if self.is_hurried() { 0 } else { self.dice.roll() };
        self.circuit.fail(now, trouble.kind, trouble.after.filter(|_| !self.is_hurried()), random);
        self.note(trouble, now);
    }

    /// Counts an attempt that failed, or a part of it, and says so now and then.
    fn note(&mut self, trouble: &Trouble, now: Instant) {
        let place = TroubleKind::ALL.iter().position(|kind| *kind == trouble.kind);
        self.queue.count(0, None, |stats| {
            if let Some(count) = place.and_then(|place| stats.troubles.get_mut(place)) {
                *count += 1;
            }
        });
        if may_warn(&mut self.warned_of_trouble, now) {
            let (reason, detail) = (trouble.kind.as_str(), &trouble.detail);
            tracing::warn!(
                sink = &*self.name,
                reason,
                detail,
                "records wait, since the target does not take them"
            );
        }
    }

    /// Deals with each item as was said of it.
    fn judge(&mut self, job: Job, verdicts: &[Verdict], now: Instant) {
        let count = |wanted: &Verdict| verdicts.iter().filter(|verdict| *verdict == wanted).count() as u64;
        let duplicates = count(&Verdict::Duplicate);
        let delivered = count(&Verdict::Delivered) + duplicates;
        self.count(&job, delivered, |stats| {
            stats.delivered += delivered;
            stats.duplicates += duplicates;
        });
        for (item, verdict) in job.parcel.items().zip(verdicts) {
            if let Verdict::Never(refusal) = verdict {
                self.bury(&job, item, refusal, now);
            }
        }
        let rest = job.parcel.only(|place| matches!(verdicts.get(place), Some(Verdict::Later(_))));
        if rest.is_empty() {
            self.finish(job);
        } else {
            self.try_again(Job { parcel: rest, ..job }, None, now);
        }
    }

    /// Too much at once: half of it, or none if it is one item.
    fn divide(&mut self, mut job: Job, now: Instant) {
        job.due = now;
        match job.halves() {
            Ok(halves) => drop(self.waiting.splice(..0, halves)),
            Err(job) => {
                let detail = format_args!("one record of {} bytes", job.parcel.bytes().len());
                let refusal = Refusal::new(RefusalKind::TooLarge, detail);
                job.parcel.items().for_each(|item| self.bury(&job, item, &refusal, now));
                self.finish(job);
            }
        }
    }

    fn try_again(&mut self, mut job: Job, trouble: Option<&Trouble>, now: Instant) {
        let items = job.parcel.len() as u64;
        job.failures = job.failures.saturating_add(1);
        if self.limits.attempts.is_some_and(|attempts| job.failures >= attempts) {
            self.count(&job, items, |stats| stats.dropped_failed += items);
            return self.finish(job);
        }
        self.queue.count(0, None, |stats| stats.retried += items);
        let asked = trouble.and_then(|trouble| trouble.after).unwrap_or_default().min(MAX_ASKED);
        let wait = backoff(job.failures, self.dice.roll()).max(asked);
        job.due = now + if self.is_hurried() { HURRIED_WAIT } else { wait };
        let is_late = trouble.is_some_and(|trouble| trouble.kind == TroubleKind::Timeout);
        match if is_late && job.may_be_too_slow() { job.halves() } else { Err(job) } {
            Ok(halves) => drop(self.waiting.splice(..0, halves)),
            Err(job) => self.waiting.insert(0, job),
        }
    }

    /// Counts an item that the target will never take, and keeps it if there is a place for that.
    fn bury(&mut self, job: &Job, item: &[u8], refusal: &Refusal, now: Instant) {
        let kept = self.dead.as_mut().map(|dead| dead.put(item, refusal, SystemTime::now()));
        let place = RefusalKind::ALL.iter().position(|kind| *kind == refusal.kind);
        let dead = self.dead.as_ref().map(DeadLetters::stats);
        self.count(job, 1, |stats| {
            if let Some(count) = place.and_then(|place| stats.refused.get_mut(place)) {
                *count += 1;
            }
            stats.dead = dead;
        });
        if may_warn(&mut self.warned_of_refusal, now) {
            let (sink, reason, detail) = (&*self.name, refusal.kind.as_str(), &refusal.detail);
            match kept {
                Some(Ok(())) => tracing::warn!(
                    sink,
                    reason,
                    detail,
                    "the target refuses records, which are kept as dead letters"
                ),
                Some(Err(error)) => {
                    tracing::warn!(sink, reason, detail, %error, "the target refuses records, which are lost")
                }
                None => tracing::warn!(
                    sink,
                    reason,
                    detail,
                    "the target refuses records, which are lost without a data_dir to keep them in"
                ),
            }
        }
    }

    /// Tells how things stand.
    fn tell(&self) {
        let (circuit, trouble) = (self.circuit.state(), self.circuit.trouble());
        let concurrency = self.concurrency.limit() as u64;
        self.queue.count(0, None, |stats| {
            (stats.circuit, stats.trouble) = (Some(circuit), trouble);
            stats.concurrency = concurrency;
        });
        let waiting = self.waiting.iter().filter_map(|job| job.since);
        self.queue.set_taken_since(waiting.chain(self.flying_since.iter().copied()).min());
    }
}

/// Waits for the program's end, and then for as long as there is time for an answer.
async fn hurried(hurries: &mut watch::Receiver<bool>) {
    if hurries.wait_for(|hurries| *hurries).await.is_ok() {
        until(Some(clock() + HURRIED_TIMEOUT)).await;
    } else {
        std::future::pending().await
    }
}

fn may_warn(last: &mut Option<Instant>, now: Instant) -> bool {
    let may = last.is_none_or(|last| now.saturating_duration_since(last) >= WARNING_PERIOD);
    if may {
        *last = Some(now);
    }
    may
}

/// The runtime's clock, which tests move.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until then, or for ever.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::delivery::{
        Batch, CircuitState, Overflow, Parcel, SinkStats, circuit::FAILURES_TO_OPEN, job::MIN_HALVED_BYTES,
    };

    const ROOM: usize = 1 << 20;
    const LIMITS: Limits = Limits { concurrency: 8, timeout: Duration::from_secs(30), attempts: None };
    const IN_ORDER: Limits = Limits { concurrency: 1, ..LIMITS };
    const ANSWER_TIME: Duration = Duration::from_millis(3);

    /// Time passes, of a clock that does not run by itself: nobody waits.
    async fn pass(time: Duration) {
        until(Some(clock() + time)).await;
    }

    /// A request as a target saw it.
    #[derive(Clone, Debug)]
    struct Request {
        /// Since the first one.
        at: Duration,
        items: Vec<String>,
    }

    /// Answers as it is told, and remembers.
    struct Script<F> {
        answer: RefCell<F>,
        begin: Instant,
        seen: Rc<RefCell<Vec<Request>>>,
    }

    impl<F: FnMut(&Request) -> Answer + 'static> Target for Script<F> {
        async fn send(&self, parcel: &Parcel) -> Answer {
            let items = parcel.items().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
            let request = Request { at: clock() - self.begin, items };
            let answer = (self.answer.borrow_mut())(&request);
            self.seen.borrow_mut().push(request);
            pass(ANSWER_TIME).await;
            answer
        }
    }

    /// Batches of so many items each, which are numbers in order.
    fn fill(queue: &Queue, batches: usize, items: usize) {
        for batch in 0..batches {
            let mut filled = Batch::default();
            for item in 0..items {
                filled.bytes.extend(format!("{}", batch * items + item).bytes());
                filled.end_item();
                filled.records += 1;
            }
            queue.push(filled, || false);
        }
    }

    /// What became of batches of items that were there at once, with nothing after them; and the requests.
    fn run(
        limits: Limits,
        (batches, items): (usize, usize),
        answer: impl FnMut(&Request) -> Answer + 'static,
    ) -> (SinkStats, Vec<Request>) {
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        fill(&queue, batches, items);
        drive(&queue, limits, answer, async |queue| {
            let count = (batches * items) as u64;
            while queue.stats().delivered + queue.stats().lost() < count {
                pass(ANSWER_TIME).await;
            }
            queue.end();
        })
    }

    /// Runs until `meanwhile` has ended it.
    fn drive(
        queue: &Arc<Queue>,
        limits: Limits,
        answer: impl FnMut(&Request) -> Answer + 'static,
        meanwhile: impl AsyncFnOnce(&Queue),
    ) -> (SinkStats, Vec<Request>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        runtime.block_on(async {
            let script = Script { answer: RefCell::new(answer), begin: clock(), seen: Rc::clone(&seen) };
            let runner = Runner::new("script".into(), script, Arc::clone(queue), limits);
            tokio::join!(runner.run(), meanwhile(queue));
        });
        (queue.stats(), seen.take())
    }

    fn down() -> Answer {
        Answer::Later(Trouble::new(TroubleKind::Connect, "refused"))
    }

    fn all(requests: &[Request]) -> Vec<u64> {
        requests.iter().flat_map(|request| &request.items).map(|item| item.parse().unwrap()).collect()
    }

    #[test]
    fn everything_is_delivered_once() {
        let (stats, requests) = run(LIMITS, (100, 10), |_| Answer::Delivered);
        let mut items = all(&requests);
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
        assert_eq!(
            (stats.received, stats.delivered, stats.in_flight, stats.queued_bytes),
            (1000, 1000, 0, 0)
        );
        assert_eq!((stats.retried, stats.circuit), (0, Some(CircuitState::Closed)));
        assert_eq!(stats.latency.counts.iter().sum::<u64>(), 100);
        assert!(stats.concurrency > 1, "what does not slow down gets more at once");
    }

    #[test]
    fn a_target_that_is_down_for_ten_minutes_gets_everything_afterwards() {
        let outage = Duration::from_secs(600);
        let (stats, requests) =
            run(
                LIMITS,
                (50, 10),
                move |request| if request.at < outage { down() } else { Answer::Delivered },
            );
        assert_eq!((stats.delivered, stats.lost()), (500, 0));
        let failed = requests.iter().filter(|request| request.at < outage).count();
        // Waits of 15 s on average, once it is open: 40 of them, and some at first.
        assert!((20..120).contains(&failed), "{failed}");
        assert_eq!(stats.troubles[0], failed as u64);
        let late = requests.iter().map(|request| request.at).max().unwrap();
        assert!(late < outage + 2 * super::super::backoff::MAX_BACKOFF, "{late:?}");
    }

    #[test]
    fn a_target_that_lets_all_items_wait_is_left_alone_as_one_that_is_down() {
        let outage = Duration::from_secs(600);
        let (stats, requests) = run(LIMITS, (50, 10), move |request| {
            let verdict = |item: &String| match item.as_str() {
                "0" => Verdict::Delivered,
                _ if request.at < outage => Verdict::Later(TroubleKind::Throttled),
                _ => Verdict::Delivered,
            };
            Answer::Judged(request.items.iter().map(verdict).collect())
        });
        assert_eq!((stats.delivered, stats.lost()), (500, 0));
        let failed = requests.iter().filter(|request| request.at < outage).count();
        assert!((20..120).contains(&failed), "{failed}");
        let throttled = TroubleKind::ALL.iter().position(|kind| *kind == TroubleKind::Throttled).unwrap();
        // Also the answer of which one item was delivered.
        assert_eq!(stats.troubles[throttled], failed as u64);
    }

    #[test]
    fn order_is_kept_where_one_is_sent_at_a_time() {
        let mut dice = Dice::default();
        let (stats, requests) = run(IN_ORDER, (200, 5), move |request| match dice.roll() % 4 {
            0 => down(),
            1 if request.items.len() > 1 => Answer::TooLarge,
            _ => Answer::Delivered,
        });
        assert_eq!(stats.delivered, 1000);
        // What was not taken comes again before what is after it: the last of each is in order.
        let items = all(&requests);
        let mut last = [0; 1000];
        items.iter().enumerate().for_each(|(place, item)| last[*item as usize] = place);
        assert!(last.is_sorted());
    }

    #[test]
    fn items_are_judged_one_by_one() {
        let mut asked = std::collections::HashSet::new();
        let verdict = move |item: &String| match item.parse::<u64>().unwrap() % 100 {
            0 => Verdict::Never(Refusal::new(RefusalKind::Rejected, "wrong type")),
            1..=5 if asked.insert(item.clone()) => Verdict::Later(TroubleKind::Throttled),
            _ => Verdict::Delivered,
        };
        let mut verdict = verdict;
        let (stats, requests) = run(LIMITS, (20, 500), move |request| {
            Answer::Judged(request.items.iter().map(&mut verdict).collect())
        });
        assert_eq!((stats.delivered, stats.refused, stats.retried), (9900, [0, 100], 500));
        assert_eq!((all(&requests).len(), stats.in_flight, stats.queued_bytes), (10_500, 0, 0));
    }

    #[test]
    fn judgements_that_are_not_of_each_item_are_nonsense() {
        let mut first = true;
        let (stats, requests) = run(IN_ORDER, (1, 3), move |_| {
            let verdicts = if std::mem::take(&mut first) { 2 } else { 3 };
            Answer::Judged(vec![Verdict::Delivered; verdicts])
        });
        assert_eq!((stats.delivered, stats.retried, requests.len()), (3, 3, 2));
        let nonsense = TroubleKind::ALL.iter().position(|kind| *kind == TroubleKind::Nonsense).unwrap();
        assert_eq!(stats.troubles[nonsense], 1);
    }

    #[test]
    fn what_is_too_much_is_divided_until_it_is_not() {
        let (stats, requests) = run(IN_ORDER, (1, 100), |request| {
            let is_wrong = request.items.iter().any(|item| item == "57");
            if is_wrong || request.items.len() > 30 { Answer::TooLarge } else { Answer::Delivered }
        });
        assert_eq!((stats.delivered, stats.refused, stats.retried), (99, [1, 0], 0));
        let taken: Vec<_> = requests.iter().filter(|request| request.items.len() <= 30).collect();
        assert!(taken.len() < 15, "{}", taken.len());
    }

    /// Its way takes so many bytes a second, one batch after the other.
    struct SlowWay {
        bytes_per_second: u32,
        way: tokio::sync::Mutex<()>,
        sizes: Rc<RefCell<Vec<usize>>>,
    }

    impl Target for SlowWay {
        async fn send(&self, parcel: &Parcel) -> Answer {
            let _way = self.way.lock().await;
            self.sizes.borrow_mut().push(parcel.bytes().len());
            pass(Duration::from_secs(parcel.bytes().len() as u64) / self.bytes_per_second).await;
            Answer::Delivered
        }
    }

    /// Sizes of attempts for batches of 320,000 bytes each, until the end or for an hour; and what became of them.
    fn slowly(batches: usize, bytes_per_second: u32) -> (SinkStats, Vec<usize>) {
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        for _ in 0..batches {
            let mut filled = Batch::default();
            for _ in 0..500 {
                filled.bytes.extend([b'x'; 640]);
                filled.end_item();
                filled.records += 1;
            }
            queue.push(filled, || false);
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let sizes = Rc::<RefCell<Vec<usize>>>::default();
        runtime.block_on(async {
            let target =
                SlowWay { bytes_per_second, way: tokio::sync::Mutex::default(), sizes: Rc::clone(&sizes) };
            let runner = Runner::new("slow".into(), target, Arc::clone(&queue), LIMITS);
            let begin = clock();
            tokio::join!(runner.run(), async {
                while queue.stats().in_flight > 0 && clock() - begin < Duration::from_secs(3600) {
                    pass(Duration::from_secs(1)).await;
                }
                queue.end();
                queue.abandon();
            });
        });
        (queue.stats(), sizes.take())
    }

    #[test]
    fn what_a_way_is_too_slow_for_comes_in_parts() {
        // A batch would take 32 s of 30.
        let (stats, sizes) = slowly(3, 10_000);
        assert_eq!((stats.delivered, stats.lost()), (1500, 0));
        assert!(
            sizes.iter().any(|size| *size < 300_000) && sizes.iter().all(|size| *size > 30_000),
            "{sizes:?}"
        );
    }

    #[test]
    fn a_target_that_never_answers_does_not_crumble_what_it_is_to_get() {
        let (stats, sizes) = slowly(3, 1);
        assert_eq!(stats.delivered, 0);
        // Halves of what is a little more than the least.
        assert!(sizes.iter().all(|size| *size > MIN_HALVED_BYTES / 2), "{sizes:?}");
        assert!(sizes.len() < 250, "{}", sizes.len());
    }

    #[test]
    fn who_asks_to_be_left_alone_is() {
        let alone = Duration::from_secs(40);
        let (stats, requests) = run(LIMITS, (10, 1), move |request| {
            if request.at < alone {
                let trouble = Trouble::new(TroubleKind::Throttled, "429");
                Answer::Later(Trouble { after: Some(alone), ..trouble })
            } else {
                Answer::Delivered
            }
        });
        assert_eq!((stats.delivered, stats.lost()), (10, 0));
        assert_eq!(requests.iter().filter(|request| request.at < alone).count(), 1);
    }

    #[test]
    fn without_an_answer_an_attempt_fails() {
        struct Mute;
        impl Target for Mute {
            async fn send(&self, _: &Parcel) -> Answer {
                std::future::pending().await
            }
        }
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        fill(&queue, 1, 4);
        let limits = Limits { attempts: Some(3), ..LIMITS };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let took = runtime.block_on(async {
            let begin = clock();
            let runner = Runner::new("mute".into(), Mute, Arc::clone(&queue), limits);
            let end = async {
                while queue.stats().dropped_failed == 0 {
                    pass(ANSWER_TIME).await;
                }
                queue.end();
            };
            tokio::join!(runner.run(), end);
            clock() - begin
        });
        assert!(took >= 3 * LIMITS.timeout, "{took:?}");
        let stats = queue.stats();
        let timeout = TroubleKind::ALL.iter().position(|kind| *kind == TroubleKind::Timeout).unwrap();
        assert_eq!((stats.dropped_failed, stats.retried, stats.troubles[timeout]), (4, 8, 3));
        assert_eq!((stats.in_flight, stats.queued_bytes), (0, 0));
    }

    #[test]
    fn at_the_end_a_mute_target_does_not_keep_the_rest_from_one_that_answers_again() {
        struct MuteAtFirst(std::cell::Cell<bool>);
        impl Target for MuteAtFirst {
            async fn send(&self, _: &Parcel) -> Answer {
                if self.0.replace(false) {
                    std::future::pending().await
                }
                Answer::Delivered
            }
        }
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        fill(&queue, 3, 4);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let took = runtime.block_on(async {
            let target = MuteAtFirst(std::cell::Cell::new(true));
            let runner = Runner::new("mute".into(), target, Arc::clone(&queue), IN_ORDER);
            let end = async {
                pass(ANSWER_TIME).await;
                queue.end();
            };
            let begin = clock();
            tokio::join!(runner.run(), end);
            clock() - begin
        });
        assert_eq!(queue.stats().delivered, 12);
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    #[test]
    fn what_is_under_way_when_nobody_waits_any_more_is_lost_once() {
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        fill(&queue, 5, 4);
        let (stats, _) = drive(
            &queue,
            LIMITS,
            |_| down(),
            async |queue| {
                pass(Duration::from_secs(20)).await;
                queue.end();
                pass(Duration::from_millis(100)).await;
                queue.wait_done(Instant::now());
            },
        );
        assert_eq!((stats.received, stats.dropped_shutdown, stats.in_flight), (20, 20, 0));
        assert_eq!((stats.delivered, stats.lost()), (0, 20));
    }

    #[test]
    fn what_waits_for_a_dead_target_counts_as_queued() {
        let queue = Arc::new(Queue::new(4096, Overflow::DropNewest));
        let (stats, _) = drive(
            &queue,
            LIMITS,
            |_| down(),
            async |queue| {
                for _ in 0..100 {
                    fill(queue, 1, 10);
                    assert!(queue.stats().queued_bytes <= 4096);
                    pass(Duration::from_secs(1)).await;
                }
                let stats = queue.stats();
                assert!(stats.dropped_queue_full > 0 && stats.in_flight > 0);
                assert_eq!(stats.received, 1000);
                assert_eq!(stats.in_flight + stats.dropped_queue_full, 1000);
                queue.abandon();
            },
        );
        assert_eq!((stats.received, stats.delivered), (1000, 0));
    }

    #[test]
    fn at_the_end_it_is_tried_often_and_given_up_in_time() {
        let queue = Arc::new(Queue::new(ROOM, Overflow::DropNewest));
        fill(&queue, 3, 10);
        let (_, requests) = drive(
            &queue,
            IN_ORDER,
            |_| down(),
            async |queue| {
                pass(Duration::from_secs(300)).await;
                queue.end();
                pass(Duration::from_secs(5)).await;
                queue.abandon();
            },
        );
        let hurried = requests.iter().filter(|request| request.at >= Duration::from_secs(300)).count();
        assert!((15..=21).contains(&hurried), "{hurried}");
        assert!(requests.len() - hurried > FAILURES_TO_OPEN as usize);
    }

    #[test]
    fn every_record_is_accounted_for_whatever_is_answered() {
        for _ in 0..50 {
            let mut dice = Dice::default();
            let limits = Limits { concurrency: 1 + dice.roll() as usize % 6, attempts: Some(4), ..LIMITS };
            let (stats, _) = run(limits, (30, 7), move |request| match dice.roll() % 6 {
                0 => down(),
                1 => Answer::TooLarge,
                2 => Answer::Never(Refusal::new(RefusalKind::Rejected, "no")),
                3 => {
                    let verdicts = request.items.iter().map(|_| match dice.roll() % 3 {
                        0 => Verdict::Delivered,
                        1 => Verdict::Later(TroubleKind::Unavailable),
                        _ => Verdict::Never(Refusal::new(RefusalKind::TooLarge, "no")),
                    });
                    Answer::Judged(verdicts.collect())
                }
                _ => Answer::Delivered,
            });
            assert_eq!((stats.received, stats.delivered + stats.lost()), (210, 210), "{stats:?}");
            assert_eq!((stats.in_flight, stats.queued_bytes), (0, 0), "{stats:?}");
        }
    }
}
