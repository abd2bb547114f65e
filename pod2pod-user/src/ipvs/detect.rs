//! The detector: tables in, poll by poll; out come the entries that a new connection met. Time is an argument.
//!
//! An entry that one poll does not have is kept for the next one: a table that changes while it is read is read with holes. So is
//! one that is away for no longer than a dropped SYN takes to be sent again. One that stays away longer and comes back within its
//! time-out is a port that returned, which is counted and no reuse.

use std::{collections::VecDeque, time::Duration};

use super::{
    Reuse,
    closed::Closed,
    kernel::Kernel,
    parse::{
        Protocol,
        connection::{Origin, Row},
    },
    rule::{Change, Quiet},
    services::Services,
    situation,
    state::State,
    table::{Pair, Poll, Pushed, Table},
};

/// Entries that are kept at most, 110 MB; one of IPv6 is as two. What comes past it is counted, not watched.
pub const DEFAULT_MAX_ENTRIES: usize = 1_800_000;

/// An entry that is away longer has expired whatever its state was; the time-out of TIME_WAIT.
const LONGEST_ABSENCE: Duration = Duration::from_secs(120);

/// Polls whose times are remembered: at the shortest interval those of [`LONGEST_ABSENCE`].
const POLLS: usize = 1200;

/// Polls that an entry may miss and still be the same.
const MISSED: Poll = 1;

/// An entry may be away for so long and still be the same, however many polls missed it: the kernel may expire it for a SYN that it
/// drops, and the client sends that again after a second (RFC 6298, 2.1). Beside that second, two of the intervals that matter here.
const RESENT: Duration = Duration::from_secs(3);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries at most; one of IPv6 is as two.
    pub max_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_entries: DEFAULT_MAX_ENTRIES }
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows in all polls; the following are among them.
    pub rows: u64,
    /// Templates, and entries whose client port is not known yet.
    pub templates: u64,
    /// Neither TCP, UDP nor SCTP.
    pub other_protocols: u64,
    /// Told of by another director.
    pub synced: u64,
    /// There was no room.
    pub untracked: u64,
    /// Second rows of a key in one poll.
    pub doubles: u64,
    /// Times that a poll did not have an entry that came back at once.
    pub missed: u64,
    /// Entries that came back within their time-out after they had expired.
    pub returned: u64,
}

/// Finds reuses.
#[derive(Debug)]
pub struct Detector {
    max_entries: usize,
    four: Table<u32>,
    six: Table<[u64; 2]>,
    poll: Poll,
    /// When the last polls were, the newest last, and how long each took.
    times: VecDeque<(Duration, Duration)>,
    stats: Stats,
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(config: Config) -> Self {
        Self {
            max_entries: config.max_entries,
            four: Table::default(),
            six: Table::default(),
            poll: 0,
            times: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A poll begins, `at` after some moment that stays the same.
    pub fn begin(&mut self, at: Duration) {
        self.poll += 1;
        if self.times.len() == POLLS {
            self.times.pop_front();
        }
        self.times.push_back((at, Duration::ZERO));
    }

    /// A row of this poll.
    #[inline]
    pub fn push(&mut self, row: &Row<'_>) {
        self.stats.rows += 1;
        if row.is_template() {
            self.stats.templates += 1;
            return;
        }
        if !matches!(row.tuple.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP) {
            self.stats.other_protocols += 1;
            return;
        }
        if row.origin == Some(Origin::Synced) {
            self.stats.synced += 1;
            return;
        }
        let Self { max_entries, four, six, poll, .. } = self;
        let mut pushed =
            four.push(&row.tuple, row.sight(), *poll, max_entries.saturating_sub(2 * six.places()));
        if pushed == Pushed::Foreign {
            let room = max_entries.saturating_sub(four.places()) / 2;
            pushed = six.push(&row.tuple, row.sight(), *poll, room);
        }
        match pushed {
            Pushed::Kept => {}
            Pushed::Double => self.stats.doubles += 1,
            Pushed::Full | Pushed::Foreign => self.stats.untracked += 1,
        }
    }

    /// The poll is over and `took` that long: what it proves, in the order of the tuples.
    pub fn finish(&mut self, took: Duration, services: Option<&Services>, kernel: &Kernel) -> Vec<Reuse> {
        if let Some(last) = self.times.back_mut() {
            last.1 = took;
        }
        let Self { max_entries, four, six, poll, times, stats } = self;
        let polls = Polls { poll: *poll, times };
        let mut reuses = Vec::new();
        let is_over = |seen, state: State| {
            let timeout = kernel.timeouts.of(state);
            let timeout = timeout.map_or(LONGEST_ABSENCE, |timeout| Duration::from_secs(timeout.into()));
            polls.between(seen).is_none_or(|(absence, _)| absence >= timeout.min(LONGEST_ABSENCE))
        };
        let mut each = |pair: Pair| {
            let missed = polls.poll.saturating_sub(pair.before_poll).saturating_sub(1);
            let is_recent = polls.between(pair.before_poll).is_some_and(|(elapsed, _)| elapsed <= RESENT);
            if missed > MISSED && !is_recent {
                stats.returned += 1;
                return;
            }
            stats.missed += u64::from(missed);
            reuses.extend(polls.judge(&pair, services, kernel));
        };
        let (elapsed, blur) = polls.between(polls.poll.saturating_sub(1)).unwrap_or_default();
        let quiet = Quiet::new(elapsed, blur);
        let is_full = four.places() + 2 * six.places() >= (*max_entries).saturating_sub(1);
        let mut doubles = four.finish(polls.poll, quiet, is_full, is_over, &mut each);
        doubles += six.finish(polls.poll, quiet, is_full, is_over, &mut each);
        stats.doubles += doubles;
        reuses.sort_unstable_by_key(|reuse| reuse.tuple);
        reuses
    }

    /// The closed entries of the last poll.
    pub fn closed(&self) -> Closed {
        let Self { four, six, poll, .. } = self;
        let mut closed = Closed::with_room(four.count_closed(*poll), six.count_closed(*poll));
        four.each(*poll, |tuple, sight| closed.push(tuple, sight));
        six.each(*poll, |tuple, sight| closed.push(tuple, sight));
        closed
    }

    /// Entries that are remembered.
    pub fn entries(&self) -> usize {
        self.four.len() + self.six.len()
    }

    /// What was seen.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// When the polls were.
#[derive(Clone, Copy)]
struct Polls<'a> {
    poll: Poll,
    times: &'a VecDeque<(Duration, Duration)>,
}

impl Polls<'_> {
    /// From an earlier poll to this one, and by how much that may be wrong; absent if it was too long ago.
    fn between(self, earlier: Poll) -> Option<(Duration, Duration)> {
        let (at, took) = *self.times.back()?;
        let ago = usize::try_from(self.poll.checked_sub(earlier)?).ok()?;
        let (before, before_took) = *self.times.get(self.times.len().checked_sub(ago + 1)?)?;
        let blur = if ago == 0 { took } else { took + before_took };
        Some((at.saturating_sub(before), blur))
    }

    fn judge(self, pair: &Pair, services: Option<&Services>, kernel: &Kernel) -> Option<Reuse> {
        let Pair { tuple, before, before_poll, now } = *pair;
        let (elapsed, blur) = self.between(before_poll)?;
        let mut change = Change {
            protocol: tuple.protocol,
            before,
            now,
            elapsed,
            blur,
            replies_unseen: true,
            timeouts: kernel.timeouts,
            sloppy: kernel.sloppy_tcp.is_some_and(|value| value != 0),
        };
        change.judge()?;
        // The first look was generous with what needs the services.
        change.replies_unseen = services.is_some_and(|services| services.replies_unseen(&tuple, now.server));
        let (verdict, confidence) = change.judge()?;
        let standing = services.map_or(Default::default(), |services| services.standing(&tuple, now.server));
        let (situation, severity) = situation::of(verdict, before.state, standing, kernel);
        Some(Reuse {
            tuple,
            before,
            now,
            verdict,
            confidence,
            may_have_expired: change.may_have_expired(),
            idle: change.advance(),
            standing,
            severity,
            situation,
        })
    }
}
