//! Pods that come and go and take each other's addresses, as kubelets have them do, and who truly had an address when. Who asks
//! about it, and what is answered, is not here.
//!
//! Like a kubelet: a pod has its address before the API is told so; a pod of a workload is marked in the API before it is ended,
//! ends some time later, and only then is its address free; one of a Job ends by itself, and the API is told afterwards.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    kubernetes::{
        client::{Client, Request},
        objects::{self, Owner, Pod},
        population,
    },
    rng::Rng,
};

/// Longest pause of the thread: it looks then whether it is to end.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// A time between two bounds, in milliseconds.
type Span = (u64, u64);

/// From a pod's being made to its having an address.
const STARTS: Span = (20, 200);
/// From its having one to the API's being told so.
const TOLD: Span = (20, 1_500);
/// From there to its end.
const LIVES: Span = (4_000, 12_000);
/// From the mark to the end of its last container, when the address is free.
const ENDS: Span = (1_000, 3_000);
/// From that to its removal; of a Job's pod, to the news that it has ended.
const REMOVED: Span = (0, 500);
/// How long an address mostly rests.
const RESTS: Span = (6_000, 8_000);
/// How long one rests that is given out again as soon as it is free.
const SWIFT: Span = (0, 20);
/// One of so many pods is a Job's.
const JOB_ONE_OF: usize = 8;

/// What is to happen.
pub struct Plan {
    /// For all that is random.
    pub seed: u64,
    /// Where pods are: name and address.
    pub nodes: Vec<(String, IpAddr)>,
    /// Who makes pods, in which namespace.
    pub owners: Vec<(String, Owner)>,
    /// Addresses that there are.
    pub addresses: Vec<IpAddr>,
    /// So many of them, the first ones, are given to another pod as soon as they are free; the others rest a while, as they do
    /// where there are enough.
    pub swift: usize,
    /// Pods that are made in all.
    pub pods: usize,
}

/// One pod's time with an address.
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// The address.
    pub address: IpAddr,
    /// Uid of the pod.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Name of who made it.
    pub owner: String,
    /// It ends by itself.
    pub is_job: bool,
    /// It had the address from here on.
    pub took: Instant,
    /// Since then the API knows.
    pub told: Option<Instant>,
    /// Before that the API did not know that it was to end, or had ended by itself.
    pub ending: Option<Instant>,
    /// It had the address until here.
    pub freed: Option<Instant>,
    /// Since then the API knows that it has not.
    pub removed: Option<Instant>,
    /// Who had it before, and after.
    pub neighbours: [Option<usize>; 2],
}

/// Whether it can be known who had the address `at` that moment, by who knows that news come up to `lateness` late, if none was
/// later than `margin` on its way: the API was told in time, and nobody else may have had it by what the API was told.
pub fn is_knowable(all: &[Tenancy], index: usize, at: Instant, lateness: Duration, margin: Duration) -> bool {
    let own = &all[index];
    let [before, after] = own.neighbours.map(|index| index.map(|index| &all[index]));
    let Some(told) = own.told.filter(|told| *told + margin <= at + lateness) else { return false };
    // Until news of it came, it may have been who was before.
    let is_begun = at >= told + margin
        || before.is_none_or(|before| before.removed.is_some_and(|removed| removed + margin <= at));
    let early = if own.is_job { lateness } else { Duration::ZERO };
    let is_ending = own.ending.is_some_and(|ending| at + margin + early >= ending);
    // From then on it may have been who came after.
    let has_next = after.and_then(|after| after.told).is_some_and(|told| told <= at + lateness + margin);
    is_begun && !(is_ending && has_next)
}

#[derive(Default)]
struct Truth {
    all: Vec<Tenancy>,
    /// Who has an address now, and who had it last, by its number.
    held: Vec<Option<usize>>,
    last: Vec<Option<usize>>,
}

/// The pods, as long as this lives.
pub struct Churn {
    truth: Arc<Mutex<Truth>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Churn {
    /// Begins, with a thread for each client.
    pub fn begin(plan: Plan, clients: Vec<Client>) -> Self {
        let count = plan.addresses.len();
        let truth = Truth { all: Vec::new(), held: vec![None; count], last: vec![None; count] };
        let (truth, plan) = (Arc::new(Mutex::new(truth)), Arc::new(plan));
        let (is_over, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let stride = clients.len();
        let threads = clients.into_iter().enumerate().map(|(number, client)| {
            let work = Work {
                rng: Rng::new(plan.seed + number as u64),
                pods: Vec::new(),
                due: BinaryHeap::new(),
                made: Arc::clone(&made),
                truth: Arc::clone(&truth),
                plan: Arc::clone(&plan),
                client,
            };
            let over = Arc::clone(&is_over);
            thread::spawn(move || work.run((number..count).step_by(stride), &over))
        });
        Self { threads: threads.collect(), truth, is_over }
    }

    /// Somebody who has an address at this very moment, by its number, and the moment; absent if nobody has the one that was chosen.
    pub fn somebody(&self, rng: &mut Rng) -> Option<(usize, IpAddr, Instant)> {
        let truth = self.truth.lock().unwrap();
        let tenancy = truth.held[rng.below(truth.held.len())]?;
        // The clock is read while nobody can leave.
        Some((tenancy, truth.all[tenancy].address, Instant::now()))
    }

    /// Whether all pods have come and gone.
    pub fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends it, and gives all that was; what failed in it fails here.
    pub fn end(mut self) -> Vec<Tenancy> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        std::mem::take(&mut self.truth.lock().unwrap().all)
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It is heard by `end`; here something else has failed already.
            let _ = thread.join();
        }
    }
}

/// What comes next for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A pod is made that will have it.
    Make,
    /// The pod has it.
    Take,
    /// The API is told.
    Tell,
    /// The pod is marked as deleted.
    Mark,
    /// It is free.
    Free,
    /// The API is told that the Job's pod has ended.
    Finish,
    /// The pod is removed.
    Remove,
}

/// A pod that was made.
#[derive(Clone, Debug)]
struct Made {
    pod: Pod,
    uid: String,
    /// Number of its node.
    host: usize,
    /// Number of its address.
    address: usize,
    /// Its time with it, once it has it.
    tenancy: usize,
}

struct Work {
    plan: Arc<Plan>,
    rng: Rng,
    pods: Vec<Made>,
    /// When, what, and of which pod; of [`Step::Make`], for which address.
    due: BinaryHeap<Reverse<(Instant, Step, usize)>>,
    /// Pods that were made by all threads.
    made: Arc<AtomicUsize>,
    truth: Arc<Mutex<Truth>>,
    client: Client,
}

impl Work {
    fn run(mut self, addresses: impl Iterator<Item = usize>, is_over: &AtomicBool) {
        for address in addresses {
            self.next(address, Step::Make, (0, LIVES.0));
        }
        while let Some(Reverse((when, step, number))) = self.due.pop() {
            // Steps have their time: this paces them.
            while Instant::now() < when && !is_over.load(Ordering::Relaxed) {
                thread::sleep(when.saturating_duration_since(Instant::now()).min(MAX_PAUSE));
            }
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            if step != Step::Make {
                self.step(number, step);
            } else if self.made.fetch_add(1, Ordering::Relaxed) < self.plan.pods {
                self.make(number);
            }
        }
    }

    fn span(&mut self, (from, to): Span) -> Duration {
        Duration::from_millis(from + self.rng.next_u64() % (to - from + 1))
    }

    fn next(&mut self, number: usize, step: Step, span: Span) {
        let when = Instant::now() + self.span(span);
        self.due.push(Reverse((when, step, number)));
    }

    fn make(&mut self, address: usize) {
        let number = self.pods.len();
        let host = self.rng.below(self.plan.nodes.len());
        let (namespace, owner) = &self.plan.owners[self.rng.below(self.plan.owners.len())];
        let name = format!("{}-{address:03}-{number:04}", owner.name);
        let mut pod = Pod::new(namespace, &name, &self.plan.nodes[host].0);
        pod.passing = self.rng.below(JOB_ONE_OF) == 0;
        let pod = pod.owned(owner).labelled("app", &owner.name);
        let uid = population::uid(&self.client.ask(&Request::create(pod.collection(), pod.object())));
        self.pods.push(Made { pod, uid, host, address, tenancy: 0 });
        self.next(number, Step::Take, STARTS);
    }

    fn step(&mut self, number: usize, step: Step) {
        let Made { pod, host, address, tenancy, .. } = self.pods[number].clone();
        match step {
            Step::Make => {}
            Step::Take => {
                self.take(number);
                self.next(number, Step::Tell, TOLD);
            }
            Step::Tell => {
                let addresses = [self.plan.addresses[address]];
                let status = objects::running(self.plan.nodes[host].1, &addresses, self.rng.next_u64());
                self.client.ask(&Request::patch(format!("{}/status", pod.path()), status));
                self.note(tenancy, |tenancy, now| tenancy.told = Some(now));
                self.next(number, if pod.passing { Step::Free } else { Step::Mark }, LIVES);
            }
            Step::Mark => {
                self.note(tenancy, |tenancy, now| tenancy.ending = Some(now));
                self.client.ask(&Request::delete(pod.path()));
                self.next(number, Step::Free, ENDS);
            }
            Step::Free => {
                let mut truth = self.truth.lock().unwrap();
                truth.held[address] = None;
                truth.all[tenancy].freed = Some(Instant::now());
                drop(truth);
                self.next(number, if pod.passing { Step::Finish } else { Step::Remove }, REMOVED);
                let rests = if address < self.plan.swift { SWIFT } else { RESTS };
                self.next(address, Step::Make, rests);
            }
            Step::Finish => {
                self.note(tenancy, |tenancy, now| tenancy.ending = Some(now));
                self.client.ask(&Request::patch(format!("{}/status", pod.path()), objects::succeeded()));
                self.note(tenancy, |tenancy, now| tenancy.removed = Some(now));
                self.next(number, Step::Remove, REMOVED);
            }
            Step::Remove => {
                self.client.ask(&Request::remove(pod.path()));
                self.note(tenancy, |tenancy, now| tenancy.removed = tenancy.removed.or(Some(now)));
            }
        }
    }

    /// The pod has its address.
    fn take(&mut self, number: usize) {
        let Made { pod, uid, address, .. } = self.pods[number].clone();
        let mut truth = self.truth.lock().unwrap();
        let index = truth.all.len();
        let before = truth.last[address].replace(index);
        if let Some(before) = before {
            truth.all[before].neighbours[1] = Some(index);
        }
        truth.held[address] = Some(index);
        truth.all.push(Tenancy {
            address: self.plan.addresses[address],
            uid,
            name: pod.name,
            owner: pod.owner.map(|owner| owner.name).unwrap_or_default(),
            is_job: pod.passing,
            took: Instant::now(),
            told: None,
            ending: None,
            freed: None,
            removed: None,
            neighbours: [before, None],
        });
        drop(truth);
        self.pods[number].tenancy = index;
    }

    fn note(&self, tenancy: usize, note: impl FnOnce(&mut Tenancy, Instant)) {
        let mut truth = self.truth.lock().unwrap();
        note(&mut truth.all[tenancy], Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_known_ends_where_another_may_have_had_the_address() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let tenancy = |times: [u64; 5], is_job, neighbours| {
            let [took, told, ending, freed, removed] = times;
            Tenancy {
                address: IpAddr::from([10, 0, 0, 1]),
                uid: String::new(),
                name: String::new(),
                owner: String::new(),
                is_job,
                took: at(took),
                told: Some(at(told)),
                ending: Some(at(ending)),
                freed: Some(at(freed)),
                removed: Some(at(removed)),
                neighbours,
            }
        };
        let (lateness, margin) = (Duration::from_secs(5), Duration::from_millis(100));
        for (is_job, index, when, expected) in [
            (false, 0, 5_000, true),
            (false, 0, 19_000, true),
            // It was told to end, and the next may have had it: that was heard of at 26 s.
            (false, 0, 20_800, true),
            (false, 0, 20_950, false),
            (true, 0, 20_950, false),
            (false, 0, 21_500, false),
            // The next has it, and the API is not told; who was before is known to be gone from 24 s on.
            (false, 1, 23_500, false),
            (false, 1, 24_050, false),
            (false, 1, 24_150, true),
            (false, 1, 27_000, true),
        ] {
            let all = [
                tenancy([0, 500, 20_000, 23_000, 24_000], is_job, [None, Some(1)]),
                tenancy([23_100, 26_000, 60_000, 61_000, 62_000], false, [Some(0), None]),
            ];
            assert_eq!(
                is_knowable(&all, index, at(when), lateness, margin),
                expected,
                "{is_job} {index} {when}"
            );
        }
        // News that come too late to be waited for.
        let all = [tenancy([0, 6_000, 60_000, 61_000, 62_000], false, [None, None])];
        assert!(!is_knowable(&all, 0, at(500), lateness, margin));
        assert!(is_knowable(&all, 0, at(1_500), lateness, margin));
    }
}
