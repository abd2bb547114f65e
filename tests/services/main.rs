//! The services tier: against real servers: of the Kubernetes API, etcd and kube-apiserver on loopback.

mod agent;
mod annotations;
mod apiserver;
mod behind;
mod check;
mod flavours;
mod following;
mod manifests;
#[path = "../kernel/exchanges/place.rs"]
#[expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]
mod place;
mod ready;
mod scale;
mod watchers;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take to become so.
const PATIENCE: Duration = support::process::PATIENCE;

/// Waits until it is so.
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not become so");
        thread::park_timeout(Duration::from_millis(20));
    }
}
