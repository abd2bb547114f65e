//! Divides the memory before anything takes it: so much for the process itself and the rings, the rest for what traffic fills.
//!
//! What is configured for itself (rings, queues) comes first; tables, kernel maps and stores share what is left. A share
//! is a bound that its owner keeps: one past it something is given up and counted. Pure: takes numbers and gives numbers.

use crate::{
    behind::BEHIND_BYTES,
    http,
    kubernetes::cluster::DEFAULT_MAX_BYTES,
    metrics::{
        http::{DEFAULT_LABEL_SETS, LABEL_SET_BYTES, MAX_LABEL_SETS},
        pairs::{MAX_PAIRS, PAIR_BYTES},
    },
    reassembly,
};

/// The process before it has seen anything, and what no traffic can multiply: code, runtime, stacks, metrics and two scrapes
/// of them. Measured: 7.7 MiB of an optimised build, and 4 of [`DEFAULT_LABEL_SETS`]; an unoptimised one takes more. Bytes.
pub const PROCESS_BYTES: u64 = 14 << 20;
/// What an allocator keeps beside what is in use, and what is in use for a moment: with an eighth, floods passed the limit by
/// up to 1.6 % between two looks. Share of the rest: one of this many.
pub const SLACK_SHARE: u64 = 6;
/// The most that a queue takes that was not configured. Share of the rest: one of this many.
pub const QUEUE_SHARE: u64 = 8;
/// For bytes that came before their turn, and again for heads and exchanges that are not whole. Share of the
/// rest: one of this many.
pub const STORE_SHARE: u64 = 9;
/// What label sets of routes take beyond those that the process counts. Share of the rest: one of this many.
pub const LABELS_SHARE: u64 = 8;
/// What the watch over IPVS takes where there is IPVS. Share of the rest: one of this many.
pub const IPVS_SHARE: u64 = 8;
/// What is known of the cluster, where there is one: pods, Services, nodes, owners. Share of what is left to traffic before anything
/// else is taken of it: so many of a hundred. At the default 12 MiB, which hold 10,000 pods, 1,500 Deployments and 2,000 Services.
pub const CLUSTER_PERCENT: u64 = 40;
/// Pairs of workloads that metrics tell apart. Share of the same: one of this many.
pub const PAIRS_SHARE: u64 = 10;
/// Records that wait for the names of their ends, and answers that are remembered. Bytes.
pub const NAMES_BYTES: u64 = 4 << 20;
/// What it takes where IPVS came only after the start: what the process does not need of [`PROCESS_BYTES`]. Bytes.
pub const IPVS_LATER_BYTES: u64 = 512 << 10;
/// Kernel maps of the probes in IPVS: the ring of decisions, the last SYNs, those under way, and what the kernel adds. Bytes.
pub const EXACT_BYTES: u64 = 5 << 19;
/// Where IPVS came only after the start, nothing was set aside for them: they are taken of the slack, if that is so many times as
/// large.
pub const EXACT_SLACK: u64 = 2;
/// What a sink takes beside its queue: copies of parts that are sent again, compressed ones, connections. Bytes.
pub const SINK_BYTES: u64 = 3 << 20;
/// What a socket end costs in the kernel's state table: key, state, and the table's own (kernel/bpf/hashtab.c). Bytes.
pub const KERNEL_CONNECTION_BYTES: u64 = 192;
/// What a verdict costs likewise. Bytes.
pub const KERNEL_VERDICT_BYTES: u64 = 152;
/// Socket ends that the kernel has room for, of a hundred connections: handshakes that nothing answered, and what its lists
/// of each CPU keep free (kernel/bpf/bpf_lru_list.c) are beside the connections.
pub const KERNEL_CONNECTIONS_PERCENT: u64 = 140;
/// Verdicts likewise: small exchanges need none for dozens of requests, and one that was forgotten is written anew.
pub const KERNEL_VERDICTS_PERCENT: u64 = 50;
/// Connections in the midst of messages, of a hundred: most are idle most of the time. What is open of one past it is told
/// at once.
pub const BUSY_PERCENT: u64 = 25;
/// SYNs that wait for their answer, ten seconds at most, for each connection: one of so many.
pub const HANDSHAKES_SHARE: u64 = 5;
/// The kernel's other maps: counters, control, sockets, its log. Bytes.
pub const KERNEL_OTHER_BYTES: u64 = 1 << 20;
/// Fewer connections than this are no observer.
pub const MIN_CONNECTIONS: u64 = 256;
/// More are of no use: as many as the kernel side can remember.
pub const MAX_CONNECTIONS: u64 = reassembly::config::DEFAULT_MAX_CONNECTIONS as u64;

/// Whether IPVS is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipvs {
    /// No.
    Never,
    /// Should it come.
    Later,
    /// It is there.
    Present,
}

/// What memory is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// All there is. Bytes.
    pub memory: u64,
    /// All rings. Bytes.
    pub rings: u64,
    /// The output's queue, and whether somebody chose it. Bytes.
    pub output_queue: (u64, bool),
    /// Those of further sinks.
    pub sink_queues: Vec<(u64, bool)>,
    /// Packets on their way to a file. Bytes.
    pub packets: u64,
    /// Whether IPVS is watched.
    pub ipvs: Ipvs,
    /// The kernel's decisions are to be followed where there is IPVS.
    pub exact: bool,
    /// Metrics have routes as a label.
    pub routes: bool,
    /// There is a cluster whose names are asked for.
    pub cluster: bool,
}

/// What each may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Connections that reassembly and the HTTP stage follow at once.
    pub connections: u64,
    /// Connections in the midst of messages.
    pub busy: u64,
    /// SYNs that nothing answered.
    pub handshakes: u64,
    /// Ended connections that are still recognised.
    pub lingering: u64,
    /// Socket ends that the kernel remembers.
    pub kernel_connections: u64,
    /// Verdicts that it holds.
    pub kernel_verdicts: u64,
    /// Bytes that came before their turn.
    pub held: u64,
    /// Bytes of heads, bodies' first bytes and exchanges that are not whole.
    pub kept: u64,
    /// The output's queue. Bytes.
    pub output_queue: u64,
    /// Those of further sinks. Bytes each.
    pub sink_queues: Vec<u64>,
    /// Sets of labels in the metrics.
    pub label_sets: u64,
    /// What is known of the cluster. Bytes.
    pub cluster: u64,
    /// Pairs of workloads in the metrics.
    pub pairs: u64,
    /// The watch over IPVS. Bytes.
    pub ipvs: u64,
    /// There is room for what follows the kernel's decisions.
    pub exact: bool,
}

/// The budget is too small to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.memory: {given} bytes are too few: rings take {rings}, queues {queues}, the program itself the rest of {least}; \
     give it at least {least}, or lower capture.ring_bytes or a queue_bytes"
)]
pub struct TooSmall {
    given: u64,
    rings: u64,
    queues: u64,
    /// What would do. Bytes.
    pub least: u64,
}

/// Divides.
///
/// # Errors
/// It is too small for the least of everything.
pub fn split(wanted: &Wanted) -> Result<Shares, TooSmall> {
    // Polling does without them.
    let without = &Wanted { exact: false, ..wanted.clone() };
    fitting(wanted).or_else(|too_small| if wanted.exact { fitting(without) } else { Err(too_small) })
}

fn fitting(wanted: &Wanted) -> Result<Shares, TooSmall> {
    shares(wanted).filter(|shares| shares.connections >= MIN_CONNECTIONS).ok_or_else(|| {
        let fixed = fixed(wanted);
        let enough = |rest: &u64| {
            let more = Wanted { memory: fixed + rest, ..wanted.clone() };
            shares(&more).is_some_and(|shares| shares.connections >= MIN_CONNECTIONS)
        };
        // In steps that a person would write.
        let least = (1..).map(|step| step * (256 << 10)).find(enough).unwrap_or_default();
        let queues = chosen(wanted);
        TooSmall {
            given: wanted.memory,
            rings: wanted.rings,
            queues,
            least: (fixed + least).next_multiple_of(1 << 20),
        }
    })
}

/// What is taken whatever the traffic is.
fn fixed(wanted: &Wanted) -> u64 {
    let sinks = wanted.sink_queues.len() as u64 * SINK_BYTES;
    let exact = if wanted.exact && wanted.ipvs == Ipvs::Present { EXACT_BYTES } else { 0 };
    let names = if wanted.cluster { NAMES_BYTES + BEHIND_BYTES } else { 0 };
    exact
        + names
        + PROCESS_BYTES
        + wanted.rings
        + KERNEL_OTHER_BYTES
        + sinks
        + wanted.packets
        + chosen(wanted)
}

/// The queues that somebody chose.
fn chosen(wanted: &Wanted) -> u64 {
    let queues = wanted.sink_queues.iter().chain([&wanted.output_queue]);
    queues.filter(|(_, chosen)| *chosen).map(|(bytes, _)| bytes).sum()
}

fn shares(wanted: &Wanted) -> Option<Shares> {
    let rest = wanted.memory.checked_sub(fixed(wanted))?;
    let (cluster, pairs) = if wanted.cluster {
        let pairs = (rest / PAIRS_SHARE / PAIR_BYTES).min(MAX_PAIRS as u64);
        ((rest * CLUSTER_PERCENT / 100).min(DEFAULT_MAX_BYTES as u64), pairs)
    } else {
        (0, 0)
    };
    let rest = rest - cluster - pairs * PAIR_BYTES;
    // However many they are, together they take no more than two would.
    let share = rest / QUEUE_SHARE.max((1 + wanted.sink_queues.len() as u64) * QUEUE_SHARE / 2);
    let queue = |(bytes, chosen): (u64, bool)| if chosen { bytes } else { bytes.min(share) };
    let output_queue = queue(wanted.output_queue);
    let sink_queues: Vec<_> = wanted.sink_queues.iter().copied().map(queue).collect();
    let left_over = |(bytes, chosen): &(u64, bool)| if *chosen { 0 } else { *bytes.min(&share) };
    let queues: u64 = wanted.sink_queues.iter().chain([&wanted.output_queue]).map(left_over).sum();
    let store = rest / STORE_SHARE;
    let held = store.min(reassembly::config::DEFAULT_MAX_TOTAL_HELD_BYTES as u64);
    let kept = store.min(http::DEFAULT_MAX_KEPT as u64);
    let most_labels = (MAX_LABEL_SETS - DEFAULT_LABEL_SETS) as u64;
    let labels = if wanted.routes { (rest / LABELS_SHARE / LABEL_SET_BYTES).min(most_labels) } else { 0 };
    let of_rest = if wanted.ipvs == Ipvs::Present { rest / IPVS_SHARE } else { 0 };
    let ipvs = if wanted.ipvs == Ipvs::Later { IPVS_LATER_BYTES } else { of_rest };
    let tables = rest - rest / SLACK_SHARE - queues - held - kept - labels * LABEL_SET_BYTES - of_rest;
    let connections = most_connections(tables)?;
    Some(Shares {
        connections,
        busy: busy(connections),
        handshakes: connections / HANDSHAKES_SHARE,
        lingering: connections / 4,
        kernel_connections: kernel_connections(connections),
        kernel_verdicts: kernel_verdicts(connections),
        held,
        kept,
        output_queue,
        sink_queues,
        label_sets: DEFAULT_LABEL_SETS as u64 + labels,
        cluster,
        pairs,
        ipvs,
        exact: wanted.exact
            && match wanted.ipvs {
                Ipvs::Never => false,
                Ipvs::Later => rest / SLACK_SHARE >= EXACT_SLACK * EXACT_BYTES,
                Ipvs::Present => true,
            },
    })
}

/// The most connections whose tables take no more than `bytes`.
fn most_connections(bytes: u64) -> Option<u64> {
    let (mut fits, mut does_not) = (0, MAX_CONNECTIONS + 1);
    while does_not - fits > 1 {
        let middle = fits.midpoint(does_not);
        if tables(middle) <= bytes { fits = middle } else { does_not = middle }
    }
    (fits > 0).then_some(fits)
}

/// Connections in the midst of messages; those that stay warm are among them.
fn busy(connections: u64) -> u64 {
    (connections * BUSY_PERCENT / 100).max(MIN_CONNECTIONS)
}

const fn kernel_connections(connections: u64) -> u64 {
    connections * KERNEL_CONNECTIONS_PERCENT / 100
}

const fn kernel_verdicts(connections: u64) -> u64 {
    connections * KERNEL_VERDICTS_PERCENT / 100
}

/// What `connections` cost in all tables of kernel and process.
fn tables(connections: u64) -> u64 {
    let user =
        reassembly::config::bytes_of_tables(connections, connections / HANDSHAKES_SHARE, connections / 4)
            + http::bytes_of_tables(connections)
            + busy(connections) * http::BYTES_OF_BUSY as u64;
    let kernel = kernel_connections(connections) * KERNEL_CONNECTION_BYTES
        + kernel_verdicts(connections) * KERNEL_VERDICT_BYTES;
    user + kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn wanted(memory: u64, rings: u64) -> Wanted {
        Wanted {
            memory,
            rings,
            output_queue: (8 * MIB, false),
            sink_queues: Vec::new(),
            packets: 0,
            ipvs: Ipvs::Later,
            exact: true,
            routes: false,
            cluster: false,
        }
    }

    /// Everything at its bound at once.
    fn total(wanted: &Wanted, shares: &Shares) -> u64 {
        let queues = shares.output_queue + shares.sink_queues.iter().sum::<u64>();
        let labels = (shares.label_sets - DEFAULT_LABEL_SETS as u64) * LABEL_SET_BYTES;
        let wanted = &Wanted { exact: shares.exact, ..wanted.clone() };
        fixed(wanted) - chosen(wanted)
            + queues
            + shares.held
            + shares.kept
            + labels
            + shares.cluster
            + shares.pairs * PAIR_BYTES
            + if wanted.ipvs == Ipvs::Present { shares.ipvs } else { 0 }
            + tables(shares.connections)
    }

    #[test]
    fn routes_have_as_many_labels_as_there_is_memory_for() {
        let sets = |memory: u64, routes| {
            split(&Wanted { routes, ..wanted(memory, 16 * MIB) }).unwrap().label_sets as usize
        };
        let default = crate::restraint::DEFAULT_MEMORY;
        assert_eq!(sets(default, false), DEFAULT_LABEL_SETS);
        let rest = default - fixed(&wanted(default, 16 * MIB));
        let expected = DEFAULT_LABEL_SETS as u64 + rest / LABELS_SHARE / LABEL_SET_BYTES;
        assert_eq!(sets(default, true) as u64, expected);
        assert!(expected > 300, "{expected}");
        assert_eq!(sets(1 << 40, true), MAX_LABEL_SETS);
    }

    #[test]
    fn all_shares_together_are_within_the_budget() {
        for memory in [24, 32, 48, 64, 100, 128, 512, 4096] {
            for rings in [256 << 10, MIB, 4 * MIB, 16 * MIB, 64 * MIB] {
                for sink_queues in [vec![], vec![(8 * MIB, false)], vec![(3 * MIB, true), (8 * MIB, false)]] {
                    let routes = memory % 3 == 0;
                    let ipvs = if memory % 16 == 0 { Ipvs::Present } else { Ipvs::Never };
                    let cluster = memory % 5 != 0;
                    let wanted = Wanted { sink_queues, routes, ipvs, cluster, ..wanted(memory * MIB, rings) };
                    let Ok(shares) = split(&wanted) else { continue };
                    assert!(total(&wanted, &shares) <= wanted.memory, "{wanted:?} {shares:?}");
                    assert!(shares.connections >= MIN_CONNECTIONS && shares.connections <= MAX_CONNECTIONS);
                }
            }
        }
    }

    #[test]
    fn the_default_is_enough_for_thousands_of_connections() {
        let shares = split(&wanted(crate::restraint::DEFAULT_MEMORY, 16 * MIB)).unwrap();
        assert!(shares.connections >= 12_800, "{shares:?}");
        assert!(shares.output_queue >= 4 * MIB, "{shares:?}");
        assert!(shares.kept >= 16 * http::DEFAULT_MAX_HEAD as u64, "{shares:?}");
    }

    #[test]
    fn a_cluster_has_its_part_only_where_there_is_one() {
        let of = |memory, cluster| split(&Wanted { cluster, ..wanted(memory, 16 * MIB) }).unwrap();
        let default = crate::restraint::DEFAULT_MEMORY;
        let without = of(default, false);
        assert_eq!((without.cluster, without.pairs), (0, 0));
        let with = of(default, true);
        let rest = default - fixed(&Wanted { cluster: true, ..wanted(default, 16 * MIB) });
        assert_eq!(with.cluster, rest * CLUSTER_PERCENT / 100);
        assert_eq!(with.pairs, rest / PAIRS_SHARE / PAIR_BYTES);
        // What 10,000 pods and what is around them take, see the pipeline tier's test of a large cluster.
        assert!(with.cluster >= 23 * MIB / 2 && with.pairs >= 200, "{with:?}");
        assert!(with.connections >= 4_900, "{with:?}");
        let with_ipvs = Wanted { cluster: true, ipvs: Ipvs::Present, ..wanted(default, 16 * MIB) };
        assert!(split(&with_ipvs).is_ok_and(|shares| shares.exact));
        let large = of(1 << 40, true);
        assert_eq!((large.cluster, large.pairs), (DEFAULT_MAX_BYTES as u64, MAX_PAIRS as u64));
        const { assert!(NAMES_BYTES > crate::named::DEFAULT_MAX_WAITING_BYTES as u64) };
    }

    #[test]
    fn more_memory_is_more_of_everything() {
        let mut last = 0;
        for memory in [32, 64, 128, 256] {
            let shares = split(&wanted(memory * MIB, MIB)).unwrap();
            assert!(shares.connections > last, "{memory} {shares:?}");
            last = shares.connections;
        }
        assert_eq!(split(&wanted(1 << 40, MIB)).unwrap().connections, MAX_CONNECTIONS);
    }

    #[test]
    fn too_small_says_what_would_do() {
        for (memory, rings) in [(0, 16 * MIB), (MIB, MIB), (64 * MIB, 64 * MIB)] {
            let error = split(&wanted(memory, rings)).unwrap_err();
            assert!(error.least > memory, "{error}");
            assert!(split(&wanted(error.least, rings)).is_ok(), "{error}");
            assert!(split(&wanted(error.least - 2 * MIB, rings)).is_err(), "{error}");
            let text = error.to_string();
            assert!(text.starts_with("limits.memory: ") && text.contains(&error.least.to_string()), "{text}");
        }
    }

    #[test]
    fn what_was_chosen_is_kept() {
        let chosen = Wanted { output_queue: (20 * MIB, true), ..wanted(64 * MIB, MIB) };
        assert_eq!(split(&chosen).unwrap().output_queue, 20 * MIB);
        let chosen = Wanted { output_queue: (256 * MIB, true), ..wanted(64 * MIB, MIB) };
        assert!(split(&chosen).is_err());
    }

    #[test]
    fn ipvs_has_its_part_only_where_it_is() {
        let of = |ipvs| split(&Wanted { ipvs, ..wanted(64 * MIB, 16 * MIB) }).unwrap();
        let rest = 64 * MIB - fixed(&wanted(64 * MIB, 16 * MIB));
        assert_eq!([Ipvs::Never, Ipvs::Later].map(|ipvs| of(ipvs).ipvs), [0, IPVS_LATER_BYTES]);
        assert_eq!(of(Ipvs::Later).connections, of(Ipvs::Never).connections);
        assert_eq!(of(Ipvs::Present).ipvs, (rest - EXACT_BYTES) / IPVS_SHARE);
        assert!(of(Ipvs::Present).connections < of(Ipvs::Never).connections);
        const { assert!(IPVS_LATER_BYTES < 2 << 20, "the process needs 12 MiB of its 14") };
    }

    #[test]
    fn decisions_are_followed_where_there_is_room_for_it() {
        for (ipvs, memory, exact, expected) in [
            (Ipvs::Never, 64, true, false),
            (Ipvs::Present, 64, true, true),
            (Ipvs::Present, 64, false, false),
            (Ipvs::Later, 64, true, true),
            (Ipvs::Later, 64, false, false),
            // Too little for the slack, and then for the maps themselves.
            (Ipvs::Later, 48, true, false),
            (Ipvs::Present, 48, true, true),
            (Ipvs::Present, 36, true, false),
        ] {
            let wanted = Wanted { ipvs, exact, ..wanted(memory * MIB, 16 * MIB) };
            let shares = split(&wanted).unwrap();
            assert_eq!(shares.exact, expected, "{wanted:?}");
            let without = split(&Wanted { exact: false, ..wanted.clone() }).unwrap();
            let takes = without.connections - shares.connections;
            assert_eq!(takes > 0, expected && ipvs == Ipvs::Present, "{wanted:?} {takes}");
        }
    }

    #[test]
    fn packets_that_are_written_take_their_part() {
        let with = |packets| split(&Wanted { packets, ..wanted(64 * MIB, 16 * MIB) }).unwrap().connections;
        assert!(with(8 * MIB) < with(0));
        assert!(split(&Wanted { packets: 40 * MIB, ..wanted(64 * MIB, 16 * MIB) }).is_err());
    }

    #[test]
    fn each_share_is_a_part_of_the_rest() {
        let wanted = wanted(64 * MIB, 16 * MIB);
        let rest = wanted.memory - fixed(&wanted);
        let shares = split(&wanted).unwrap();
        assert_eq!((shares.held, shares.kept), (rest / STORE_SHARE, rest / STORE_SHARE));
        assert_eq!(shares.output_queue, rest / QUEUE_SHARE);
        let taken = rest / SLACK_SHARE + rest / QUEUE_SHARE + 2 * (rest / STORE_SHARE);
        assert!(tables(shares.connections + 1) > rest - taken);
        let kernel = shares.kernel_connections * KERNEL_CONNECTION_BYTES
            + shares.kernel_verdicts * KERNEL_VERDICT_BYTES;
        assert!(kernel < tables(shares.connections));
        let sum = PROCESS_BYTES + KERNEL_OTHER_BYTES + SINK_BYTES + wanted.rings;
        assert_eq!(fixed(&Wanted { sink_queues: vec![(MIB, false)], ..wanted }), sum);
    }
}
