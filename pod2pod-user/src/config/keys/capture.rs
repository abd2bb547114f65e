//! Keys of the section `capture`: where packets are met, and how they are read.

use pod2pod_common::limits::MAX_RINGS;

use super::{Key, SWITCH, put};
use crate::capture::kernel::{MAX_RING_BYTES, MIN_RING_BYTES, Pattern, ScopeChoice, SourceChoice, Workers};
use crate::pcap::{MAX_FILES, MIN_FILE_BYTES};

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "capture.source",
        allowed: "auto, cgroup, tc",
        default: "auto",
        sentence: "Where packets are met: at the sockets of a cgroup, or at network interfaces; auto is cgroup where its root can be attached to.",
        set: |config, given| {
            config.capture.source = match given.text()? {
                "auto" => SourceChoice::Auto,
                "cgroup" => SourceChoice::Cgroup,
                "tc" => SourceChoice::Tc,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "capture.interfaces",
        allowed: "a list of interface names and globs; veth is every host-side veth",
        default: "",
        sentence: "Interfaces to watch; without it tc watches the host-side veths, and the network cards if there is no veth.",
        set: |config, given| {
            let patterns: Option<Vec<_>> = given.items().iter().map(|text| Pattern::parse(text)).collect();
            put(&mut config.capture.interfaces, patterns)
        },
    },
    Key {
        path: "capture.cgroup",
        allowed: "a path below the cgroup v2 mount",
        default: "",
        sentence: "Watches this cgroup and those below it instead of the whole machine.",
        set: |config, given| {
            config.capture.cgroup = Some(given.text().filter(|path| !path.is_empty())?.into());
            Some(())
        },
    },
    Key {
        path: "capture.workers",
        allowed: "auto, or a number from 1 to 16",
        default: "auto",
        sentence: "Threads that read, each its own ring and its own connections; auto is one for each eight CPUs, at most four, whose rings take at most a third of limits.memory.",
        set: |config, given| {
            config.capture.workers = match given.text()? {
                "auto" => Workers::Auto,
                number => {
                    let number = number.parse().ok().filter(|number| (1..=MAX_RINGS).contains(number))?;
                    Workers::Exactly(number)
                }
            };
            Some(())
        },
    },
    Key {
        path: "capture.ring_bytes",
        allowed: "a power of two from 256KiB to 1GiB",
        default: "16MiB",
        sentence: "Ring buffer between kernel and agent, one for each worker.",
        set: |config, given| {
            let bytes = u32::try_from(given.bytes()?).ok().filter(|bytes| bytes.is_power_of_two());
            put(
                &mut config.capture.ring_bytes,
                bytes.filter(|bytes| (MIN_RING_BYTES..=MAX_RING_BYTES).contains(bytes)),
            )
        },
    },
    Key {
        path: "capture.scope",
        allowed: "auto, cgroup, cookie",
        default: "auto",
        sentence: "What tells containers with the same addresses apart: cgroup ids, or socket cookies where those do not.",
        set: |config, given| {
            config.capture.scope = match given.text()? {
                "auto" => ScopeChoice::Auto,
                "cgroup" => ScopeChoice::Cgroup,
                "cookie" => ScopeChoice::Cookie,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "capture.debug_log",
        allowed: SWITCH,
        default: "off",
        sentence: "Lets the kernel side log, at debug level.",
        set: |config, given| put(&mut config.capture.debug_log, given.switch()),
    },
    Key {
        path: "capture.write_pcap.file",
        allowed: "a path",
        default: "",
        sentence: "Also writes what was captured to this pcapng file, without what redaction takes out; older ones are FILE.1, FILE.2 and so on.",
        set: |config, given| {
            config.pcap.file = Some(given.text().filter(|path| !path.is_empty())?.into());
            Some(())
        },
    },
    Key {
        path: "capture.write_pcap.max_file_bytes",
        allowed: "a size from 256KiB",
        default: "64MiB",
        sentence: "Bytes of one such file at most; then the next one is begun.",
        set: |config, given| {
            put(&mut config.pcap.max_file_bytes, given.bytes().filter(|bytes| *bytes >= MIN_FILE_BYTES))
        },
    },
    Key {
        path: "capture.write_pcap.max_files",
        allowed: "a number from 1 to 1000",
        default: "4",
        sentence: "Such files at most; the oldest one is removed.",
        set: |config, given| {
            put(&mut config.pcap.max_files, given.integer().filter(|count| (1..=MAX_FILES).contains(count)))
        },
    },
];
