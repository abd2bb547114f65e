//! The stages' counters as tables: name, meaning and where the number stands. A test holds them complete.

use super::{Counted, routes as http_routes};
use crate::{behind, capture, filter, http, ipvs, named, reassembly, views};

/// One counter of a stage.
struct Row<S> {
    name: &'static str,
    help: &'static str,
    value: fn(&S) -> u64,
    place: fn(&mut S) -> &mut u64,
}

macro_rules! counters {
    ($table:ident, $stats:ty, $stage:literal, $($field:ident: $help:literal,)+) => {
        static $table: &[Row<$stats>] = &[$(Row {
            name: concat!($stage, "_", stringify!($field)),
            help: $help,
            value: |stats| stats.$field,
            place: |stats| &mut stats.$field,
        },)+];
    };
}

counters! { READER, capture::kernel::Stats, "reader",
    records: "Records read.",
    bytes: "Bytes of them, waste of their size classes included.",
    packets: "Packets whose last record was handed on.",
    payload_bytes: "Payload bytes handed on.",
    refused_packets: "Packets whose last record was not understood.",
    refused_bytes: "Payload bytes of records that were not understood.",
    unknown_version: "Records of a layout that this program does not read.",
    malformed: "Records that do not keep the contract.",
    verdicts_written: "Verdicts told to the kernel.",
    skips_written: "Of these, those that leave out a part of a direction.",
    verdicts_deleted: "Verdicts of connections that are over, taken out.",
    own_sockets_refused: "Sockets of our own that the kernel's table had no place for.",
    verdicts_refused: "Verdicts that the kernel's table did not take.",
}

counters! { INTERFACES, capture::kernel::InterfaceStats, "interfaces",
    attaches: "Times that the programs were attached to an interface.",
    detaches: "Times that a watched interface went away or was not wanted any more.",
    failed_gone: "Attaches that failed because the interface was gone already.",
    failed_not_permitted: "Attaches that failed for lack of a right.",
    failed_occupied: "Attaches that failed because others hold every place.",
    failed_other: "Attaches that failed for another reason.",
    rescans: "Times that all interfaces were listed anew because news of them were lost or not enough.",
    stale_filters_removed: "Filters of killed agents that were taken away.",
}

counters! { REASSEMBLY, reassembly::Stats, "reassembly",
    segments: "Segments taken.",
    bytes_delivered: "Bytes delivered.",
    out_of_order: "Segments that came before their turn and were held.",
    retransmits: "Payload segments seen again whole.",
    sighted_twice: "Packets sighted twice within the sighting window on a path.",
    keep_alives: "Keep-alive probes.",
    overlapped_bytes: "Bytes that overlapped earlier ones in segments that also brought new ones; the first copy was kept.",
    late_bytes: "Bytes that came after their place had been given up as a gap.",
    far_segments: "Segments too far from the expected sequence number to be believed.",
    bytes_after_finish: "Bytes beyond the sender's FIN.",
    finishes_ignored: "FINs where data had been before.",
    after_close: "Segments of connections that had ended.",
    unknown_bare: "Segments without payload that belong to no known connection.",
    contradictory_flags: "Segments with flags that contradict each other (SYN with FIN or RST).",
    resets_ignored: "Resets that were not at the next expected sequence number.",
    resets_contradicted: "Resets seen on a path whose sender went on all the same.",
    handshake_retransmits: "SYNs and SYN-ACKs seen again.",
    handshakes_refused: "SYNs answered by a reset.",
    handshakes_expired: "SYNs that nothing answered in time.",
    handshakes_forgotten: "SYNs forgotten because there were too many, in all or of one tuple.",
    attempts_begun: "SYNs that tried to open a connection, their copies not counted.",
    attempts_answered: "Of these, answered; slow ones among them, but not those that were told as unanswered before.",
    attempts_slow: "Of the answered, those whose SYN was sent again or that took connect.slow.",
    attempts_answered_told: "Of the answered, those that were told.",
    attempts_refused: "Answered by a reset.",
    attempts_unreachable: "Answered by an ICMP error.",
    attempts_timed_out: "Not answered within connect.timeout.",
    attempts_unknown: "Told as unknown: the source ended, or the answer was lost by our own capture.",
    attempts_late: "Answered after they had been told as unanswered; these are told twice.",
    attempts_withdrawn: "Taken back by a reset of their own sender.",
    attempts_unanswered: "Not answered as far as was seen, at a server's end or on a path where that proves nothing: not told.",
    attempts_cut_off: "Open when the source ended, and never sent again: not told.",
    attempts_forgotten: "Forgotten because of a limit, and not told.",
    attempts_paused: "Times that attempts which were due waited until others had been taken.",
    unreachables_ignored: "ICMP errors that quote no SYN that is waited for.",
    syn_bytes_dropped: "Data bytes of SYNs that were not taken: not accepted by the peer, or no room to hold them.",
    gaps_missing: "Gaps of bytes that were never seen.",
    gap_bytes_missing: "Bytes that were never seen.",
    gaps_cut: "Gaps of bytes that the capture cut on purpose.",
    gap_bytes_cut: "Bytes that the capture cut on purpose.",
    gaps_limit: "Gaps made because out-of-order bytes hit their limit.",
    gap_bytes_limit: "Bytes given up because out-of-order bytes hit their limit.",
    limit_direction: "Times that a direction's held bytes or pieces hit their limit.",
    limit_total: "Times that all held bytes hit their limit.",
    limit_lingering: "Ended connections forgotten before their time because there were too many.",
    opened_handshake: "Connections begun with a handshake.",
    opened_middle: "Connections joined in the middle.",
    closed_finished: "Connections that ended by both sides' FIN.",
    closed_reset: "Connections that ended by a valid reset.",
    closed_replaced: "Connections that ended by a new one of the same tuple.",
    closed_idle: "Connections that ended by silence.",
    closed_evicted: "Connections given up because there were too many.",
    closed_source_ended: "Connections that were open when the source ended.",
    closed_refused: "Connections that a filter refused.",
    refused_segments: "Segments of connections that a filter had refused.",
    refused_bytes: "Payload bytes of connections that a filter had refused.",
}

counters! { FILTER, filter::Stats, "filter",
    kept: "Connections that the filter kept.",
    undecided: "Connections kept until it is known which end is the server.",
    refused_port: "Connections refused by their server's port.",
    refused_address: "Connections refused by an address.",
    refused_role: "Connections refused by the observed end's role.",
    refused_expression: "Connections refused by the filter expression.",
    refused_duplicate: "Connections refused because another interface tells of them.",
    refused_interface: "Connections refused by their interface, or because it has no name here.",
    refused_cgroup: "Connections refused by their cgroup, or because it is not known.",
    refused_exchanges: "Exchanges that were read before their connection was refused.",
    refused_attempts: "Connection attempts that a rule refused, or that another interface tells of.",
}

counters! { SIGHTINGS, filter::sightings::SightingStats, "sightings",
    duplicates: "Sightings of a connection's end that another interface tells of.",
    forgotten: "Sightings forgotten before their time because there were too many.",
}

counters! { ROUTES, http_routes::Stats, "routes",
    values_over_limit: "Path segments called {any}: their place in the path had its share of values.",
    places_over_limit: "Path segments called {any}: the tree of paths was full.",
    segments_over_limit: "Paths with more segments than are told apart.",
}

counters! { HTTP, http::Stats, "http",
    bytes: "Bytes read, of all connections.",
    begun: "Exchanges begun: requests, responses without one, HTTP/2 connections.",
    complete: "Exchanges told as complete; late ones and progress reports apart.",
    timeout: "Exchanges told as timeout.",
    reset: "Exchanges told as reset.",
    closed: "Exchanges told as closed.",
    gap: "Exchanges told as gap.",
    upgraded: "Exchanges told as upgraded, HTTP/2 connections included.",
    late: "Exchanges told a second time, after their timeout.",
    progress: "Exchanges told as in progress.",
    unasked_responses: "Responses told without a request.",
    interim_responses: "1xx responses passed over.",
    connections_http: "Connections with at least one HTTP/1 message.",
    connections_http2: "Connections that begin with the HTTP/2 preface.",
    connections_tls: "Connections that begin with a TLS handshake record.",
    connections_other: "Connections that begin with something else.",
    connections_proxied: "Connections that began with a PROXY header.",
    tunnels: "Tunnels made by CONNECT.",
    upgrades_websocket: "Upgrades to WebSocket.",
    upgrades_http2: "Upgrades to HTTP/2 (h2c).",
    tunnel_bytes: "Bytes behind an upgrade.",
    foreign_bytes: "Bytes of connections that are not HTTP/1.",
    skipped_bytes: "Bytes on HTTP connections that belong to no message that was recognised.",
    gaps: "Gaps met on HTTP connections.",
    gap_bytes: "Bytes of gaps on HTTP connections.",
    heads_too_long: "Heads over their limit.",
    heads_no_memory: "Heads given up because too many bytes were kept.",
    heads_unfinished: "Heads that the end of their direction cut off.",
    requests_over_limit: "Requests over the limit of unanswered ones.",
    flows_no_memory: "Connections of which what was open was given up because too many were in the midst of messages.",
    open_no_memory: "Requests told at once, or responses kept without headers, because too many were open.",
    prefixes_no_memory: "Body prefixes cut short because too many bytes were kept.",
    chunks_broken: "Chunked bodies whose framing broke.",
    chunk_lines_too_long: "Chunked bodies broken by a chunk-size line over its limit.",
    trailers_too_long: "Chunked bodies broken by trailers over their limit.",
    anomalous_messages: "Messages marked with at least one anomaly.",
}

counters! { NAMES, named::Stats, "names",
    records: "Records whose ends were to be named.",
    waited: "Of these, that waited until it was known who an end was.",
    waits_refused: "Records that would have waited, had there been room: they left with what was known.",
    refused: "Records that the selection by names refused.",
    refused_unknown: "Of these, with an end of which it is not certain who it is: their connections go on.",
    sampled_away: "Records that a pod's annotation sampled away.",
    wishes_unreadable: "Values of pods' annotations that cannot be read: what is configured holds.",
    wishes_limited: "Values of pods' annotations that ask for more than pods may: they get what they may.",
    ends_named: "Ends that are somebody in the cluster, or outside of it.",
    ends_stale: "Of these, as they were when there last was contact with the API server.",
    ends_unknown: "Ends of which nobody knows who they were, or which of several.",
    answers_forgotten: "Times that all remembered names were forgotten because there were too many.",
}

counters! { BEHIND, behind::Stats, "behind",
    found_by_connection: "Connections to Services whose server's own end was seen on this node.",
    found_by_conntrack: "Connections to Services of which conntrack knew where they were led.",
    found_by_ipvs: "Connections to Services of which a poll of IPVS knew it.",
    unknown: "Times that it was not known for a record where its connection to a Service was led.",
    questions: "Questions to conntrack.",
    untranslated: "Of these, to which it knew no other server.",
    over_rate: "Questions to conntrack left out because there were too many in their second.",
    unasked: "Questions to conntrack left out because it is not there or may not be asked.",
    lookups_refused: "Connections that polls of IPVS were not asked about because there were too many.",
    forgotten: "Answers that were forgotten because there were too many.",
    busy: "Times that an answer was not looked up or put down because another worker was at its place.",
}

counters! { VIEWS, views::Stats, "views",
    seen: "Views of complete exchanges, told at an end of theirs.",
    joined: "Exchanges of which both views met.",
    negative: "Of these, that took longer at the server than at the client: their time in the network counts as none.",
    alone: "Views that waited in vain for the other end's as long as they may.",
    forgotten: "Views that were given up before for want of room.",
    busy: "Views that were not looked up because another worker was at their place.",
}

counters! { JOIN, ipvs::join::Stats, "ipvs_join",
    questioned: "SYNs to an entry that the last poll had closed.",
    met_by_poll: "Connections of which a poll said that they met an old entry.",
    met_by_kernel: "Connections that the kernel was seen to decide so about.",
    cleared: "Connections in question that met none.",
    unsettled: "Connections in question of which nothing was ever said: they stay probable.",
    forgotten: "Connections forgotten because there were too many.",
    waited: "Records that waited to know what IPVS did with their connection.",
    waits_refused: "Records that left as probable for want of room to wait.",
    waits_timed_out: "Records that waited for one interval in vain, and left as probable.",
}

/// What the reader of the ring counted.
pub fn reader(stats: &capture::kernel::Stats) -> Vec<Counted> {
    rows(READER, stats)
}

/// What the follower of interfaces counted, and on how many the programs are.
pub fn interfaces(stats: &capture::kernel::InterfaceStats) -> Vec<Counted> {
    let attached = stats.attaches.saturating_sub(stats.detaches);
    let mut rows = rows(INTERFACES, stats);
    rows.push(Counted::gauge("interfaces_attached", "Interfaces that the programs are on.", attached));
    rows
}

/// What reassembly counted.
pub fn reassembly(stats: &reassembly::Stats) -> Vec<Counted> {
    rows(REASSEMBLY, stats)
}

/// What the filter counted.
pub fn filter(stats: &filter::Stats) -> Vec<Counted> {
    rows(FILTER, stats)
}

/// What was sighted at several interfaces.
pub fn sightings(stats: &filter::sightings::SightingStats) -> Vec<Counted> {
    rows(SIGHTINGS, stats)
}

/// What was named.
pub fn names(stats: &named::Stats) -> Vec<Counted> {
    rows(NAMES, stats)
}

/// As [`add_reader`].
pub fn add_names(total: &mut named::Stats, part: &named::Stats) {
    add(NAMES, total, part);
}

/// What was found behind Services' addresses.
pub fn behind(stats: &behind::Stats) -> Vec<Counted> {
    rows(BEHIND, stats)
}

/// As [`add_reader`].
pub fn add_behind(total: &mut behind::Stats, part: &behind::Stats) {
    add(BEHIND, total, part);
}

/// What came of views.
pub fn views(stats: &views::Stats) -> Vec<Counted> {
    rows(VIEWS, stats)
}

/// As [`add_reader`].
pub fn add_views(total: &mut views::Stats, part: &views::Stats) {
    add(VIEWS, total, part);
}

/// What was joined with IPVS.
pub fn join(stats: &ipvs::join::Stats) -> Vec<Counted> {
    rows(JOIN, stats)
}

/// As [`add_reader`].
pub fn add_join(total: &mut ipvs::join::Stats, part: &ipvs::join::Stats) {
    add(JOIN, total, part);
}

/// What the finding of routes counted.
pub fn routes(stats: &http_routes::Stats) -> Vec<Counted> {
    rows(ROUTES, stats)
}

/// What the HTTP stage counted.
pub fn http(stats: &http::Stats) -> Vec<Counted> {
    rows(HTTP, stats)
}

/// Adds what one worker's stages counted to `total`.
pub fn add_reader(total: &mut capture::kernel::Stats, part: &capture::kernel::Stats) {
    add(READER, total, part);
}

/// As [`add_reader`].
pub fn add_reassembly(total: &mut reassembly::Stats, part: &reassembly::Stats) {
    add(REASSEMBLY, total, part);
}

/// As [`add_reader`].
pub fn add_filter(total: &mut filter::Stats, part: &filter::Stats) {
    add(FILTER, total, part);
}

/// As [`add_reader`].
pub fn add_routes(total: &mut http_routes::Stats, part: &http_routes::Stats) {
    add(ROUTES, total, part);
}

/// As [`add_reader`].
pub fn add_http(total: &mut http::Stats, part: &http::Stats) {
    add(HTTP, total, part);
}

fn add<S>(table: &[Row<S>], total: &mut S, part: &S) {
    for row in table {
        *(row.place)(total) += (row.value)(part);
    }
}

fn rows<S>(table: &[Row<S>], stats: &S) -> Vec<Counted> {
    table.iter().map(|row| Counted::counter(row.name, row.help, (row.value)(stats))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{:#?}` gives each field a line of its own: `    name: value,`.
    fn check<S: Default + std::fmt::Debug>(table: &[Row<S>], stage: &str) {
        let printed = format!("{:#?}", S::default());
        let fields: Vec<_> =
            printed.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(':')).collect();
        let names: Vec<_> = table.iter().map(|row| row.name.strip_prefix(stage).unwrap()).collect();
        assert!(!fields.is_empty());
        for (field, _) in fields {
            assert!(names.contains(&field), "{stage}{field} is counted and not told");
        }
        for row in table {
            assert!(row.help.ends_with('.') && !row.help.contains(['`', '[']), "{}: {}", row.name, row.help);
        }
    }

    #[test]
    fn what_workers_counted_is_added_up() {
        let part = |records, malformed| capture::kernel::Stats { records, malformed, ..Default::default() };
        let mut total = part(3, 0);
        add_reader(&mut total, &part(4, 2));
        assert_eq!(total, part(7, 2));
    }

    #[test]
    fn every_counter_is_told() {
        check(READER, "reader_");
        check(INTERFACES, "interfaces_");
        check(REASSEMBLY, "reassembly_");
        check(FILTER, "filter_");
        check(SIGHTINGS, "sightings_");
        check(ROUTES, "routes_");
        check(HTTP, "http_");
        check(NAMES, "names_");
        check(VIEWS, "views_");
        check(JOIN, "ipvs_join_");
    }
}
