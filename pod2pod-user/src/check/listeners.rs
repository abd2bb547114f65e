//! Whether the ports that are to be listened on are free. Each is taken for a moment, and no longer.

use std::net::SocketAddr;

use crate::{
    admin::{ADMIN_KEY, DEFAULT_ADMIN_LISTEN, DEFAULT_LISTEN, Listen, METRICS_KEY, bind},
    config::Config,
    finding::Finding,
};

const CURE: &str =
    "end whoever listens there, or choose another address; an agent that runs already listens there too";

/// Of each listener.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    vec![
        one(METRICS_KEY, config.metrics.listen, DEFAULT_LISTEN),
        one(ADMIN_KEY, config.admin.listen, DEFAULT_ADMIN_LISTEN),
    ]
}

fn one(key: &'static str, listen: Listen, default: SocketAddr) -> Finding {
    let Some(address) = listen.or(default) else { return Finding::ok(key, "off") };
    match bind(key, address) {
        Ok(_) => Finding::ok(key, format!("{address} is free")),
        Err(error) => {
            let finding = Finding::missing(key, error.to_string());
            // Settings that nobody asked for are left out.
            if key == ADMIN_KEY && listen == Listen::Unsaid {
                finding.with("a free address", "settings are not served", CURE).limits()
            } else {
                finding.with("a free address", "the agent does not start", CURE)
            }
        }
    }
}
