//! `pod2pod dead-letters`: what targets refused, and why; sends it again once that was put right.

use std::{path::Path, sync::Arc};

use crate::{
    config::Config,
    delivery::{DeadLetters, dead},
    exit,
    shutdown::Shutdown,
    sinks::{OwnConnections, http},
};

/// Attempts for each part of them, unless so many are configured: a person is waiting.
const SEND_ATTEMPTS: u32 = 4;

/// Shows them, or sends them again; says how the program should exit.
pub fn run(config: Config, sends: bool, shutdown: &Shutdown) -> u8 {
    let Some(data_dir) = config.data_dir.clone() else {
        exit::tell("data_dir: dead letters are kept there; say where it is");
        return exit::CONFIGURATION;
    };
    let done = if sends { send(config, &data_dir, shutdown) } else { show(&data_dir) };
    match done {
        Ok(code) => code,
        Err(error) => {
            exit::tell(format_args!("dead letters in {}: {error:#}", data_dir.display()));
            exit::FAILURE
        }
    }
}

/// As they were written: JSON lines, oldest first.
fn show(data_dir: &Path) -> anyhow::Result<u8> {
    Ok(exit::print(&dead::read(data_dir, http::NAME)?))
}

fn send(mut config: Config, data_dir: &Path, shutdown: &Shutdown) -> anyhow::Result<u8> {
    config.http_sink.limits.attempts.get_or_insert(SEND_ATTEMPTS);
    let Some(http) = config.http_sink.build() else {
        exit::tell("output.http.url: dead letters are sent there; say where it is");
        return Ok(exit::CONFIGURATION);
    };
    let taken = dead::Taken::take(data_dir, http::NAME)?;
    let own = Arc::new(OwnConnections::default());
    let (mut sent, mut refused, mut dealt_with) = (0, 0, 0);
    for items in taken.items.chunks(http::DEFAULT_BATCH_RECORDS as usize) {
        if shutdown.is_requested() {
            break;
        }
        let dead = DeadLetters::of(data_dir, http::NAME)?;
        let stats = http::send_again(http.clone(), Arc::clone(&own), dead, items)?;
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
    exit::tell(format_args!("{sent} sent, {refused} refused again, {left} left{broken}"));
    Ok(if left == 0 { exit::OK } else { exit::FAILURE })
}
