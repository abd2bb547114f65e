//! What is left of an agent in the kernel: nothing, however it ends.

use std::collections::BTreeSet;

use aya::programs::loaded_programs;

use super::{
    agent::{Agent, wait_until},
    stage::Stage,
};

/// Ids of all programs that the kernel holds.
pub(crate) fn loaded() -> BTreeSet<u32> {
    // One may go while it is looked at.
    loaded_programs().flatten().map(|program| program.id()).collect()
}

fn check_end(end: impl FnOnce(Agent)) {
    let stage = Stage::new();
    let agent = Agent::watch(&stage);
    let programs = agent.programs();
    assert!(programs.len() >= 2, "{programs:?}");
    assert!(programs.is_subset(&loaded()), "{programs:?}");
    end(agent);
    // The kernel frees them a moment later.
    wait_until("its programs are gone", || programs.is_disjoint(&loaded()));
}

#[test]
fn an_agent_that_ends_leaves_no_program() {
    check_end(|agent| {
        agent.end();
    });
}

#[test]
fn an_agent_that_is_killed_leaves_no_program() {
    check_end(drop);
}
