//! `pod2pod ipvs`: saved tables compared, one look, the watch over a table that changes, and every wrong input.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use pod2pod_user::watch::{
    MAX_POLLED_ENTRIES,
    options::{DEFAULT_INTERVAL, DEFAULT_PATH, MAX_INTERVAL},
    source::{MAX_BYTES, MAX_SMALL_BYTES},
};
use support::{
    ipvs::{HEADER, entry as row, folder, updated_services},
    process::{Finished, Running, binary, command, run},
};
use tempfile::TempDir;

/// A folder with a table and its services.
fn saved(rows: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ip_vs_conn"), format!("{HEADER}{rows}")).unwrap();
    fs::write(folder.path().join("ip_vs"), updated_services()).unwrap();
    folder
}

fn ipvs(arguments: &[&str]) -> Finished {
    run(command([&["ipvs"], arguments].concat()), b"")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn two_saved_tables_are_compared() {
    let (before, after) = (saved(&row(0xc351, "TIME_WAIT", 60)), saved(&row(0xc351, "ESTABLISHED", 899)));
    for (name, value) in [("conn_reuse_mode", "0\n"), ("expire_nodest_conn", "0\n"), ("conntrack", "1\n")] {
        fs::write(after.path().join(name), value).unwrap();
    }
    fs::write(after.path().join("kernel"), "6.1.0-56-cloud-amd64 (#1 SMP)\n").unwrap();
    let (a, b) = (text(before.path()), text(after.path()));
    let finished = ipvs(&["--diff", a, b]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    let told = json(&finished.stdout);
    for (key, value) in [
        ("kind", "ipvs_reuse"),
        ("ipvs.verdict", "reused"),
        ("ipvs.reuse", "certain"),
        ("ipvs.severity", "critical"),
        ("ipvs.situation", "draining_server_mode_off"),
        ("client.address", "10.244.1.2"),
        ("server.address", "10.96.0.10"),
        ("ipvs.real_server.address", "10.244.2.3"),
        ("ipvs.state_before", "TIME_WAIT"),
        ("ipvs.state", "ESTABLISHED"),
        ("os.version", "6.1.0-56-cloud-amd64"),
    ] {
        assert_eq!(told[key], value, "{key} in {told}");
    }
    assert_eq!((&told["client.port"], &told["ipvs.real_server.weight"]), (&50_001.into(), &0.into()));
    assert!(told["ipvs.explanation"].as_str().unwrap().contains("expire_nodest_conn=1"), "{told}");
    assert!(finished.stderr.contains("reuses 1 (critical 1)"), "{finished:?}");
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let untold: Vec<_> =
        told.as_object().unwrap().keys().filter(|key| !readme.contains(&format!("`{key}`"))).collect();
    assert!(untold.is_empty(), "keys that the README does not have: {untold:?}");

    let shown = ipvs(&["--diff", a, b, "--format", "text", "--service", "10.96.0.10:80"]);
    assert!(
        shown.stdout.contains("critical certain  reused      tcp 10.244.1.2:50001 → 10.96.0.10:80"),
        "{shown:?}"
    );
    assert_eq!(shown.stdout.lines().count(), 2, "{shown:?}");
    let file = after.path().join("ip_vs_conn");
    let other =
        ipvs(&["--diff", text(&before.path().join("ip_vs_conn")), text(&file), "--service", "10.96.0.11"]);
    assert_eq!((other.code, other.stdout.as_str()), (Some(0), ""), "{other:?}");
}

/// Both rules on the same input: what the old one finds, what it takes for one, and what it cannot see.
#[test]
fn the_old_rule_and_its_line() {
    let rows = |first: &str, second: &str| (saved(first), saved(second));
    let (before, after) = rows(
        &[row(1, "TIME_WAIT", 28), row(2, "FIN_WAIT", 60), row(3, "TIME_WAIT", 60)].concat(),
        &[row(1, "TIME_WAIT", 114), row(2, "FIN_WAIT", 119), row(3, "ESTABLISHED", 899)].concat(),
    );
    let (a, b) = (text(before.path()), text(after.path()));
    let legacy = ipvs(&["--diff", a, b, "--format", "legacy", "--detector", "legacy", "-interval", "16"]);
    let lines: Vec<&str> = legacy.stdout.lines().collect();
    let [first, second] = lines[..] else { panic!("{legacy:?}") };
    let tail = " - from: 10.244.1.2:1 - to 10.96.0.10:80, dest: 10.244.2.3:8080 28-114";
    assert!(first.ends_with(tail) && first.contains(" +0000 UTC m=+16.000000000 - "), "{first}");
    assert!(second.ends_with("10.244.1.2:2 - to 10.96.0.10:80, dest: 10.244.2.3:8080 60-119"), "{second}");
    let ours = ipvs(&["--diff", a, b, "--format", "legacy", "-interval=16"]);
    assert_eq!(ours.stdout.lines().count(), 2, "half-closed traffic is no reuse: {ours:?}");
    assert!(ours.stdout.lines().all(|line| !line.contains("10.244.1.2:2 ")), "{ours:?}");
    for (format, expected) in
        [("json", "\"ipvs.verdict\":\"legacy\""), ("text", " legacy      tcp 10.244.1.2:1 → ")]
    {
        let told =
            ipvs(&["--diff", a, b, "--format", format, "--detector", "legacy", "-service-ip", "10.96.0.10"]);
        assert_eq!((told.code, told.stdout.lines().count()), (Some(0), 2), "{told:?}");
        assert!(told.stdout.lines().next().unwrap().contains(expected), "{told:?}");
    }
}

#[test]
fn one_look_shows_services_servers_and_entries() {
    let recorded = folder().join("6.1/12-mixed-families");
    for name in ["ip_vs_conn", "ip_vs_conn_sync"] {
        let shown = ipvs(&["--once", "--path", text(&recorded.join(name)), "--format", "text"]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        let has = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            let is_it = |line: &str| line.split_whitespace().collect::<Vec<_>>() == words;
            assert!(shown.stdout.lines().any(is_it), "{words:?} in\n{}", shown.stdout);
        };
        has("tcp 10.96.0.10:80 10.244.2.2:8080 masq 0 2 2 draining 2 ESTABLISHED, 1 TIME_WAIT, 1 CLOSE_WAIT");
        has("tcp 10.96.0.10:443 10.244.2.2:443 route 3 1 0 1 SYN_RECV");
        has("tcp [fd00:96::10]:80 [fd00:244:2::2]:8080 removed 1 TIME_WAIT");
        has("mark 7 10.244.2.3:0 masq 1 1 0 1 ESTABLISHED");
        assert!(
            shown.stdout.contains("9 templates, 0 entries left out; so far 42 connections (2 a second)"),
            "{shown:?}"
        );
    }
    let told = ipvs(&["--once", "--path", text(&recorded.join("ip_vs_conn")), "--service", "10.96.0.10:80"]);
    let lines: Vec<_> = told.stdout.lines().map(json).collect();
    let [first, second, totals] = &lines[..] else { panic!("{told:?}") };
    assert_eq!(
        (&first["ipvs.real_server.weight"], &first["ipvs.entries.established"]),
        (&1.into(), &8.into())
    );
    assert_eq!(
        (&second["ipvs.real_server.draining"], &second["ipvs.real_server.inactive"]),
        (&true.into(), &2.into())
    );
    assert_eq!((&totals["kind"], &totals["ipvs.total.connections"]), (&"ipvs_totals".into(), &42.into()));
    let alone = tempfile::tempdir().unwrap();
    let file = alone.path().join("ip_vs_conn");
    fs::write(&file, format!("{HEADER}{}", row(1, "TIME_WAIT", 28))).unwrap();
    let told = ipvs(&["--once", "--path", text(&file)]);
    assert!(
        !told.stdout.contains("absent") && !told.stdout.contains("total."),
        "nothing is known of services: {told:?}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let finished = ipvs(&[
        "-interval",
        "0",
        "-service-ip",
        "web",
        "--format",
        "xml",
        "--detector",
        "guess",
        "--mode",
        "sure",
        "--once",
        "--diff",
        "a",
        "b",
    ]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 6, "{}", finished.stderr);
    for arguments in [&["--diff", "a"][..], &["--nonsense"], &["file"]] {
        assert_eq!(ipvs(arguments).code, Some(64), "{arguments:?}");
    }
    let help = ipvs(&["--help"]);
    assert_eq!((help.code, help.stdout.contains("--diff <A> <B>")), (Some(0), true), "{help:?}");
    assert_eq!(
        (DEFAULT_PATH, DEFAULT_INTERVAL.as_secs(), MAX_INTERVAL.as_secs()),
        ("/proc/net/ip_vs_conn", 5, 60)
    );
}

#[test]
fn a_table_that_cannot_be_had_has_an_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    for (path, said) in [
        (PathBuf::from("/nonexistent"), "there is no such file"),
        ("/etc/passwd".into(), "it begins otherwise"),
        ("/dev/zero".into(), "it begins otherwise"),
        (empty, "it begins otherwise"),
        ("/proc".into(), "ip_vs_conn: there is no such file"),
    ] {
        let finished = ipvs(&["--diff", text(&path), text(&path)]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(65), ""), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
    let finished = ipvs(&["--once", "--path", text(folder.path())]);
    assert!(finished.code == Some(65) && finished.stderr.contains("Is a directory"), "{finished:?}");
}

#[test]
fn a_table_that_may_not_be_read_is_a_missing_privilege() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let (copy, table) = (folder.path().join("pod2pod"), folder.path().join("ip_vs_conn"));
    fs::copy(binary(), &copy).unwrap();
    fs::write(&table, HEADER).unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(folder.path(), 0o755);
    allow(&table, 0o000);
    for task in [&["--once"][..], &[]] {
        let mut ipvs = std::process::Command::new(&copy);
        ipvs.arg("ipvs").arg("--path").arg(&table).args(task).env_clear().current_dir("/");
        ipvs.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        if nix::unistd::geteuid().is_root() {
            ipvs.uid(NOBODY).gid(NOBODY);
        }
        let finished = run(ipvs, b"");
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(77), ""), "{finished:?}");
        assert!(finished.stderr.contains("may not be read"), "{finished:?}");
    }
}

/// More than is read of one file; sparse, so that it takes no room. What is past the limit is said to be left out.
#[test]
fn a_huge_file_is_read_up_to_a_limit() {
    let (before, after) = (saved(&row(1, "TIME_WAIT", 60)), saved(&row(1, "SYN_RECV", 59)));
    let huge = fs::File::options().append(true).open(after.path().join("ip_vs_conn")).unwrap();
    huge.set_len(MAX_BYTES + 1).unwrap();
    fs::write(after.path().join("kernel"), vec![b'6'; MAX_SMALL_BYTES as usize + 1]).unwrap();
    let cut = format!("past {MAX_BYTES} bytes");
    let finished = ipvs(&["--diff", text(before.path()), text(after.path())]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    assert!(finished.stderr.contains(&cut), "{finished:?}");
    huge.set_len(MAX_BYTES).unwrap();
    let whole = ipvs(&["--diff", text(before.path()), text(after.path())]);
    assert!(whole.stdout.lines().count() == 1 && !whole.stderr.contains(&cut), "all of it: {whole:?}");
    assert!(!finished.stdout.contains("os.version"), "too large for a release: {finished:?}");
}

/// A saved table has no kernel that could be followed: with `auto` that is no news, and `exact` cannot be.
#[test]
fn a_table_that_is_not_the_kernels_is_polled() {
    let folder = saved(&row(1, "TIME_WAIT", 60));
    let path = folder.path().join("ip_vs_conn");
    let finished = ipvs(&["--mode", "exact", "--path", text(&path)]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(77), ""), "{finished:?}");
    assert!(finished.stderr.contains("is no table of this kernel"), "{finished:?}");
    let finished = ipvs(&["--mode", "exact", "--diff", text(&path), text(&path)]);
    assert_eq!(finished.code, Some(64), "{finished:?}");
    let mut watch =
        command(["ipvs", "--mode", "auto", "--interval", "100ms", "--log-level", "debug", "--path"]);
    watch.arg(&path);
    let running = Running::start(watch);
    running.wait_stderr(|said| said.contains("polled"));
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stderr.contains("exact mode"), "{finished:?}");
}

#[test]
fn rows_that_cannot_be_parsed_are_counted_and_the_first_is_quoted() {
    let rows = format!("{}TCP \u{1b}[31m nonsense\nmore\n", row(1, "TIME_WAIT", 60));
    let (before, after) = (saved(&rows), saved(&row(1, "SYN_RECV", 59)));
    let finished = ipvs(&["--diff", text(before.path()), text(after.path())]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    assert!(
        finished.stderr.contains("unparsable 2") && finished.stderr.contains("TCP \\u{1b}[31m nonsense"),
        "{finished:?}"
    );
}

/// The file is not there, comes, changes, goes and comes back; what it proves is told, and a signal ends the watch.
#[test]
fn the_watch_follows_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ip_vs_conn");
    fs::write(folder.path().join("ip_vs"), updated_services()).unwrap();
    let mut watch =
        command(["ipvs", "-interval", "100ms", "--format", "json", "--log-level", "debug", "-path"]);
    watch.arg(&path);
    let running = Running::start(watch);
    running.wait_stderr(|said| said.contains("It is waited for."));
    // A whole table, there until a poll has begun and ended with it.
    let put = |rows: String| {
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, format!("{HEADER}{rows}")).unwrap();
        fs::rename(&fresh, &path).unwrap();
        let polls = |said: &str| said.matches("polled").count();
        let so_far = polls(&running.stderr());
        running.wait_stderr(|said| polls(said) >= so_far + 2);
    };
    put(row(0xc351, "TIME_WAIT", 119));
    put(row(0xc351, "SYN_RECV", 59));
    fs::remove_file(&path).unwrap();
    running.wait_stderr(|said| said.matches("It is waited for.").count() == 2);
    put(row(0xc351, "TIME_WAIT", 100));
    put(row(0xc351, "SYN_RECV", 59));
    // What cannot be read any more, or is no table any more, may be one again.
    let fresh = folder.path().join("fresh");
    std::os::unix::fs::symlink("/", &fresh).unwrap();
    fs::rename(&fresh, &path).unwrap();
    running.wait_stderr(|said| {
        said.contains("Is a directory") && said.matches("It is waited for.").count() == 3
    });
    put(row(0xc351, "TIME_WAIT", 100));
    fs::write(&fresh, "no table\n").unwrap();
    fs::rename(&fresh, &path).unwrap();
    running.wait_stderr(|said| said.matches("It is waited for.").count() == 4);
    let told = running.wait_stdout(|said| said.lines().count() >= 2);
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), told.as_str()), "{finished:?}");
    assert!(finished.stderr.contains("reuses 2 (critical 2)"), "{finished:?}");
    for line in told.lines().map(json) {
        assert_eq!((&line["ipvs.reuse"], &line["ipvs.state"]), (&"certain".into(), &"SYN_RECV".into()));
    }
}

#[test]
fn a_table_that_is_too_large_for_polling_is_told_once() {
    let table = |rows: u64| -> String {
        let client = |index: u64| {
            row((index % 60_001) as u16, "TIME_WAIT", 100).replace("0AF40102", &format!("{index:08X}"))
        };
        (1..=rows).map(client).collect()
    };
    for (rows, told) in [(MAX_POLLED_ENTRIES, 0), (MAX_POLLED_ENTRIES + 1, 1)] {
        let folder = saved(&table(rows));
        let mut watch = command(["ipvs", "--interval", "100ms", "--log-level", "debug", "--path"]);
        watch.arg(folder.path().join("ip_vs_conn"));
        let running = Running::start(watch);
        running.wait_stderr(|said| said.matches("polled").count() >= 2);
        running.signal(Signal::SIGTERM);
        let finished = running.finish();
        assert_eq!(
            finished.stderr.matches("polling misses some").count(),
            told,
            "{rows}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_cleanly() {
    let (before, after) = (saved(&row(1, "TIME_WAIT", 60)), saved(&row(1, "SYN_RECV", 59)));
    let mut diff = command(["ipvs", "--diff", text(before.path()), text(after.path())]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    diff.stdout(writer);
    let finished = run(diff, b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let mut full = command(["ipvs", "--diff", text(before.path()), text(after.path())]);
    full.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let finished = run(full, b"");
    assert!(
        finished.code == Some(1) && finished.stderr.contains("cannot write to standard output"),
        "{finished:?}"
    );
}

/// Where nobody's cursor can be moved, one table follows the other.
#[test]
fn the_table_follows_the_polls() {
    let folder = saved(&row(0xc351, "TIME_WAIT", 60));
    let mut watch = command(["ipvs", "--interval", "100ms", "--format", "table", "--path"]);
    watch.arg(folder.path().join("ip_vs_conn"));
    let running = Running::start(watch);
    let told = running.wait_stdout(|said| said.matches("SERVICE").count() >= 2);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code, Some(0));
    assert!(!told.contains('\x1b') && told.contains("1 real servers draining, 0 never draining"), "{told}");
    let line = told.lines().find(|line| line.contains("10.244.2.3:8080")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words.join(" "), "tcp 10.96.0.10:80 10.244.2.3:8080 masq 0 0 1 draining 1 TIME_WAIT");
}
