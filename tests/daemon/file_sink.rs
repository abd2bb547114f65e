//! The sink that writes a file: what it holds, files before it, a disk without room, and one that has room again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use support::process::{Finished, Running, command, run};

use crate::{capture, output::limit_file_size};

fn replay(exchanges: usize, path: &Path, settings: &[&str]) -> Finished {
    run(replay_command("-", path, settings), &capture(exchanges))
}

fn replay_command(input: &str, path: &Path, settings: &[&str]) -> std::process::Command {
    let mut replay = command(["replay", input, "--set", "sinks.log.type=file", "--set"]);
    replay.arg(format!("sinks.log.path={}", path.display()));
    settings.iter().for_each(|setting| {
        replay.args(["--set", setting]);
    });
    replay
}

fn paths(text: &str) -> Vec<String> {
    let of = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        record["url.path"].as_str().unwrap().to_owned()
    };
    text.lines().map(of).collect()
}

fn expected(exchanges: usize) -> Vec<String> {
    (0..exchanges).map(|index| format!("/item/{index}")).collect()
}

#[test]
fn the_file_has_the_same_lines_in_their_order_and_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let first = replay(3, &path, &["sinks.log.sync=batch"]);
    assert!(first.stderr.contains("log: delivered 3, lost 0"), "{first:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), first.stdout);
    let second = replay(2, &path, &["sinks.log.format=pod2pod-log", "sinks.log.sync=1h"]);
    assert!(second.stderr.contains("log: delivered 2, lost 0"), "{second:?}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&first.stdout) && text.lines().count() == 5, "{text}");
}

#[test]
fn who_wants_sinks_only_gets_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let only = replay(3, &path, &["output.format=none"]);
    assert_eq!((only.code, &*only.stdout), (Some(0), ""), "{only:?}");
    assert!(only.stderr.contains("log: delivered 3, lost 0"), "{only:?}");
    assert_eq!(paths(&fs::read_to_string(&path).unwrap()), expected(3));
    let file = format!("output.file={}", folder.path().join("other").display());
    let both = replay(3, &path, &["output.format=none", &file]);
    assert_eq!(both.code, Some(64), "{both:?}");
    assert!(both.stderr.contains("output.file and output.format none"), "{both:?}");
}

#[test]
fn files_are_so_large_and_so_many_and_compressed() {
    const RECORDS: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let settings = ["sinks.log.max_file_bytes=1MiB", "sinks.log.max_files=100", "output.file=/dev/null"];
    let finished = replay(RECORDS, &path, &settings);
    assert!(finished.stderr.contains(&format!("log: delivered {RECORDS}, lost 0")), "{finished:?}");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The one that is written has the shortest name, and comes last.
    files.sort_unstable();
    files.rotate_left(1);
    assert!(files.len() > 5, "{files:?}");
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_eq!(paths(&text), expected(RECORDS));
}

#[test]
fn a_disk_without_room_makes_records_wait_until_there_is_some() {
    const RECORDS: usize = 2000;
    const ROOM: usize = 200 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let batches = ["sinks.log.batch_records=100", "sinks.log.queue_bytes=64KiB"];
    let input = folder.path().join("capture");
    fs::write(&input, capture(RECORDS)).unwrap();
    let mut replay = replay_command(&input.display().to_string(), &path, &batches);
    replay.args(["--set", "output.file=/dev/null"]);
    // Not a whole number of lines.
    limit_file_size(&mut replay, ROOM as u64);
    let daemon = Running::start(replay);
    daemon.wait_stderr(|told| told.contains("records wait, since the target does not take them"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && text.len() < ROOM, "{}", text.len());
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    let Rlimit { maximum, .. } =
        prlimit(pid, Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    assert_eq!(maximum, None);
    let finished = daemon.finish();
    assert!(finished.stderr.contains(&format!("log: delivered {RECORDS}, lost 0")), "{finished:?}");
    assert_eq!(paths(&fs::read_to_string(&path).unwrap()), expected(RECORDS));
}
