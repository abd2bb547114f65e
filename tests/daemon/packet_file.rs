//! `--write-pcap`: through the real binary into real files: what they hold, who may read them, and a disk without room.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use support::process::{Finished, command, run};

use crate::{capture, output::limit_file_size};

/// `replay` of `input` with the packet file `packets`, and more arguments.
fn replay(input: &[u8], packets: &Path, arguments: &[&str]) -> Finished {
    let mut replay = command(["replay", "-", "--write-pcap"]);
    replay.arg(packets).args(arguments);
    run(replay, input)
}

fn records(text: &str) -> Vec<&str> {
    let mut records: Vec<_> = text.lines().collect();
    records.sort_unstable();
    records
}

fn contains(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_file_gives_the_same_records_and_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (covered, raw) = (folder.path().join("covered"), folder.path().join("raw"));
    let first = replay(&capture(3), &covered, &[]);
    assert_eq!(first.code, Some(0), "{first:?}");
    // Handshake, three times two, and the end.
    assert_eq!(first.stderr, "pod2pod: seen 3, delivered 3, lost 0; packet file: written 12, lost 0\n");
    let bytes = fs::read(&covered).unwrap();
    assert!(!contains(&bytes, "secret") && !contains(&bytes, "hello"));
    assert!(contains(&bytes, "GET /item/1?token=****** HTTP/1.1\r\nHost: shop\r\n\r\n"));
    assert!(contains(&bytes, "GET /item/1?token=REDACTED 200 complete; connection.id "));
    assert_eq!(mode(&covered), 0o600);
    let again = run(command(["replay", &covered.display().to_string()]), b"");
    assert_eq!(records(&again.stdout), records(&first.stdout));

    let first = replay(&capture(3), &raw, &["--redact", "off"]);
    assert_eq!((first.code, mode(&raw)), (Some(0), 0o600), "{first:?}");
    let bytes = fs::read(&raw).unwrap();
    assert!(contains(&bytes, "GET /item/1?token=secret HTTP/1.1\r\n") && contains(&bytes, "\r\n\r\nhello"));
    let again = run(command(["replay", "--redact", "off", &raw.display().to_string()]), b"");
    assert_eq!(records(&again.stdout), records(&first.stdout));
}

#[test]
fn files_are_so_large_and_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let packets = folder.path().join("packets");
    let limits =
        ["--set", "capture.write_pcap.max_file_bytes=256KiB", "--set", "capture.write_pcap.max_files=3"];
    let finished = replay(&capture(2500), &packets, &limits);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
    assert_eq!(names, ["packets", "packets.1", "packets.2"]);
    let mut latest = Vec::new();
    for file in files.iter().rev() {
        let size = fs::metadata(file).unwrap().len();
        assert!(size <= 256 << 10 && mode(file) == 0o600, "{size}");
        // Each is whole, and all that were written last are there.
        let again = run(command(["replay", &file.display().to_string()]), b"");
        assert_eq!(again.code, Some(0), "{again:?}");
        latest.push(again.stdout);
    }
    let last = latest.concat();
    assert!(last.contains("/item/2499\"") && !last.contains("/item/0\""));
    let missing = (2000..2500).filter(|index| !last.contains(&format!("/item/{index}\""))).count();
    // An exchange whose request is in one file and its response in the next is told by neither.
    assert!(missing <= 2, "{missing}");
}

#[test]
fn a_disk_without_room_is_counted_said_once_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let packets = folder.path().join("packets");
    let mut replay = command(["replay", "-", "--write-pcap"]);
    replay.arg(&packets);
    limit_file_size(&mut replay, 200_000);
    let finished = run(replay, &capture(1500));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    // Records are not concerned.
    assert!(
        finished.stderr.contains("seen 1500, delivered 1500, lost 0; packet file: written "),
        "{finished:?}"
    );
    assert_eq!(finished.stderr.matches("the packet file takes no packets").count(), 1, "{finished:?}");
    assert!(fs::metadata(&packets).unwrap().len() <= 200_000);
    let again = run(command(["replay", &packets.display().to_string()]), b"");
    assert_eq!(again.code, Some(0), "{again:?}");
    let told = finished.stderr.rsplit_once("packet file: written ").unwrap().1.trim_end();
    let (written, lost) = told.split_once(", lost ").unwrap();
    let lost = lost.strip_suffix(" packets (the target failed)").unwrap();
    let (written, lost): (u64, u64) = (written.parse().unwrap(), lost.parse().unwrap());
    assert_eq!(written + lost, 3006);
    assert!(again.stdout.lines().count() as u64 >= written / 2 - 3, "{written}");
}

#[test]
fn a_path_that_cannot_be_written_to_is_a_mistake_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, plain) = (folder.path().join("missing/f"), folder.path().join("plain"));
    fs::write(&plain, capture(1)).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&plain, &link).unwrap();
    for (path, why) in [
        (inside.as_path(), "its folder cannot be written to: ENOENT"),
        (&plain.join("f"), "its folder cannot be written to: ENOTDIR"),
        (&link, "what is there is no regular file"),
        (folder.path(), "what is there is no regular file"),
        (Path::new("/dev/full"), "what is there is no regular file"),
    ] {
        for mode in [&["agent"][..], &["replay", "file"]] {
            let mut program = command(mode);
            program.arg("--write-pcap").arg(path).args(["--format", "xml"]);
            program.args(["--set", "capture.write_pcap.max_files=0"]);
            let finished = run(program, b"");
            assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
            let wanted = format!("capture.write_pcap.file: {}: {why}", path.display());
            assert!(finished.stderr.contains(&wanted), "{wanted} is not in\n{}", finished.stderr);
            assert_eq!(finished.stderr.lines().count(), 3, "{}", finished.stderr);
        }
    }
    // The folder of what outlives the process.
    for (path, why) in [(inside.as_path(), "ENOENT"), (&plain, "ENOTDIR")] {
        let mut program = command(["agent", "--format", "xml", "--set"]);
        program.arg(format!("data_dir={}", path.display()));
        let finished = run(program, b"");
        assert_eq!((finished.code, finished.stderr.lines().count()), (Some(64), 2), "{finished:?}");
        let wanted = format!("data_dir: {} cannot be written to: {why}", path.display());
        assert!(finished.stderr.contains(&wanted), "{wanted} is not in\n{}", finished.stderr);
    }
    // Nor is a file that is to be read moved away.
    let mut program = command(["replay"]);
    program.arg(&plain).arg("--write-pcap").arg(&plain);
    let finished = run(program, b"");
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert_eq!(fs::read(&plain).unwrap(), capture(1));
}
