//! Where records go: a pipe, a file, a terminal's columns, a reader that leaves, a disk that is full.

use std::fs::{self, File, OpenOptions};

use serde_json::Value;
use support::process::{Running, command, run};

use crate::capture;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn a_pipe_gets_json_lines() {
    let finished = run(command(["replay", "-"]), &capture(3));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let records = lines(&finished.stdout);
    assert_eq!(records.len(), 3);
    let first = &records[0];
    assert_eq!(first["kind"], "http");
    assert_eq!(first["outcome"], "complete");
    assert_eq!(first["url.path"], "/item/0");
    assert_eq!(first["url.query"], "token=REDACTED");
    assert_eq!(first["http.response.status_code"], 200);
    assert_eq!(first["http.response.body.size"], 5);
    assert_eq!(first["exchange.offset"], 1);
    assert_eq!(finished.stderr, "pod2pod: seen 3, delivered 3, lost 0\n");
}

#[test]
fn a_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    fs::write(&path, "before\n").unwrap();
    let finished = run(
        command(["replay", "-", "--redact", "off", "--output", &path.display().to_string()]),
        &capture(2),
    );
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
    let text = fs::read_to_string(&path).unwrap();
    let (before, records) = text.split_once('\n').unwrap();
    assert_eq!(before, "before");
    assert_eq!(lines(records)[1]["url.query"], "token=secret");
}

#[test]
fn columns_have_a_header_and_no_colour_off_a_terminal() {
    let finished = run(command(["replay", "-", "--format", "text"]), &capture(1));
    let mut lines = finished.stdout.lines();
    let header = lines.next().unwrap();
    let line = lines.next().unwrap();
    for (title, value) in [("METHOD", "GET"), ("PATH", "/item/0?"), ("CLIENT", "")] {
        let at = header.find(title).unwrap();
        assert!(line.get(at..).unwrap().starts_with(value), "{title}\n{header}\n{line}");
    }
    assert!(!finished.stdout.contains('\x1b'));
    assert!(line.ends_with("complete"), "{line}");
}

#[test]
fn a_reader_that_leaves_ends_the_program_cleanly() {
    let mut replay = command(["replay", "-"]);
    replay.stdin(std::process::Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    replay.stdout(writer);
    drop(reader);
    let mut running = Running::start(replay);
    // Standard input stays open: only the closed output can end it.
    running.write(&capture(2000));
    running.write(&capture(1)[24..]);
    let finished = running.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("pod2pod: seen "), "{finished:?}");
}

#[test]
fn a_full_disk_is_counted_said_once_and_survived() {
    let mut replay = command(["replay", "-"]);
    replay.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let finished = run(replay, &capture(3000));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("seen 3000, delivered 0, lost 3000"), "{finished:?}");
    assert_eq!(finished.stderr.matches("takes no records").count(), 1, "{finished:?}");
}

#[test]
fn a_disk_that_fills_up_keeps_whole_lines_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    File::create(&path).unwrap();
    let mut replay = command(["replay", "-", "--output", &path.display().to_string()]);
    limit_file_size(&mut replay, 100_000);
    let finished = run(replay, &capture(3000));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let text = fs::read_to_string(&path).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).count();
    let delivered = format!("seen 3000, delivered {whole}, lost {}", 3000 - whole);
    assert!(finished.stderr.contains(&delivered), "{delivered}: {finished:?}");
    assert!(whole > 100);
}

/// RLIMIT_FSIZE, which may be raised again: writes past it fail with EFBIG (SIGXFSZ is ignored), as on a disk that fills up.
pub(crate) fn limit_file_size(command: &mut std::process::Command, bytes: u64) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut limited = std::process::Command::new("sh");
    limited.arg("-c").arg(format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", bytes / 512));
    limited.arg(program).args(arguments);
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    *command = limited;
}
