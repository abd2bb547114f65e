//! What the agent serves, and where.

use std::sync::Arc;

use crate::{
    admin::{self, Health, Shown},
    config::{Config, shown},
    metrics::Metrics,
    sinks::{OwnConnections, Tail},
};

/// Starts the listeners.
///
/// # Errors
/// As of [`admin::start`].
pub(super) fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    (own, tail): (&Arc<OwnConnections>, &Arc<Tail>),
) -> Result<(), admin::StartError> {
    let (metrics, health, tail) = (Arc::clone(metrics), Arc::clone(health), Arc::clone(tail));
    let shown = Shown { metrics, health, settings: shown::page(config), tail };
    let listen = config.metrics.listen.or(admin::DEFAULT_LISTEN);
    let settings = (&config.admin, config.admin.listen.or(admin::DEFAULT_ADMIN_LISTEN));
    admin::start(listen, settings, shown, Arc::clone(own))
}
