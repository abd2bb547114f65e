//! Which part of a segment's payload is sent: not what user space skips, nor more than a credit ahead of what it has read,
//! and less under overload.
//!
//! Pure, and nearly without branches: each would be another path for the verifier. All sequence numbers are compared by
//! serial number arithmetic (RFC 1982), so they may wrap. Whether the connection is wanted at all is [`crate::gate`]'s.

use crate::{
    blur,
    control::{SHED_BODIES, SHED_HEADERS, SHED_NONE},
    flow::{ConnectionState, GATE_HTTP},
    gate::Facts,
    limits::{CREDIT_BYTES, SHED_CREDIT_BYTES, SHED_SEGMENT_BYTES},
    segment::{MARK_CREDIT, MARK_SKIPPED, TCP_ACK, TCP_SYN},
    verdict::{ACTION_CREDIT, Verdict},
};

/// What becomes of a segment's payload: skipped, then captured, then left out. The parts make up the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Nothing of the segment is sent.
    pub silent: bool,
    /// First bytes, that user space does not want.
    pub skipped: u32,
    /// Bytes after those, that are sent.
    pub captured: u32,
    /// Last bytes, beyond the credit.
    pub over_credit: u32,
    /// Bytes before those, beyond the smaller credit while bodies are shed.
    pub shed_bodies: u32,
    /// Bytes before those, beyond what is captured of a segment while headers are shed.
    pub shed_headers: u32,
    /// `MARK_*` bits for the record.
    pub marks: u8,
    /// What is sent crosses half of the credit: the reader is woken.
    pub wakes: bool,
    /// What is sent lies in the second half of the credit: [`Self::yielded`] instead while the ring is half full.
    pub yields: bool,
}

impl Portion {
    /// Nothing of the payload is sent, and why is said elsewhere.
    pub const NONE: Self = Self {
        silent: false,
        skipped: 0,
        captured: 0,
        over_credit: 0,
        shed_bodies: 0,
        shed_headers: 0,
        marks: 0,
        wakes: false,
        yields: false,
    };

    /// Everything is sent, whatever there is.
    #[inline(always)]
    pub const fn whole(facts: &Facts) -> Self {
        Self { captured: facts.payload_length, ..Self::NONE }
    }

    /// The same with nothing captured, all of that beyond the credit: for the heads of others there is room then, which
    /// would be lost otherwise, and nobody would know which.
    #[inline(always)]
    #[must_use]
    pub const fn yielded(self) -> Self {
        Self {
            captured: 0,
            over_credit: self.over_credit + self.captured,
            marks: self.marks | MARK_CREDIT,
            yields: false,
            ..self
        }
    }
}

impl ConnectionState {
    /// Takes the portion that is sent of a segment that the gate wants, under the verdict that the map holds for this socket
    /// end and at `shed_level`. Remembers where the credit begins.
    ///
    /// A SYN is always sent whole: it may belong to a generation that the verdict does not know.
    #[inline(always)]
    pub fn portion(&mut self, facts: &Facts, verdict: Option<&Verdict>, shed_level: u32) -> Portion {
        if facts.flags & TCP_SYN != 0 {
            return Portion::whole(facts);
        }
        let first = facts.first_byte();
        let mut read = self.read_of(facts.direction).unwrap_or(first);
        let mut skipped = 0;
        let mut silent = false;
        let mut marks = 0;
        if let Some(verdict) = verdict
            && verdict.holds(self.known_generation())
        {
            if let Some(told) = verdict.read(facts.direction) {
                read = read.wrapping_add(ahead(told, read));
            }
            if let Some(until) = verdict.skip_until(facts.direction) {
                let unwanted = ahead(until, first);
                skipped = smaller(unwanted, facts.payload_length);
                silent = unwanted > facts.payload_length && !facts.steers();
                marks = if unwanted > 0 { MARK_SKIPPED } else { 0 };
                // What is skipped costs no credit.
                read = read.wrapping_add(ahead(until, read));
            }
        }
        // What follows is walked once, and not once for each verdict.
        let (read, skipped, silent) = (blur::number(read), blur::number(skipped), blur::flag(silent));
        let (marks, shed_level) = (blur::number(u32::from(marks)) as u8, blur::number(shed_level));
        self.set_read(facts.direction, read);
        self.renew(facts);
        let begin = first.wrapping_add(skipped);
        let after = after_skip(begin, facts.payload_length - skipped, read, shed_level);
        Portion { silent, skipped, marks: marks | after.marks, ..after }
    }

    /// What follows for the segment that most are: HTTP, neither first nor last of its connection, in the first half of its
    /// credit, with no verdict to heed and nothing shed. Says whether it is one, which is sent whole; else nothing is changed,
    /// and the long way through gate and [`Self::portion`] is to be taken, which comes to the same.
    #[inline(always)]
    pub fn passes(&mut self, facts: &Facts, epoch: u16, shed_level: u32) -> bool {
        let at = facts.direction as usize & 1;
        let plain = self.gate == GATE_HTTP
            && self.pending_known == 0
            && self.read_known[at] != 0
            && self.heeded_epoch == epoch
            && shed_level == SHED_NONE
            && !facts.steers();
        let to_half = ahead(self.read_sequence[at].wrapping_add(CREDIT_BYTES / 2), facts.sequence);
        let passes = plain && facts.payload_length < to_half && to_half <= CREDIT_BYTES;
        if passes {
            self.renew(facts);
        }
        passes
    }

    /// Takes from a verdict all that it says, if that is only what user space has read. Says whether it did: then the verdict
    /// need not be looked for again until another is written.
    #[inline(always)]
    pub fn takes(&mut self, verdict: &Verdict) -> bool {
        let [ingress, egress] = verdict.action;
        let [ingress_known, egress_known] = self.read_known;
        let only_credit = ingress | egress == ACTION_CREDIT;
        let known = ingress_known & egress_known != 0;
        if !only_credit || !known || !verdict.holds(self.known_generation()) {
            return false;
        }
        let mut at = 0;
        while at < 2 {
            if let Some(told) = verdict.read(at as u8) {
                self.read_sequence[at] =
                    self.read_sequence[at].wrapping_add(ahead(told, self.read_sequence[at]));
            }
            at += 1;
        }
        true
    }

    /// HTTP takes turns: who speaks has got what it acknowledges, and what comes back begins a message. So the credit of
    /// the other direction begins there, or the head behind a large body would be beyond it.
    #[inline(always)]
    fn renew(&mut self, facts: &Facts) {
        let other = (facts.direction ^ 1) as usize & 1;
        let got = facts.acknowledgement;
        let speaks = facts.payload_length > 0 && facts.flags & TCP_ACK != 0;
        if speaks && self.read_known[other] != 0 && ahead(got, self.next_sequence[other]) == 0 {
            self.read_sequence[other] =
                self.read_sequence[other].wrapping_add(ahead(got, self.read_sequence[other]));
        }
    }

    #[inline(always)]
    const fn read_of(&self, direction: u8) -> Option<u32> {
        let at = direction as usize & 1;
        if self.read_known[at] != 0 { Some(self.read_sequence[at]) } else { None }
    }

    #[inline(always)]
    const fn set_read(&mut self, direction: u8, sequence: u32) {
        let at = direction as usize & 1;
        self.read_sequence[at] = sequence;
        self.read_known[at] = 1;
    }
}

/// Portions `length` bytes from `begin` on of which none is skipped.
#[inline(always)]
fn after_skip(begin: u32, length: u32, read: u32, shed_level: u32) -> Portion {
    let credit = if shed_level >= SHED_BODIES { SHED_CREDIT_BYTES } else { CREDIT_BYTES };
    let most = if shed_level >= SHED_HEADERS { SHED_SEGMENT_BYTES } else { u32::MAX };
    let within_credit = smaller(length, ahead(read.wrapping_add(CREDIT_BYTES), begin));
    let within_bodies = smaller(within_credit, ahead(read.wrapping_add(credit), begin));
    let captured = smaller(within_bodies, most);
    // Both are 0 behind the middle of the credit.
    let to_half = ahead(read.wrapping_add(CREDIT_BYTES / 2), begin);
    Portion {
        silent: false,
        skipped: 0,
        captured,
        over_credit: length - within_credit,
        shed_bodies: within_credit - within_bodies,
        shed_headers: within_bodies - captured,
        marks: if captured < length { MARK_CREDIT } else { 0 },
        wakes: shed_level == SHED_NONE && to_half > 0 && captured >= to_half,
        yields: to_half == 0 && captured > 0,
    }
}

/// How far `sequence` is ahead of `from`; 0 if it is not.
#[inline(always)]
pub const fn ahead(sequence: u32, from: u32) -> u32 {
    let distance = sequence.wrapping_sub(from);
    if distance as i32 > 0 { distance } else { 0 }
}

#[inline(always)]
const fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::SHED_CONNECTIONS,
        flow::{GATE_SHED, GATE_UNWANTED},
        gate::{Decision, Look},
        segment::{DIRECTION_EGRESS, DIRECTION_INGRESS, TCP_FIN, TCP_RST},
        verdict::{ACTION_IGNORE, ACTION_SKIP},
    };

    const GENERATION: u32 = 77;
    /// Bodies begin just before sequence numbers wrap.
    const BEGIN: u32 = u32::MAX - 99;

    fn opened() -> ConnectionState {
        ConnectionState::first_seen(&Facts {
            direction: DIRECTION_INGRESS,
            flags: TCP_SYN,
            sequence: GENERATION,
            acknowledgement: 0,
            payload_length: 0,
        })
    }

    /// A segment of the response, `offset` bytes after [`BEGIN`].
    fn segment(offset: u32, payload_length: u32) -> Facts {
        Facts {
            direction: DIRECTION_EGRESS,
            flags: TCP_ACK,
            sequence: BEGIN.wrapping_add(offset),
            acknowledgement: GENERATION + 1,
            payload_length,
        }
    }

    fn verdict(action: u8, until: u32, read: u32) -> Verdict {
        Verdict {
            generation: GENERATION,
            until_sequence: [0, BEGIN.wrapping_add(until)],
            read_sequence: [0, BEGIN.wrapping_add(read)],
            action: [0, action],
            any_generation: 0,
            reserved: 0,
        }
    }

    fn assert_whole(portion: &Portion, facts: &Facts) {
        let parts = portion.skipped
            + portion.captured
            + portion.over_credit
            + portion.shed_bodies
            + portion.shed_headers;
        assert_eq!(parts, facts.payload_length, "the parts make up the payload: {portion:?}");
        let left_out = portion.over_credit + portion.shed_bodies + portion.shed_headers > 0;
        assert_eq!(portion.marks & MARK_CREDIT != 0, left_out, "{portion:?}");
    }

    /// The state after a first byte was sent at [`BEGIN`], and what it makes of `facts`.
    fn after_first(facts: &Facts, verdict: Option<&Verdict>, shed_level: u32) -> Portion {
        let mut state = opened();
        state.portion(&segment(0, 1), None, SHED_NONE);
        let portion = state.portion(facts, verdict, shed_level);
        assert_whole(&portion, facts);
        portion
    }

    /// All that the short way depends on, at its limits.
    fn each_case(mut check: impl FnMut(ConnectionState, Facts, u32)) {
        let half = CREDIT_BYTES / 2;
        let before = |distance: u32| 0_u32.wrapping_sub(distance);
        let offsets = [
            0,
            1,
            half - 1,
            half,
            half + 1,
            CREDIT_BYTES,
            1 << 31,
            before(1),
            before(half),
            before(half + 1),
        ];
        for gate in 0..=GATE_SHED {
            for flags in [TCP_ACK, TCP_ACK | TCP_FIN, TCP_SYN, TCP_SYN | TCP_ACK, TCP_RST] {
                for offset in offsets {
                    for payload_length in [0, 1, half - 1, half, half + 1, CREDIT_BYTES + 1] {
                        for bits in 0..64 {
                            let bit = |at: u32| u8::from(bits >> at & 1 != 0);
                            let mut state = opened();
                            state.gate = gate;
                            state.pending_known = bit(0);
                            state.pending = GENERATION;
                            state.read_sequence = [GENERATION - 9, BEGIN];
                            state.read_known = [1, bit(1)];
                            state.heeded_epoch = 4 + u16::from(bit(2));
                            state.next_sequence = [GENERATION + u32::from(bit(3)), 0];
                            let facts = Facts { flags, ..segment(offset, payload_length) };
                            check(state, facts, bits >> 4);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_short_way_comes_to_the_same_as_the_long_one() {
        const EPOCH: u16 = 4;
        let (mut passed, mut renewed) = (0, 0);
        each_case(|before, facts, shed_level| {
            let mut state = before;
            if !state.passes(&facts, EPOCH, shed_level) {
                assert_eq!(state, before, "nothing is changed");
                return;
            }
            passed += 1;
            renewed += u32::from(state != before);
            let mut long = before;
            long.follow(&facts);
            assert!(!long.shed(shed_level) && !long.is_shed(&facts, shed_level) && !long.is_unwanted(&facts));
            assert_eq!(long.look(&facts), Look::None);
            assert_eq!(long.judge_unseen(&facts), Decision::SEND);
            assert!(!long.heeds_verdict(&facts, EPOCH));
            let portion = long.portion(&facts, None, shed_level);
            assert_eq!((portion, long), (Portion::whole(&facts), state), "{before:?} {facts:?} {shed_level}");
        });
        assert!(passed > 0 && renewed > 0 && renewed < passed, "{passed} {renewed}");
    }

    #[test]
    fn the_short_way_is_for_the_first_half_of_the_credit() {
        let half = CREDIT_BYTES / 2;
        let mut state = opened();
        state.portion(&segment(0, 1), None, SHED_NONE);
        state.gate = GATE_HTTP;
        let cases = [
            (1, half - 2, true),
            (1, half - 1, false),
            (half - 1, 0, true),
            (half, 0, false),
            (0_u32.wrapping_sub(half), 1, true),
            (0_u32.wrapping_sub(half + 1), 1, false),
        ];
        for (offset, length, passes) in cases {
            assert_eq!(
                state.clone().passes(&segment(offset, length), 0, SHED_NONE),
                passes,
                "{offset} {length}"
            );
        }
        assert!(!state.clone().passes(&segment(1, 1), 1, SHED_NONE), "a verdict was written");
        assert!(!state.clone().passes(&segment(1, 1), 0, SHED_BODIES));
        state.gate = GATE_UNWANTED;
        assert!(!state.passes(&segment(1, 1), 0, SHED_NONE));
    }

    #[test]
    fn a_verdict_that_only_moves_credits_is_taken_whole() {
        let both = Verdict {
            action: [ACTION_CREDIT; 2],
            read_sequence: [GENERATION + 50, BEGIN.wrapping_add(70)],
            ..verdict(0, 0, 0)
        };
        let known = || {
            let mut state = opened();
            state.portion(&segment(0, 1), None, SHED_NONE);
            state.portion(&Facts { direction: DIRECTION_INGRESS, ..segment(0, 1) }, None, SHED_NONE);
            state.read_sequence = [GENERATION + 60, BEGIN];
            state
        };
        let mut state = known();
        assert!(state.takes(&both));
        assert_eq!(
            state.read_sequence,
            [GENERATION + 60, BEGIN.wrapping_add(70)],
            "a credit never moves back"
        );
        let cases = [
            Verdict { action: [ACTION_CREDIT, ACTION_CREDIT | ACTION_SKIP], ..both },
            Verdict { action: [ACTION_IGNORE, ACTION_CREDIT], ..both },
            Verdict { action: [0; 2], ..both },
            Verdict { generation: GENERATION + 1, ..both },
            Verdict { any_generation: 1, ..both },
        ];
        for left in cases {
            let mut state = known();
            assert!(!state.takes(&left), "{left:?}");
            assert_eq!(state, known(), "{left:?}");
        }
        for read_known in [[0, 1], [1, 0]] {
            let mut state = ConnectionState { read_known, ..known() };
            assert!(!state.takes(&both), "where the credit begins is not known");
        }
        // The next generation looks for its own.
        let mut state = ConnectionState { heeded_epoch: 3, ..known() };
        state.follow(&Facts { flags: TCP_SYN, ..segment(5000, 0) });
        assert_eq!(state.heeded_epoch, 0);
    }

    #[test]
    fn the_credit_is_used_to_the_byte() {
        let cases = [
            (0, CREDIT_BYTES, CREDIT_BYTES),
            (0, CREDIT_BYTES + 1, CREDIT_BYTES),
            (CREDIT_BYTES - 1, 1, 1),
            (CREDIT_BYTES - 1, 2, 1),
            (CREDIT_BYTES, 1, 0),
            (CREDIT_BYTES + 1, 1, 0),
            // Sent again, from before the credit began or from within it.
            (0_u32.wrapping_sub(50), 60, 60),
            (0_u32.wrapping_sub(50), 50 + CREDIT_BYTES + 1, 50 + CREDIT_BYTES),
            (100, 1000, 1000),
        ];
        for (offset, length, captured) in cases {
            let portion = after_first(&segment(offset, length), None, SHED_NONE);
            assert_eq!((portion.captured, portion.skipped, portion.silent), (captured, 0, false), "{offset}");
            assert_eq!(portion.over_credit, length - captured, "{offset}");
        }
    }

    #[test]
    fn the_second_half_of_the_credit_yields() {
        const HALF: u32 = CREDIT_BYTES / 2;
        for (offset, length, yields) in [
            (0, CREDIT_BYTES, false),
            (HALF - 1, 2, false),
            (HALF, 1, true),
            (CREDIT_BYTES - 1, 2, true),
            (CREDIT_BYTES, 1, false),
        ] {
            let facts = segment(offset, length);
            let portion = after_first(&facts, None, SHED_NONE);
            assert_eq!(portion.yields, yields, "{offset}");
            let yielded = portion.yielded();
            assert_whole(&yielded, &facts);
            assert_eq!((yielded.captured, yielded.over_credit), (0, length), "{offset}");
        }
    }

    #[test]
    fn what_user_space_has_read_moves_the_credit() {
        let read = 3 * CREDIT_BYTES;
        let told = verdict(ACTION_CREDIT, 0, read);
        let cases = [(read + CREDIT_BYTES - 1, 2, 1), (read + CREDIT_BYTES, 1, 0), (read - 10, 20, 20)];
        for (offset, length, captured) in cases {
            let portion = after_first(&segment(offset, length), Some(&told), SHED_NONE);
            assert_eq!(portion.captured, captured, "{offset}");
        }
        // It is kept where the table of verdicts forgets.
        let mut state = opened();
        state.portion(&segment(read, 1), Some(&told), SHED_NONE);
        assert_eq!(state.portion(&segment(read + CREDIT_BYTES, 1), None, SHED_NONE).captured, 0);
        assert_eq!(state.portion(&segment(read + CREDIT_BYTES - 1, 1), None, SHED_NONE).captured, 1);
    }

    #[test]
    fn each_direction_has_its_own_credit() {
        let mut state = opened();
        state.portion(&segment(0, CREDIT_BYTES), None, SHED_NONE);
        assert_eq!(state.portion(&segment(CREDIT_BYTES, 1), None, SHED_NONE).captured, 0);
        let request = Facts { direction: DIRECTION_INGRESS, ..segment(CREDIT_BYTES, 1) };
        assert_eq!(state.portion(&request, None, SHED_NONE).captured, 1);
    }

    #[test]
    fn what_is_answered_has_its_own_credit() {
        let speak = |state: &mut ConnectionState, length: u32, got: u32| {
            let facts = Facts {
                direction: DIRECTION_INGRESS,
                sequence: GENERATION + 1,
                acknowledgement: BEGIN.wrapping_add(got),
                ..segment(0, length)
            };
            state.portion(&facts, None, SHED_NONE);
        };
        let sent = 10 * CREDIT_BYTES;
        // A request that acknowledges the whole response, a part of it, nothing, more than there was; a bare acknowledgement.
        let cases = [(1, sent, sent), (1, 5, 5), (1, 0, 0), (1, sent + 1, 0), (0, sent, 0)];
        for (length, got, from) in cases {
            let mut state = opened();
            for offset in [0, sent / 2] {
                let facts = segment(offset, sent / 2);
                state.portion(&facts, None, SHED_NONE);
                state.note(&facts, 0);
            }
            speak(&mut state, length, got);
            let captured = |state: &mut ConnectionState, offset| {
                state.portion(&segment(offset, 1), None, SHED_NONE).captured
            };
            assert_eq!(captured(&mut state, from + CREDIT_BYTES - 1), 1, "{length} {got}");
            assert_eq!(captured(&mut state, from + CREDIT_BYTES), 0, "{length} {got}");
            // What is said to be read does not take it back.
            let told = verdict(ACTION_CREDIT, 0, 1);
            let next = segment(from.max(1) + CREDIT_BYTES - 1, 2);
            assert_eq!(state.portion(&next, Some(&told), SHED_NONE).captured, 1);
        }
    }

    #[test]
    fn a_new_generation_has_a_new_credit() {
        let mut state = opened();
        state.portion(&segment(0, CREDIT_BYTES), None, SHED_NONE);
        let isn = 5000;
        state.follow(&Facts { flags: TCP_SYN, sequence: isn, ..segment(0, 0) });
        assert_eq!(state.known_generation(), Some(isn));
        assert_eq!(state.portion(&segment(CREDIT_BYTES, 1), None, SHED_NONE).captured, 1);
    }

    #[test]
    fn half_of_the_credit_wakes_the_reader_once() {
        let half = CREDIT_BYTES / 2;
        let cases = [
            (0, half - 1, false),
            (0, half, true),
            (half - 1, 1, true),
            (half - 1, 2, true),
            (half, 1, false),
            (half + 1, half, false),
            (CREDIT_BYTES, 1, false),
        ];
        for (offset, length, wakes) in cases {
            let portion = after_first(&segment(offset, length), None, SHED_NONE);
            assert_eq!(portion.wakes, wakes, "{offset} {length}");
            let shed = after_first(&segment(offset, length), None, SHED_BODIES);
            assert!(!shed.wakes, "under overload the reader is not disturbed");
        }
    }

    #[test]
    fn bytes_below_the_wanted_one_are_skipped() {
        let until = 1000;
        let skip = verdict(ACTION_SKIP, until, 0);
        // Offset, length, skipped, captured, silent: the segment that ends at, before and after the wanted byte.
        let cases = [
            (10, until - 11, until - 11, 0, true),
            (10, until - 10, until - 10, 0, false),
            (10, until - 9, until - 10, 1, false),
            (until - 1, 1, 1, 0, false),
            (until - 1, 2, 1, 1, false),
            (until, 5, 0, 5, false),
            (until + 1, 5, 0, 5, false),
            (0_u32.wrapping_sub(7), 7, 7, 0, true),
        ];
        for (offset, length, skipped, captured, silent) in cases {
            let portion = after_first(&segment(offset, length), Some(&skip), SHED_NONE);
            assert_eq!((portion.skipped, portion.captured), (skipped, captured), "{offset} {length}");
            assert_eq!(portion.silent, silent, "{offset} {length}");
            assert_eq!(portion.marks & MARK_SKIPPED != 0, skipped > 0, "{offset} {length}");
        }
    }

    #[test]
    fn a_skip_reaches_as_far_as_it_may_and_is_over_when_it_is_over() {
        use crate::limits::MAX_SKIP_BYTES;

        let skip = verdict(ACTION_SKIP, MAX_SKIP_BYTES, 0);
        for (offset, silent) in [(0, true), (1, true), (MAX_SKIP_BYTES, false), (MAX_SKIP_BYTES * 2, false)] {
            assert_eq!(after_first(&segment(offset, 1), Some(&skip), SHED_NONE).silent, silent, "{offset}");
        }
    }

    #[test]
    fn the_end_of_a_connection_is_told_inside_a_skipped_body() {
        let skip = verdict(ACTION_SKIP, 1000, 0);
        for flags in [TCP_ACK | TCP_FIN, TCP_RST] {
            for length in [0, 10] {
                let facts = Facts { flags, ..segment(500, length) };
                let portion = after_first(&facts, Some(&skip), SHED_NONE);
                assert!(!portion.silent);
                assert_eq!((portion.skipped, portion.captured), (length, 0));
                assert_eq!(portion.marks, MARK_SKIPPED);
            }
        }
    }

    #[test]
    fn what_is_skipped_costs_no_credit() {
        let until = 10 * CREDIT_BYTES;
        for (action, read) in [(ACTION_SKIP, 0), (ACTION_SKIP | ACTION_CREDIT, 5)] {
            let skip = verdict(action, until, read);
            let portion = after_first(&segment(until - 5, CREDIT_BYTES + 6), Some(&skip), SHED_NONE);
            assert_eq!((portion.skipped, portion.captured, portion.over_credit), (5, CREDIT_BYTES, 1));
        }
        // What was read further than skipped counts.
        let skip = verdict(ACTION_SKIP | ACTION_CREDIT, 5, 100);
        let portion = after_first(&segment(100, CREDIT_BYTES + 1), Some(&skip), SHED_NONE);
        assert_eq!((portion.skipped, portion.captured), (0, CREDIT_BYTES));
    }

    #[test]
    fn a_verdict_on_another_generation_skips_nothing() {
        for (generation, any_generation) in [(GENERATION + 1, 0), (GENERATION, 1)] {
            let other =
                Verdict { generation, any_generation, ..verdict(ACTION_SKIP | ACTION_CREDIT, 1000, 1 << 20) };
            let portion = after_first(&segment(10, 10), Some(&other), SHED_NONE);
            assert_eq!((portion.captured, portion.marks), (10, 0));
            assert_eq!(after_first(&segment(1 << 20, 10), Some(&other), SHED_NONE).captured, 0);
        }
    }

    #[test]
    fn a_syn_is_sent_whole() {
        let skip = verdict(ACTION_SKIP, 1000, 0);
        let facts = Facts { flags: TCP_SYN, ..segment(2 * CREDIT_BYTES, 10) };
        assert_eq!(after_first(&facts, Some(&skip), SHED_CONNECTIONS), Portion::whole(&facts));
    }

    #[test]
    fn under_overload_bodies_go_first_then_headers() {
        let all = CREDIT_BYTES + 7;
        let cases = [
            (SHED_NONE, CREDIT_BYTES, 0, 0),
            (SHED_BODIES, SHED_CREDIT_BYTES, CREDIT_BYTES - SHED_CREDIT_BYTES, 0),
            (
                SHED_HEADERS,
                SHED_SEGMENT_BYTES,
                CREDIT_BYTES - SHED_CREDIT_BYTES,
                SHED_CREDIT_BYTES - SHED_SEGMENT_BYTES,
            ),
        ];
        for (level, captured, bodies, headers) in cases {
            let portion = after_first(&segment(0, all), None, level);
            assert_eq!((portion.captured, portion.shed_bodies), (captured, bodies), "{level}");
            assert_eq!((portion.shed_headers, portion.over_credit), (headers, 7), "{level}");
        }
        let at = |length| after_first(&segment(1, length), None, SHED_HEADERS).captured;
        assert_eq!(
            (at(SHED_SEGMENT_BYTES), at(SHED_SEGMENT_BYTES + 1)),
            (SHED_SEGMENT_BYTES, SHED_SEGMENT_BYTES)
        );
        let last = |length| after_first(&segment(SHED_CREDIT_BYTES - 9, length), None, SHED_BODIES).captured;
        assert_eq!((last(9), last(10)), (9, 9));
    }
}
