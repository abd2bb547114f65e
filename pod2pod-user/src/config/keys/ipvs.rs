//! Keys of the section `ipvs`: the watch over IPVS inside the agent.

use super::{Key, MODE, all, put};
use crate::{
    ipvs::selection::{ALLOWED, Pattern},
    watch::{
        config::Detector,
        options::{MAX_INTERVAL, MIN_INTERVAL},
    },
};

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "ipvs.mode",
        allowed: MODE,
        default: "auto",
        sentence: "Watches the kernel's IPVS table; auto is where there is one, also if it comes later. Agent only, as the whole section.",
        set: |config, given| put(&mut config.ipvs.mode, given.mode()),
    },
    Key {
        path: "ipvs.path",
        allowed: "a path",
        default: "",
        sentence: "The table of entries, `ip_vs` beside it; without it that of process 1, which is the host's, or else of the agent's own network namespace.",
        set: |config, given| put(&mut config.ipvs.path, given.path().map(Some)),
    },
    Key {
        path: "ipvs.interval",
        allowed: "a duration from 100ms to 1m",
        default: "5s",
        sentence: "From one poll of the table to the next; longer where reading would take over 5 % of the time.",
        set: |config, given| {
            let interval =
                given.duration().filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval));
            put(&mut config.ipvs.interval, interval)
        },
    },
    Key {
        path: "ipvs.detector",
        allowed: "auto, polling",
        default: "auto",
        sentence: "How connections that met an old entry are found: auto follows the kernel's decisions by eBPF where it can (exact mode), with polling beside it; polling does not.",
        set: |config, given| {
            config.ipvs.detector = match given.text()?.to_ascii_lowercase().as_str() {
                "auto" => Detector::Auto,
                "polling" => Detector::Polling,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "ipvs.services",
        allowed: ALLOWED,
        default: "",
        sentence: "Only entries of these virtual addresses; a list.",
        set: |config, given| put(&mut config.ipvs.services, all(given, Pattern::parse)),
    },
];
