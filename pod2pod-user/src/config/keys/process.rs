//! Keys of what is beside the records: the sections `limits`, `metrics` and `log`.

use std::net::SocketAddr;

use tracing_subscriber::filter::LevelFilter;

use super::{BYTES, Key, put};
use crate::{admin::Listen, logging, metrics::routes};

const LISTEN: &str = "an address and port such as 127.0.0.1:9464, or off";
const CORES: &str = "a number of cores such as 0.2, a percentage of one core, or off";

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "limits.memory",
        allowed: BYTES,
        default: "64MiB",
        sentence: "What the agent may take: its own memory, each ring once, and its kernel maps. Tables and queues get their shares of it.",
        set: |config, given| put(&mut config.limits.memory, given.bytes().filter(|bytes| *bytes > 0)),
    },
    Key {
        path: "limits.cpu",
        allowed: CORES,
        default: "off",
        sentence: "Processor time that the agent may take on average; past it bodies, then headers, then new connections are left out, and counted.",
        set: |config, given| put(&mut config.limits.cpu, given.millicores()),
    },
    Key {
        path: "metrics.listen",
        allowed: LISTEN,
        default: "127.0.0.1:9464",
        sentence: "Where /metrics, /live and /ready are served; replay serves them only if this is given.",
        set: |config, given| {
            config.metrics.listen = match given.text()? {
                "off" | "false" => Listen::Off,
                text => Listen::At(text.parse::<SocketAddr>().ok()?),
            };
            Some(())
        },
    },
    Key {
        path: "metrics.routes",
        allowed: routes::ALLOWED,
        default: "off",
        sentence: "Routes as the label `http_route` of the HTTP metrics: the first template that matches the path; `auto` learns the rest from the paths.",
        set: |config, given| put(&mut config.routes, routes::Config::read(&given.items())),
    },
    Key {
        path: "log.level",
        allowed: "off, error, warn, info, debug, trace",
        default: "warn",
        sentence: "Least severe log level that is written to standard error.",
        set: |config, given| {
            let level = given.text().map(|text| if text == "false" { "off" } else { text })?;
            let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
            put(&mut config.log.level, level.parse().ok().filter(|_: &LevelFilter| known))
        },
    },
    Key {
        path: "log.format",
        allowed: "text, json",
        default: "text",
        sentence: "How log lines look.",
        set: |config, given| {
            config.log.format = match given.text()? {
                "text" => logging::Format::Text,
                "json" => logging::Format::Json,
                _ => return None,
            };
            Some(())
        },
    },
];
