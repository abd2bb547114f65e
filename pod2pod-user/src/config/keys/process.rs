//! Keys of what is beside the records: `data_dir`, and the sections `limits`, `metrics`, `admin`, `tail` and `log`.

use std::{net::SocketAddr, path::PathBuf};

use tracing_subscriber::filter::LevelFilter;

use super::{
    BYTES, DURATION, Key, positive, put,
    records::{BODY, body, headers},
};
use crate::{admin::Listen, config::value::Given, enrich::redact, logging, metrics::routes};

const LISTEN: &str = "an address and port such as 127.0.0.1:9464, or off";
const ADMIN_LISTEN: &str = "an address and port such as 127.0.0.1:9465, or off";
const PATH: &str = "a path";
const CORES: &str = "a number of cores such as 0.2, a percentage of one core, or off";

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "data_dir",
        allowed: PATH,
        default: "",
        sentence: "Directory of what the next agent on this node has to know: until when this one watched, so that the time in between is counted. Agent only.",
        set: |config, given| put(&mut config.data_dir, path(given)),
    },
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
        set: |config, given| put(&mut config.metrics.listen, listen(given)),
    },
    Key {
        path: "metrics.routes",
        allowed: routes::ALLOWED,
        default: "off",
        sentence: "Routes as the label `http_route` of the HTTP metrics: the first template that matches the path; `auto` learns the rest from the paths.",
        set: |config, given| put(&mut config.routes, routes::Config::read(&given.items())),
    },
    Key {
        path: "admin.listen",
        allowed: ADMIN_LISTEN,
        default: "127.0.0.1:9465",
        sentence: "Where /config and /tail are served: the effective settings, without secrets, and records as they come. Elsewhere than on loopback it needs TLS and a token; replay serves it only if this is given.",
        set: |config, given| put(&mut config.admin.listen, listen(given)),
    },
    Key {
        path: "tail.headers",
        allowed: "a list of header names, none of a credential",
        default: "",
        sentence: "Headers that `pod2pod tail --headers` may ask for beside those that records have anyway; records elsewhere do not have them.",
        set: |config, given| {
            headers(&mut config.tail.headers, given)?;
            let is_secret = |name: &String| redact::is_secret_header(name.as_bytes());
            (!config.tail.headers.iter().any(is_secret)).then_some(())
        },
    },
    Key {
        path: "tail.body_bytes",
        allowed: BODY,
        default: "0",
        sentence: "First bytes of each body that `pod2pod tail --bodies` may ask for at most.",
        set: |config, given| put(&mut config.tail.body_bytes, body(given)),
    },
    Key {
        path: "tail.time",
        allowed: DURATION,
        default: "10m",
        sentence: "How long headers and bodies may be asked for; then it ends by itself.",
        set: |config, given| put(&mut config.tail.time, positive(given)),
    },
    Key {
        path: "admin.tls_certificate",
        allowed: PATH,
        default: "",
        sentence: "Certificate chain of that listener, PEM; read again when it changes.",
        set: |config, given| put(&mut config.admin.tls_certificate, path(given)),
    },
    Key {
        path: "admin.tls_key",
        allowed: PATH,
        default: "",
        sentence: "Key of that certificate, PEM.",
        set: |config, given| put(&mut config.admin.tls_key, path(given)),
    },
    Key {
        path: "admin.token_file",
        allowed: PATH,
        default: "",
        sentence: "File with the token that is asked for there (Authorization: Bearer), 16 to 4096 characters; read again when it changes.",
        set: |config, given| put(&mut config.admin.token_file, path(given)),
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

fn listen(given: &Given) -> Option<Listen> {
    Some(match given.text()? {
        "off" | "false" => Listen::Off,
        text => Listen::At(text.parse::<SocketAddr>().ok()?),
    })
}

fn path(given: &Given) -> Option<Option<PathBuf>> {
    given.text().filter(|path| !path.is_empty()).map(|path| Some(path.into()))
}
