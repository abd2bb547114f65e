//! SIGINT and SIGTERM: what is complete is out, one line says what was seen, delivered and lost.

use std::{process::Stdio, time::Instant};

use nix::sys::signal::Signal;
use support::process::{Running, command};

use crate::capture;

fn replay_of_open_input(exchanges: usize) -> Running {
    let mut replay = command(["replay", "-"]);
    replay.stdin(Stdio::piped());
    let mut running = Running::start(replay);
    running.write(&capture(exchanges));
    running
}

#[test]
fn a_signal_ends_it_with_everything_complete_told() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let running = replay_of_open_input(10);
        running.wait_stdout(|text| text.lines().count() == 10);
        let start = Instant::now();
        running.signal(signal);
        let finished = running.finish();
        assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 10), "{finished:?}");
        assert_eq!(finished.stderr, "pod2pod: seen 10, delivered 10, lost 0\n");
        assert!(start.elapsed().as_secs() < 5);
    }
}

/// Nobody reads: after five seconds what is left is lost, and counted.
#[test]
fn a_reader_that_is_stuck_does_not_keep_it_alive() {
    let mut replay = command(["replay", "-", "--set", "output.queue_bytes=1KiB", "--log-level", "info"]);
    replay.stdin(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    replay.stdout(writer);
    let mut running = Running::start(replay);
    running.write(&capture(400));
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    assert!(finished.stderr.contains("pod2pod: seen "), "{finished:?}");
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    drop(reader);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut replay = command(["replay", "-"]);
    replay.stdin(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    replay.stdout(writer);
    let mut running = Running::start(replay);
    // Far more than a pipe holds, so the first signal cannot be obeyed at once.
    running.write(&capture(2000));
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    // The same signal is not queued twice; another one is pending beside it.
    running.signal(Signal::SIGINT);
    let finished = running.finish();
    assert!(start.elapsed().as_secs() < 4, "{:?} {finished:?}", start.elapsed());
    drop(reader);
}
