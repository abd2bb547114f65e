//! Who held an address when, as far as news can tell: an address moves from pod to pod, and news of it come late.
//!
//! One address has one holder at a time, and is told before its holder is removed. News of one kind of object come in the order
//! in which things happened, tell what is so when they are sent, and who leaves an address is told to before it can, unless it
//! may end by itself ([`Tenure::Passing`]).
//! From that follows what is certain, what is worth waiting for, and what nobody can know. What is never done: name a holder
//! that may be the wrong one. Instants are durations after a moment that stays the same.

use std::{hash::Hash, net::IpAddr, time::Duration};

use hashbrown::HashMap;
use smallvec::SmallVec;

/// From what happens to its news, at most, while there is contact: kubelet reports an address within a second or two, and a busy
/// API server takes a moment.
pub const MAX_LATENESS: Duration = Duration::from_secs(5);

/// A break of contact as short as this makes news late, not lost: a watch is ended by the server every few minutes and begins
/// again where it was.
pub const MAX_SHORT_BREAK: Duration = Duration::from_secs(1);

/// A holder that is gone is remembered this long: exchanges that end now may have begun under it.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(300);

/// Who is gone without word that it would may go on for this long: what is removed by force is told to end only then, and has
/// the usual time for it (`terminationGracePeriodSeconds`).
pub const MAX_AFTERLIFE: Duration = Duration::from_secs(30);

/// Holders that are gone and remembered of one address. An address that moves on more often in [`KEPT_AFTER_END`] names nobody
/// of before.
pub const MAX_GONE: usize = 16;

/// Breaks of contact that are remembered; of more, the two oldest count as one, with all between them.
pub const MAX_BREAKS: usize = 16;

/// What is known of an address at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<H> {
    /// It was this one's.
    Held(H),
    /// Not known yet; ask again then, or take who is known so far to be the only one, if that will do.
    Early(Duration, Option<H>),
    /// It was this one's when there last was contact.
    Stale(H),
    /// Nobody's that was ever heard of.
    Nobody,
    /// One of several, or of one and others that were never heard of: nobody can know which.
    Several,
}

impl<H> Found<H> {
    /// The same of what `name` makes of a holder; of one that it does not know, as if nobody had been heard of.
    pub fn and_then<T>(self, name: impl FnOnce(H) -> Option<T>) -> Found<T> {
        match self {
            Self::Held(holder) => name(holder).map_or(Found::Nobody, Found::Held),
            Self::Early(until, holder) => Found::Early(until, holder.and_then(name)),
            Self::Stale(holder) => name(holder).map_or(Found::Nobody, Found::Stale),
            Self::Nobody => Found::Nobody,
            Self::Several => Found::Several,
        }
    }
}

/// What news are about: all that happened until `heard` was known before, and all until `at` is known now. Both are the same as
/// long as there is contact.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// When they came.
    pub at: Duration,
    /// When contact was lost, if they come of a new list, or of a watch that catches up; otherwise as `at`. Zero in the first
    /// list.
    pub heard: Duration,
}

impl News {
    /// With contact.
    pub const fn live(at: Duration) -> Self {
        Self { at, heard: at }
    }

    fn earliest(self) -> Duration {
        self.heard.saturating_sub(MAX_LATENESS)
    }
}

/// What somebody knows who asks.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Now.
    pub now: Duration,
    /// Until when there was contact: now, as long as there is.
    pub contact: Duration,
}

impl View {
    /// When what is not known `at` that moment will be, or is given up: news of it come by then, unless contact has been lost for
    /// longer than they may be late. Absent if that has passed.
    pub fn patience(self, at: Duration) -> Option<Duration> {
        let known = at.saturating_add(MAX_LATENESS);
        let given_up = self.contact.saturating_add(MAX_LATENESS);
        let until = if self.contact < self.now { known.min(given_up) } else { known };
        (self.now < until).then_some(until)
    }
}

/// How a holder leaves its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// It is told to.
    Lasting,
    /// It may end by itself, and is told of afterwards.
    Passing,
}

#[derive(Clone, Debug)]
struct Claim<H> {
    holder: H,
    tenure: Tenure,
    /// It may have held the address from the first instant on, and did from the second one on.
    from: (Duration, Duration),
    /// It did until this instant; absent as long as nobody says that it ends.
    ending: Option<Duration>,
    /// When it was told to be gone, and until when it may have gone on.
    gone: Option<(Duration, Duration)>,
}

impl<H> Claim<H> {
    fn is_possible(&self, at: Duration) -> bool {
        self.from.0 <= at && self.gone.is_none_or(|(_, latest)| at <= latest)
    }

    fn is_certain(&self, at: Duration, contact: Duration) -> bool {
        let heard = match self.tenure {
            Tenure::Lasting => contact,
            Tenure::Passing => contact.saturating_sub(MAX_LATENESS),
        };
        self.from.1 <= at && self.ending.map_or(at <= heard, |ending| at < ending)
    }

    /// Whether it is told to be gone, and may yet go on.
    fn goes_on(&self, at: Duration) -> bool {
        self.gone.is_some_and(|(told, _)| told < at)
    }
}

/// All addresses and their holders. An address may have a port.
#[derive(Clone, Debug)]
pub struct Addresses<H, A = IpAddr> {
    claims: HashMap<A, SmallVec<[Claim<H>; 1]>, foldhash::fast::RandomState>,
    /// Times without contact, in their order: what happened in them may never have been heard of.
    breaks: Vec<(Duration, Duration)>,
    /// Holders that were forgotten before their time, because there were too many of one address.
    forgotten: u64,
}

impl<H, A> Default for Addresses<H, A> {
    fn default() -> Self {
        Self { claims: HashMap::default(), breaks: Vec::new(), forgotten: 0 }
    }
}

impl<H: Clone + PartialEq, A: Copy + Eq + Hash> Addresses<H, A> {
    /// `holder` has `address`, and leaves it when it is told to. Said again, it changes nothing.
    pub fn claim(&mut self, address: A, holder: H, news: News) {
        self.claim_for(address, holder, Tenure::Lasting, news);
    }

    /// `holder` has `address`. Said again, it changes nothing. Whether the address is one that nobody had.
    pub fn claim_for(&mut self, address: A, holder: H, tenure: Tenure, news: News) -> bool {
        self.heard(news);
        let is_new = !self.claims.contains_key(&address);
        let claims = self.claims.entry(address).or_default();
        if claims.iter().any(|claim| claim.holder == holder && claim.gone.is_none()) {
            return is_new;
        }
        claims.push(Claim { holder, tenure, from: (news.earliest(), news.at), ending: None, gone: None });
        let gone = |claim: &Claim<H>| claim.gone.is_some();
        while claims.iter().filter(|claim| gone(claim)).count() > MAX_GONE {
            if let Some(oldest) = claims.iter().position(gone) {
                claims.remove(oldest);
                self.forgotten += 1;
            }
        }
        is_new
    }

    /// `holder` is about to leave `address`: it is deleted, or all it did has ended.
    pub fn ending(&mut self, address: A, holder: &H, news: News) {
        self.heard(news);
        if let Some(claim) = self.current(address, holder) {
            claim.ending.get_or_insert(news.heard);
        }
    }

    /// `holder` is gone: if it was told to end, it has; if not, it may yet go on.
    pub fn release(&mut self, address: A, holder: &H, news: News) {
        self.leave(address, holder, news, MAX_AFTERLIFE);
    }

    /// `holder` has left `address`.
    pub fn ended(&mut self, address: A, holder: &H, news: News) {
        self.leave(address, holder, news, Duration::ZERO);
    }

    fn leave(&mut self, address: A, holder: &H, news: News, afterlife: Duration) {
        self.heard(news);
        if let Some(claim) = self.current(address, holder) {
            // Without word that it would: it may have since shortly before.
            let afterlife = if claim.ending.is_none() { afterlife } else { Duration::ZERO };
            claim.ending.get_or_insert(news.earliest());
            claim.gone = Some((news.at, news.at + afterlife));
        }
    }

    /// News came, of whatever address: after a break of contact, what came and went in it was never told.
    pub fn heard(&mut self, news: News) {
        if news.at.saturating_sub(news.heard) <= MAX_SHORT_BREAK {
            return;
        }
        let (from, until) = (news.earliest(), news.at);
        match self.breaks.last_mut() {
            Some(last) if from <= last.1 => *last = (last.0.min(from), last.1.max(until)),
            _ => self.breaks.push((from, until)),
        }
        if self.breaks.len() > MAX_BREAKS {
            let oldest = self.breaks.remove(0);
            if let Some(next) = self.breaks.first_mut() {
                next.0 = oldest.0;
            }
        }
    }

    fn current(&mut self, address: A, holder: &H) -> Option<&mut Claim<H>> {
        let claims = self.claims.get_mut(&address)?;
        claims.iter_mut().find(|claim| claim.holder == *holder && claim.gone.is_none())
    }

    /// Addresses that `holder` has: all are looked at.
    pub fn held_by(&self, holder: &H) -> impl Iterator<Item = &A> {
        let is_its = move |claim: &Claim<H>| claim.gone.is_none() && claim.holder == *holder;
        self.claims.iter().filter(move |(_, claims)| claims.iter().any(is_its)).map(|(address, _)| address)
    }

    /// Who had `address` `at` that moment.
    pub fn find(&self, address: A, at: Duration, view: View) -> Found<H> {
        self.find_known(address, at, view).unwrap_or_else(|| unheard_of(at, view))
    }

    /// The same, absent if nobody was ever heard to have `address`.
    pub fn find_known(&self, address: A, at: Duration, view: View) -> Option<Found<H>> {
        let claims = self.claims.get(&address)?;
        if let [claim] = claims.as_slice()
            && claim.is_certain(at, view.contact)
        {
            // What is asked nearly always.
            return Some(Found::Held(claim.holder.clone()));
        }
        let mut certain = claims.iter().filter(|claim| claim.is_certain(at, view.contact));
        match (certain.next(), certain.next()) {
            (Some(claim), None) => return Some(Found::Held(claim.holder.clone())),
            (Some(_), Some(_)) => return Some(Found::Several),
            (None, _) => {}
        }
        Some(self.by_elimination(claims, at, view))
    }

    /// Nobody is certain: who is left, if all that could be are known.
    fn by_elimination(&self, claims: &[Claim<H>], at: Duration, view: View) -> Found<H> {
        let mut possible = claims.iter().filter(|claim| claim.is_possible(at));
        let (first, is_more) = (possible.next(), possible.next().is_some());
        let Some(claim) = first else { return unheard_of(at, view) };
        // Before this one had it, somebody may have who was removed by force in a break, and went on after it.
        let after = if at < claim.from.1 { MAX_AFTERLIFE } else { Duration::ZERO };
        if is_more
            || claim.goes_on(at)
            || self.breaks.iter().any(|(from, until)| (*from..*until + after).contains(&at))
        {
            return Found::Several;
        }
        // What had it before this one was heard of before it; who has it after it may not have been yet. Who was told to end
        // when it was heard of may have left by then.
        if at < claim.from.1 && claim.ending.is_none_or(|ending| claim.from.1 < ending) {
            return Found::Held(claim.holder.clone());
        }
        match view.patience(at) {
            Some(until) => Found::Early(until, Some(claim.holder.clone())),
            None if view.contact < at.saturating_add(MAX_LATENESS) => Found::Stale(claim.holder.clone()),
            None => Found::Held(claim.holder.clone()),
        }
    }

    /// Forgets who was gone for long at `now`; `left` is told each address that nobody has or had any more.
    pub fn forget(&mut self, now: Duration, mut left: impl FnMut(A)) {
        self.claims.retain(|address, claims| {
            claims.retain(|claim| claim.gone.is_none_or(|(told, _)| told + KEPT_AFTER_END > now));
            if claims.is_empty() {
                left(*address);
            }
            !claims.is_empty()
        });
    }

    /// Addresses that have or had a holder.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Holders that were forgotten before their time.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Bytes by which it grows with the next address.
    pub fn growth(&self) -> usize {
        if self.claims.len() < self.claims.capacity() {
            0
        } else {
            self.bytes().max(4 * size_of::<(A, Claim<H>)>())
        }
    }

    /// Bytes of memory that it takes, nearly.
    pub fn bytes(&self) -> usize {
        self.claims.capacity() * (size_of::<(A, SmallVec<[Claim<H>; 1]>)>() + 1)
    }
}

/// Of an address that nobody was heard to have: somebody may be yet.
pub(super) fn unheard_of<H>(at: Duration, view: View) -> Found<H> {
    view.patience(at).map_or(Found::Nobody, |until| Found::Early(until, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address() -> IpAddr {
        IpAddr::from([10, 1, 2, 3])
    }

    fn find(addresses: &Addresses<u32>, at: u64, now: u64) -> Found<u32> {
        addresses.find(address(), second(at), View { now: second(now), contact: second(now) })
    }

    #[test]
    fn one_holder_is_certain_from_its_news_on_and_likely_shortly_before() {
        let mut addresses = Addresses::default();
        assert_eq!(find(&addresses, 100, 100), Found::Early(second(105), None));
        addresses.claim(address(), 1, News::live(second(100)));
        for (at, now, expected) in [
            (94, 100, Found::Nobody),
            (95, 100, Found::Held(1)),
            (100, 100, Found::Held(1)),
            (500, 500, Found::Held(1)),
        ] {
            assert_eq!(find(&addresses, at, now), expected, "{at} {now}");
        }
    }

    #[test]
    fn who_is_about_to_go_is_certain_once_the_next_would_have_been_heard_of() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        addresses.ending(address(), &1, News::live(second(200)));
        assert_eq!(find(&addresses, 199, 201), Found::Held(1));
        assert_eq!(find(&addresses, 200, 201), Found::Early(second(205), Some(1)));
        assert_eq!(find(&addresses, 201, 205), Found::Early(second(206), Some(1)));
        assert_eq!(find(&addresses, 201, 206), Found::Held(1));
        addresses.release(address(), &1, News::live(second(210)));
        assert_eq!(find(&addresses, 210, 215), Found::Held(1));
        assert_eq!(find(&addresses, 211, 215), Found::Early(second(216), None));
        assert_eq!(find(&addresses, 211, 216), Found::Nobody);
    }

    #[test]
    fn between_two_holders_nobody_is_named() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        addresses.ending(address(), &1, News::live(second(200)));
        addresses.claim(address(), 2, News::live(second(220)));
        addresses.release(address(), &1, News::live(second(221)));
        for (at, expected) in [
            (199, Found::Held(1)),
            (214, Found::Held(1)),
            (215, Found::Several),
            (219, Found::Several),
            (220, Found::Held(2)),
        ] {
            assert_eq!(find(&addresses, at, 300), expected, "{at}");
        }
    }

    #[test]
    fn an_address_that_two_have_names_nobody() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        addresses.claim(address(), 2, News::live(second(100)));
        assert_eq!(find(&addresses, 150, 300), Found::Several);
        addresses.ended(address(), &2, News::live(second(160)));
        assert_eq!(find(&addresses, 161, 300), Found::Held(1));
    }

    #[test]
    fn without_contact_what_was_is_stale() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        let lost =
            |at, now| addresses.find(address(), second(at), View { now: second(now), contact: second(200) });
        assert_eq!(lost(200, 300), Found::Held(1));
        assert_eq!(lost(201, 300), Found::Stale(1));
        // The new list has another one, which may have come at any time since.
        let news = News { at: second(400), heard: second(200) };
        addresses.claim(address(), 2, news);
        addresses.release(address(), &1, news);
        for (at, expected) in
            [(194, Found::Held(1)), (195, Found::Several), (399, Found::Several), (400, Found::Held(2))]
        {
            assert_eq!(find(&addresses, at, 500), expected, "{at}");
        }
    }

    #[test]
    fn news_that_cannot_come_are_not_waited_for() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        let (contact, given_up) = (second(200), second(200) + MAX_LATENESS);
        let last = given_up - Duration::from_nanos(1);
        let other = IpAddr::from([10, 1, 2, 4]);
        for (at, now, expected) in [
            // A watch that has just ended may begin again.
            (second(201), second(202), (Found::Early(given_up, Some(1)), Found::Early(given_up, None))),
            (last, last, (Found::Early(given_up, Some(1)), Found::Early(given_up, None))),
            (given_up, given_up, (Found::Stale(1), Found::Nobody)),
            (second(300), second(300), (Found::Stale(1), Found::Nobody)),
            // What was before is known no sooner than it would have been.
            (second(199), second(203), (Found::Held(1), Found::Early(second(204), None))),
        ] {
            let view = View { now, contact };
            let found = (addresses.find(address(), at, view), addresses.find(other, at, view));
            assert_eq!(found, expected, "{at:?} {now:?}");
        }
    }

    #[test]
    fn who_is_gone_is_remembered_for_a_time_and_up_to_a_number() {
        let mut addresses = Addresses::default();
        for holder in 0..=MAX_GONE as u32 {
            let at = second(1000 + 20 * u64::from(holder));
            addresses.claim(address(), holder, News::live(at));
            addresses.ended(address(), &holder, News::live(at + second(10)));
        }
        assert_eq!((find(&addresses, 1003, 2000), addresses.forgotten()), (Found::Held(0), 0));
        addresses.claim(address(), 99, News::live(second(1900)));
        assert_eq!((find(&addresses, 1003, 2000), addresses.forgotten()), (Found::Nobody, 1));
        assert_eq!(find(&addresses, 1023, 2000), Found::Held(1));
        let last = second(1010 + 20 * MAX_GONE as u64);
        addresses.forget(last + KEPT_AFTER_END - Duration::from_nanos(1), |_| ());
        assert_eq!(find(&addresses, 1003 + 20 * MAX_GONE as u64, 2000), Found::Held(MAX_GONE as u32));
        let mut left = Vec::new();
        addresses.forget(last + KEPT_AFTER_END, |address| left.push(address));
        assert!(left.is_empty());
        assert_eq!(find(&addresses, 1003 + 20 * MAX_GONE as u64, 2000), Found::Nobody);
        assert_eq!(addresses.len(), 1, "the current one stays");
    }

    #[test]
    fn who_may_end_by_itself_is_certain_once_its_end_would_have_been_heard_of() {
        let mut addresses = Addresses::default();
        assert!(addresses.claim_for(address(), 1, Tenure::Passing, News::live(second(100))));
        assert_eq!(find(&addresses, 150, 151), Found::Early(second(155), Some(1)));
        assert_eq!(find(&addresses, 150, 155), Found::Held(1));
        // Another has it three seconds later: the first one's end comes after.
        assert!(!addresses.claim_for(address(), 2, Tenure::Passing, News::live(second(154))));
        addresses.release(address(), &1, News::live(second(154)));
        assert_eq!(find(&addresses, 150, 300), Found::Several);
        assert_eq!(
            (find(&addresses, 148, 300), find(&addresses, 154, 300)),
            (Found::Held(1), Found::Held(2))
        );
    }

    #[test]
    fn who_is_removed_by_force_may_go_on_until_the_next_one_is_known() {
        let found = |is_ended: bool| {
            let mut addresses = Addresses::default();
            addresses.claim(address(), 1, News::live(second(100)));
            let gone = News::live(second(200));
            if is_ended {
                addresses.ended(address(), &1, gone);
            } else {
                addresses.release(address(), &1, gone);
            }
            addresses.claim(address(), 2, News::live(second(200) + MAX_AFTERLIFE));
            [201, 227, 230].map(|at| find(&addresses, at, 500))
        };
        assert_eq!(found(true), [Found::Nobody, Found::Held(2), Found::Held(2)]);
        assert_eq!(found(false), [Found::Several, Found::Several, Found::Held(2)]);
    }

    #[test]
    fn who_was_told_to_end_when_it_was_heard_of_may_have_left() {
        let mut addresses = Addresses::default();
        addresses.claim(address(), 1, News::live(second(100)));
        addresses.ending(address(), &1, News::live(second(100)));
        assert_eq!(find(&addresses, 98, 101), Found::Early(second(103), Some(1)));
        addresses.claim(address(), 2, News::live(second(102)));
        assert_eq!(find(&addresses, 98, 300), Found::Several);
    }

    #[test]
    fn before_the_first_list_nobody_is_named() {
        let mut addresses = Addresses::default();
        let first = News { at: second(100), heard: Duration::ZERO };
        addresses.claim(address(), 1, first);
        assert_eq!((find(&addresses, 99, 300), find(&addresses, 100, 300)), (Found::Several, Found::Held(1)));
    }

    #[test]
    fn what_came_and_went_without_contact_is_never_taken_for_another() {
        for ending in [None, Some(second(190))] {
            let mut addresses = Addresses::default();
            addresses.claim(address(), 1, News::live(second(100)));
            ending.iter().for_each(|at| addresses.ending(address(), &1, News::live(*at)));
            // From 210 to 390 it was somebody's who was never heard of.
            let news = News { at: second(400), heard: second(200) };
            addresses.release(address(), &1, news);
            addresses.claim(address(), 2, News::live(second(432)));
            for (at, expected) in [
                (180, Found::Held(1)),
                (195, Found::Several),
                (300, Found::Several),
                (399, Found::Several),
                (429, Found::Several),
                (431, Found::Held(2)),
                (432, Found::Held(2)),
            ] {
                assert_eq!(find(&addresses, at, 500), expected, "{at} {ending:?}");
            }
        }
    }

    #[test]
    fn a_short_break_makes_news_late_and_a_longer_one_makes_them_lost() {
        let found = |length| {
            let mut addresses = Addresses::default();
            addresses.claim(address(), 1, News { at: second(200) + length, heard: second(200) });
            find(&addresses, 199, 500)
        };
        assert_eq!(found(MAX_SHORT_BREAK), Found::Held(1));
        assert_eq!(found(MAX_SHORT_BREAK + Duration::from_nanos(1)), Found::Several);
    }

    #[test]
    fn breaks_that_touch_are_one() {
        let mut addresses = Addresses::default();
        addresses.heard(News { at: second(1050), heard: second(1000) });
        addresses.heard(News { at: second(1100), heard: second(1040) });
        addresses.claim(address(), 1, News::live(second(10)));
        addresses.ending(address(), &1, News::live(second(20)));
        for (at, expected) in [
            (994, Found::Held(1)),
            (995, Found::Several),
            (1051, Found::Several),
            (1099, Found::Several),
            (1100, Found::Held(1)),
        ] {
            assert_eq!(find(&addresses, at, 10_000), expected, "{at}");
        }
    }

    #[test]
    fn of_too_many_breaks_the_oldest_count_as_one() {
        let mut addresses = Addresses::default();
        let begin = |number: usize| second(1000 + 100 * number as u64);
        for number in 0..MAX_BREAKS {
            addresses.heard(News { at: begin(number) + second(50), heard: begin(number) });
        }
        addresses.claim(address(), 1, News::live(second(10)));
        addresses.ending(address(), &1, News::live(second(20)));
        let between = begin(0) + second(70);
        let find = |addresses: &Addresses<u32>| {
            let now = second(10_000);
            addresses.find(address(), between, View { now, contact: now })
        };
        assert_eq!(find(&addresses), Found::Held(1));
        addresses.heard(News { at: begin(MAX_BREAKS) + second(50), heard: begin(MAX_BREAKS) });
        assert_eq!(find(&addresses), Found::Several);
    }
}
