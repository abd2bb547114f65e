//! `pod2pod dead-letters`: what targets refused, and why; sends it again once that was put right.

use std::{path::Path, sync::Arc};

use crate::{
    config::Config,
    delivery::{DeadLetters, dead},
    exit,
    shutdown::Shutdown,
    sinks::{OwnConnections, SinkConfig, remote::DEFAULT_BATCH_RECORDS},
};

/// Attempts for each part of them, unless so many are configured: a person is waiting.
const SEND_ATTEMPTS: u32 = 4;

/// What is to be done with them.
#[derive(Clone, Debug)]
pub struct Asked {
    /// They are sent again, not shown.
    pub sends: bool,
    /// Those of this sink; of all if absent.
    pub sink: Option<String>,
}

/// Shows them, or sends them again; says how the program should exit.
pub fn run(config: &Config, asked: &Asked, shutdown: &Shutdown) -> u8 {
    let Some(data_dir) = &config.data_dir else {
        exit::tell("data_dir: dead letters are kept there; say where it is");
        return exit::CONFIGURATION;
    };
    let done = if asked.sends { send(config, data_dir, asked, shutdown) } else { show(data_dir, asked) };
    match done {
        Ok(code) => code,
        Err(error) => {
            exit::tell(format_args!("dead letters in {}: {error:#}", data_dir.display()));
            exit::FAILURE
        }
    }
}

/// As they were written: JSON lines, a sink's oldest first.
fn show(data_dir: &Path, asked: &Asked) -> anyhow::Result<u8> {
    let mut all = Vec::new();
    for sink in
        dead::sinks(data_dir)?.iter().filter(|sink| asked.sink.as_ref().is_none_or(|one| one == *sink))
    {
        all.extend(dead::read(data_dir, sink)?);
    }
    Ok(exit::print(&all))
}

fn send(config: &Config, data_dir: &Path, asked: &Asked, shutdown: &Shutdown) -> anyhow::Result<u8> {
    let wanted = |sink: &&SinkConfig| asked.sink.as_ref().is_none_or(|one| **one == *sink.common.name);
    let sinks: Vec<_> = config.sinks.iter().filter(wanted).collect();
    if sinks.is_empty() {
        exit::tell("sinks: dead letters are sent to the sinks that refused them; say which these are");
        return Ok(exit::CONFIGURATION);
    }
    let mut code = exit::OK;
    for sink in sinks {
        if !send_of(sink, data_dir, shutdown)? {
            code = exit::FAILURE;
        }
    }
    Ok(code)
}

/// Whether none are left of those of `sink`.
fn send_of(sink: &SinkConfig, data_dir: &Path, shutdown: &Shutdown) -> anyhow::Result<bool> {
    let mut sink = sink.clone();
    sink.common.limits.attempts.get_or_insert(SEND_ATTEMPTS);
    let name = &sink.common.name;
    let taken = dead::Taken::take(data_dir, name)?;
    let own = Arc::new(OwnConnections::default());
    let (mut sent, mut refused, mut dealt_with) = (0, 0, 0);
    for items in taken.items.chunks(DEFAULT_BATCH_RECORDS as usize) {
        if shutdown.is_requested() {
            break;
        }
        let dead = DeadLetters::of(data_dir, Arc::clone(name))?;
        let stats = sink.clone().send_again(Arc::clone(&own), dead, items)?;
        sent += stats.delivered;
        refused += stats.refused.iter().sum::<u64>();
        if stats.dropped_failed > 0 {
            // Some of these were taken, perhaps: nobody knows which.
            break;
        }
        dealt_with += items.len();
        taken.done(dealt_with)?;
    }
    if taken.items.is_empty() {
        taken.done(0)?;
    }
    let left = taken.items.len() - dealt_with;
    let broken =
        if taken.broken > 0 { format!(", {} lines were no letters", taken.broken) } else { String::new() };
    exit::tell(format_args!("{name}: {sent} sent, {refused} refused again, {left} left{broken}"));
    Ok(left == 0)
}
