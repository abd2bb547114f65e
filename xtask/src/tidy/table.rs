//! The rules, as tables: what is written here is what holds. How they are checked is in the files beside.

/// Most lines of a file that are not tests; over it, split the file.
pub(super) const MAX_FILE_LINES: usize = 500;
/// Most lines of a function.
pub(super) const MAX_FUNCTION_LINES: usize = 70;
/// Most lines of a program's `main.rs`: it shows the life of the process on one screen.
pub(super) const MAX_MAIN_LINES: usize = 100;

/// Words that files may not hold.
pub(super) struct Forbidden {
    /// Files or folders it holds for.
    pub(super) places: &'static [&'static str],
    /// Files or folders among them that it does not hold for.
    pub(super) except: &'static [&'static str],
    pub(super) words: &'static [&'static str],
    pub(super) whose: Whose,
    pub(super) why: &'static str,
}

/// Which lines a rule is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// All code.
    All,
    /// Code that is not a test.
    Product,
    /// Code that is a test.
    Tests,
}

/// Stages that are functions of their input: tested, fuzzed and measured without a kernel.
const PURE: &[&str] = &[
    "pod2pod-common/",
    "pod2pod-user/src/capture/decode",
    "pod2pod-user/src/capture/packet",
    "pod2pod-user/src/capture/segment",
    "pod2pod-user/src/reassembly/",
    "pod2pod-user/src/filter/",
    "pod2pod-user/src/http/",
    "pod2pod-user/src/ipvs/",
    "pod2pod-user/src/kubernetes/",
    "pod2pod-user/src/enrich/",
    "pod2pod-user/src/record",
    "pod2pod-user/src/route",
    "pod2pod-user/src/delivery/backoff",
    "pod2pod-user/src/delivery/circuit",
    "pod2pod-user/src/delivery/concurrency",
    "pod2pod-user/src/delivery/latency",
    "pod2pod-user/src/delivery/parcel",
    "pod2pod-user/src/delivery/spool/entry",
    "pod2pod-user/src/delivery/stats",
    "pod2pod-user/src/pcap/block",
    "pod2pod-user/src/pcap/comment",
    "pod2pod-user/src/pcap/cover",
    "pod2pod-user/src/pcap/hold",
    "pod2pod-user/src/pcap/packet",
];

pub(super) const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        places: PURE,
        // The map types' marker is aya's.
        except: &["pod2pod-common/src/pod.rs", "pod2pod-common/src/lib.rs"],
        words: &["async", "tokio", "aya", "kube", "hyper"],
        whose: Whose::Product,
        why: "a pure stage knows no runtime and no kernel",
    },
    Forbidden {
        places: PURE,
        except: &[],
        words: &[
            "std::fs",
            "std::env",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "std::process",
        ],
        whose: Whose::Product,
        why: "a pure stage reads and writes nothing",
    },
    Forbidden {
        places: PURE,
        except: &[],
        words: &["Instant::now", "SystemTime::now", "thread::sleep"],
        whose: Whose::Product,
        why: "a pure stage has no clock; `now` is an argument",
    },
    Forbidden {
        places: PURE,
        except: &[],
        words: &["Mutex", "RwLock", "AtomicU64", "prometheus", "tracing", "log::"],
        whose: Whose::Product,
        why: "a pure stage owns its state and keeps plain counters",
    },
    Forbidden {
        places: &["pod2pod-user/src/"],
        except: &["pod2pod-user/src/record", "pod2pod-user/src/sinks/"],
        words: &["Serialize", "Serializer"],
        whose: Whose::Product,
        why: "only the record is serialised, and a target's own wire form in its sink",
    },
    Forbidden {
        places: &[""],
        except: UNSAFE,
        words: &["unsafe"],
        whose: Whose::All,
        why: "unsafe code lives in the files that xtask/src/tidy/table.rs lists",
    },
    Forbidden {
        places: &[""],
        except: &[],
        words: &["#[ignore", "should_panic", "todo!", "unimplemented!", "#![allow", "#[allow"],
        whose: Whose::All,
        why: "a test runs and asserts, code is finished, a lint is expected on one item with a reason",
    },
    Forbidden {
        places: &[""],
        except: SLEEP,
        words: &["thread::sleep", "time::sleep"],
        whose: Whose::Tests,
        why: "a test waits for a condition with a deadline, through tests/support",
    },
];

/// Files that may hold `unsafe`, each with what needs it.
pub(super) const UNSAFE: &[&str] = &[
    // Calls of instructions that every processor of the architecture has.
    "pod2pod-user/src/http/lanes.rs",
    // Reads of packet memory, helper calls, map memory.
    "pod2pod-ebpf/src/",
    // Asks the C library for its unused memory.
    "pod2pod-user/src/restraint/allocator.rs",
    // A number through memory, in which the verifier loses it.
    "pod2pod-common/src/blur.rs",
    // `aya::Pod` for types without padding.
    "pod2pod-common/src/pod.rs",
    // Calls into libpcap.
    "pod2pod-user/src/filter/expression/library.rs",
    // Calls into librdkafka, and what it calls.
    "pod2pod-user/src/sinks/kafka/library.rs",
    // A system call that writes to memory that it is given.
    "pod2pod-user/src/capture/kernel/batch.rs",
    // A system call that writes a number: bytes that a peer has not acknowledged.
    "pod2pod-user/src/sinks/unacknowledged.rs",
    // The memory that the kernel writes records to: atomics and slices in a mapping.
    "pod2pod-user/src/capture/kernel/ring.rs",
];

/// Files of tests that may sleep: between two looks at a condition, or to be slow on purpose.
const SLEEP: &[&str] = &[
    "tests/support/src/",
    "tests/demo/",
    "tests/bench/",
    // Waits for programs, and chooses the timing of a capture at random.
    "tests/opinion/programs.rs",
    "tests/opinion/stage.rs",
];

/// Words that comments may not hold.
pub(super) const FORBIDDEN_COMMENTS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// A module of pod2pod-user and the top modules it may import, its own apart.
pub(super) struct Layer {
    /// A path below `src`; the longest one that fits holds.
    pub(super) module: &'static str,
    pub(super) may_import: &'static [&'static str],
}

/// Lowest first. A module that is not here may import everything: it is wiring.
pub(super) const LAYERS: &[Layer] = &[
    Layer { module: "kubernetes", may_import: &[] },
    // Who an end is, is a word of records, metrics and filters.
    Layer { module: "record", may_import: &["kubernetes"] },
    Layer { module: "capture", may_import: &[] },
    Layer { module: "netlink", may_import: &[] },
    // Verdicts for the kernel are about connections as reassembly knows them; decisions of IPVS are told as `ipvs` has them.
    Layer { module: "capture/kernel", may_import: &["finding", "ipvs", "netlink", "reassembly", "rights"] },
    Layer { module: "reassembly", may_import: &["capture"] },
    Layer { module: "filter", may_import: &["capture", "kubernetes", "reassembly"] },
    Layer { module: "http", may_import: &["capture", "reassembly"] },
    Layer {
        module: "enrich",
        may_import: &["capture", "reassembly", "http", "ipvs", "kubernetes", "record"],
    },
    // A service is chosen as a filter's networks are.
    Layer { module: "ipvs", may_import: &["filter", "netlink"] },
    // Its connections are our own, as a sink's are.
    Layer {
        module: "kubernetes_api",
        may_import: &["finding", "kubernetes", "mode", "restraint", "rights", "shutdown", "sinks"],
    },
    Layer { module: "route", may_import: &["enrich", "nearest", "record"] },
    Layer { module: "nearest", may_import: &[] },
    // Knows no protocol.
    Layer { module: "delivery", may_import: &["record", "urgency"] },
    Layer { module: "sinks", may_import: &["delivery", "record", "rights", "route", "secrets", "shutdown"] },
    // Beside the stages: sees what they make of a segment's bytes, and shares the sinks' queue.
    Layer {
        module: "pcap",
        may_import: &[
            "capture",
            "reassembly",
            "http",
            "enrich",
            "record",
            "rights",
            "delivery",
            "shutdown",
            "exit",
        ],
    },
    Layer { module: "finding", may_import: &[] },
    Layer { module: "mode", may_import: &[] },
    Layer { module: "rights", may_import: &[] },
    Layer { module: "shutdown", may_import: &["rights"] },
    Layer { module: "urgency", may_import: &[] },
    Layer { module: "logging", may_import: &[] },
];

/// Where program and map names are, and who else may spell them.
pub(super) const NAMES: &str = "pod2pod-common/src/names.rs";

/// Where limits are looked for: every one of them is named by a test.
pub(super) const LIMITS: &[&str] = &["pod2pod-common/src/", "pod2pod-user/src/"];
