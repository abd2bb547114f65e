//! What reassembly counts. Plain numbers: `metrics` reads them, nothing here renders.

/// Counters since start. Every segment taken and every byte not delivered is in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments taken.
    pub segments: u64,
    /// Bytes delivered.
    pub bytes_delivered: u64,
    /// Segments that came before their turn and were held.
    pub out_of_order: u64,
    /// Payload segments seen again whole.
    pub retransmits: u64,
    /// Packets sighted twice within the sighting window on a path.
    pub sighted_twice: u64,
    /// Keep-alive probes.
    pub keep_alives: u64,
    /// Bytes that overlapped earlier ones in segments that also brought new ones; the first copy was kept.
    pub overlapped_bytes: u64,
    /// Bytes that came after their place had been given up as a gap.
    pub late_bytes: u64,
    /// Segments too far from the expected sequence number to be believed.
    pub far_segments: u64,
    /// Bytes beyond the sender's FIN.
    pub bytes_after_finish: u64,
    /// FINs where data had been before.
    pub finishes_ignored: u64,
    /// Segments of connections that had ended.
    pub after_close: u64,
    /// Segments without payload that belong to no known connection.
    pub unknown_bare: u64,
    /// Segments with flags that contradict each other (SYN with FIN or RST).
    pub contradictory_flags: u64,
    /// Resets that were not at the next expected sequence number.
    pub resets_ignored: u64,
    /// Resets seen on a path whose sender went on all the same.
    pub resets_contradicted: u64,
    /// SYNs and SYN-ACKs seen again.
    pub handshake_retransmits: u64,
    /// SYNs answered by a reset.
    pub handshakes_refused: u64,
    /// SYNs that nothing answered in time.
    pub handshakes_expired: u64,
    /// SYNs forgotten because of [`super::Config::max_handshakes`] or the limit per tuple.
    pub handshakes_forgotten: u64,
    /// SYNs that tried to open a connection, their copies not counted.
    pub attempts_begun: u64,
    /// Of these, answered; slow ones among them, but not those that were told as unanswered before.
    pub attempts_answered: u64,
    /// Of the answered, those whose SYN was sent again or that took [`super::Config::slow_attempt`].
    pub attempts_slow: u64,
    /// Of the answered, those that were told.
    pub attempts_answered_told: u64,
    /// Answered by a reset.
    pub attempts_refused: u64,
    /// Answered by an ICMP error.
    pub attempts_unreachable: u64,
    /// Not answered within [`super::Config::attempt_timeout`].
    pub attempts_timed_out: u64,
    /// Told as unknown: the source ended, or the answer was lost by our own capture.
    pub attempts_unknown: u64,
    /// Answered after they had been told as unanswered; these are told twice.
    pub attempts_late: u64,
    /// Taken back by a reset of their own sender.
    pub attempts_withdrawn: u64,
    /// Not answered as far as was seen, at a server's end or on a path where that proves nothing: not told.
    pub attempts_unanswered: u64,
    /// Open when the source ended, and never sent again: not told.
    pub attempts_cut_off: u64,
    /// Forgotten because of a limit, and not told.
    pub attempts_forgotten: u64,
    /// Times that some which were due waited until [`super::config::MAX_ATTEMPTS_QUEUED`] others had been taken.
    pub attempts_paused: u64,
    /// ICMP errors that quote no SYN that is waited for.
    pub unreachables_ignored: u64,
    /// Data bytes of SYNs that were not taken: not accepted by the peer, or no room to hold them.
    pub syn_bytes_dropped: u64,
    /// Gaps with [`super::GapCause::Missing`].
    pub gaps_missing: u64,
    /// Their bytes.
    pub gap_bytes_missing: u64,
    /// Gaps with [`super::GapCause::Cut`].
    pub gaps_cut: u64,
    /// Their bytes.
    pub gap_bytes_cut: u64,
    /// Gaps with [`super::GapCause::Limit`].
    pub gaps_limit: u64,
    /// Their bytes.
    pub gap_bytes_limit: u64,
    /// Times that a direction's held bytes or pieces hit their limit.
    pub limit_direction: u64,
    /// Times that all held bytes hit their limit.
    pub limit_total: u64,
    /// Ended connections forgotten before their linger time because of [`super::Config::max_lingering`].
    pub limit_lingering: u64,
    /// Connections begun with a handshake.
    pub opened_handshake: u64,
    /// Connections joined in the middle.
    pub opened_middle: u64,
    /// Connections that ended by both sides' FIN.
    pub closed_finished: u64,
    /// By a valid reset.
    pub closed_reset: u64,
    /// By a new generation of their tuple.
    pub closed_replaced: u64,
    /// By silence.
    pub closed_idle: u64,
    /// By [`super::Config::max_connections`].
    pub closed_evicted: u64,
    /// By the end of the source.
    pub closed_source_ended: u64,
    /// By [`super::Reassembler::refuse`].
    pub closed_refused: u64,
    /// Segments of refused connections, after they were refused.
    pub refused_segments: u64,
    /// Payload bytes of those.
    pub refused_bytes: u64,
}
