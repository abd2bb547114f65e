//! Where a test plays: a world, with somebody in each of its pods.

use std::path::Path;

use support::world::World;

pub(crate) use super::place::{Place, party, prepare};
use crate::machine;

/// Begins the names of the tests' cgroups.
const CGROUP_PREFIX: &str = "pod2pod-test";

/// A world, with somebody in each pod. What is first here is dropped first: a cgroup is removed when it is empty.
pub(crate) struct Stage {
    pub(crate) client: Place,
    pub(crate) server: Place,
    pub(crate) world: World,
}

impl Stage {
    pub(crate) fn new() -> Self {
        // Before anybody connects: who waits for the machine keeps nobody waiting for an answer.
        machine::share();
        let world = World::build(CGROUP_PREFIX).unwrap();
        let place = |name, namespace: &Path| Place::new(namespace, &world.cgroup.part(name).unwrap());
        let client = place("client", &world.client.path());
        let server = place("server", &world.server.path());
        Self { client, server, world }
    }
}
