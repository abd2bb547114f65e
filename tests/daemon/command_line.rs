//! Usage, configuration and input errors: all mistakes at once, the right exit code, nothing on standard output.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
};

use support::process::{binary, command, run};

use crate::capture;

#[test]
fn help_version_and_schema() {
    let help = run(command(["--help"]), b"");
    assert_eq!((help.code, help.stdout.contains("replay")), (Some(0), true), "{help:?}");
    let version = run(command(["--version"]), b"");
    assert_eq!((version.code, version.stdout.starts_with("pod2pod ")), (Some(0), true), "{version:?}");
    let schema = run(command(["schema"]), b"");
    let json: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(json["properties"]["duration"]["type"], "number");
}

#[test]
fn usage_errors_exit_64() {
    for arguments in [&[][..], &["nonsense"], &["replay"], &["replay", "--nonsense", "x"], &["agent", "x"]] {
        let finished = run(command(arguments), b"");
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{arguments:?} {finished:?}");
        assert!(finished.stderr.contains("Usage"), "{finished:?}");
    }
}

#[test]
fn configuration_mistakes_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod2pod.yaml");
    fs::write(
        &file,
        "redact: perhaps\nsampling:\n  raet: 0.5\n  slow: 1 fortnight\nsinks:\n  http:\n    timeout: 1s\n",
    )
    .unwrap();
    for mode in [&["agent"][..], &["replay", "file"]] {
        let mut agent = command(mode);
        agent.arg("--config").arg(&file).args([
            "--format",
            "xml",
            "--set",
            "ignore.paths=[z",
            "--set",
            "limits.memory=20MiB",
        ]);
        agent.env("POD2POD_METRICS_LISTEN", "everywhere").env("POD2POD_REDACTED", "on");
        let finished = run(agent, b"");
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
        let path = file.display();
        for wanted in [
            format!("{path}:1: redact: \"perhaps\" is not allowed; allowed: on, off"),
            format!("{path}:3: unknown key sampling.raet; did you mean sampling.rate?"),
            format!("{path}:4: sampling.slow: \"1 fortnight\" is not allowed; allowed: a duration such as"),
            "POD2POD_METRICS_LISTEN: metrics.listen: \"everywhere\" is not allowed".to_owned(),
            "POD2POD_REDACTED: unknown key POD2POD_REDACTED; did you mean POD2POD_REDACT?".to_owned(),
            "--set: ignore.paths: \"[z\" is not allowed".to_owned(),
            "--format: output.format: \"xml\" is not allowed; allowed: auto, json, text".to_owned(),
            "sinks.http.type: it is missing, or none of ".to_owned(),
            "limits.memory: 20971520 bytes are too few: rings take 16777216".to_owned(),
        ] {
            assert!(finished.stderr.contains(&wanted), "{wanted} is not in\n{}", finished.stderr);
        }
        assert_eq!(finished.stderr.lines().count(), 9, "{}", finished.stderr);
    }
}

#[test]
fn a_file_that_is_missing_or_no_yaml_is_a_mistake() {
    let missing = run(command(["replay", "x", "--config", "/nonexistent.yaml"]), b"");
    assert_eq!(missing.code, Some(64));
    assert!(missing.stderr.contains("/nonexistent.yaml: No such file"), "{missing:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    fs::write(&file, "redact: [\n").unwrap();
    let broken = run(command(["replay", "x", "--config", &file.display().to_string()]), b"");
    assert_eq!(broken.code, Some(64));
    assert!(broken.stderr.contains("x.yaml: "), "{broken:?}");
}

#[test]
fn what_is_no_capture_file_prints_nothing() {
    for format in ["json", "text"] {
        let finished = run(command(["replay", "/etc/passwd", "--format", format]), b"");
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(65), ""), "{finished:?}");
        assert!(finished.stderr.contains("/etc/passwd: not a capture file"), "{finished:?}");
    }
    let missing = run(command(["replay", "/nonexistent.pcap"]), b"");
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(65), ""), "{missing:?}");
}

#[test]
fn a_truncated_file_gives_all_records_up_to_there() {
    let folder = tempfile::tempdir().unwrap();
    let (cut, whole) = (folder.path().join("cut.pcap"), folder.path().join("whole.pcap"));
    let bytes = capture(3);
    fs::write(&cut, &bytes[..bytes.len() - 10]).unwrap();
    fs::write(&whole, capture(2)).unwrap();
    let mut replay = command(["replay"]);
    replay.arg(&cut).arg(&whole);
    let finished = run(replay, b"");
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(65), 5), "{finished:?}");
    assert!(finished.stderr.contains("cut.pcap: damaged at byte"), "{finished:?}");
    assert!(finished.stderr.contains("seen 5, delivered 5, lost 0"), "{finished:?}");
}

/// Missing privilege, or a binary without its kernel side: either way it is said what to do.
#[test]
fn without_privilege_the_agent_exits_77() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("pod2pod");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut agent = std::process::Command::new(&copy);
    agent.args(["agent", "--listen", "off"]).env_clear().current_dir("/");
    agent.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        agent.uid(NOBODY).gid(NOBODY);
    }
    let finished = run(agent, b"");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(77), ""), "{finished:?}");
    assert!(finished.stderr.lines().count() >= 1, "{finished:?}");
}

#[test]
fn an_interface_that_does_not_exist_is_a_mistake_among_others() {
    let mut agent = command(["agent", "--interface", "nowhere0", "--interface", "nowhere*"]);
    agent.args(["--set", "capture.source=cgroup", "--format", "xml"]);
    let finished = run(agent, b"");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
    for wanted in [
        "capture.interfaces: there is no interface nowhere0 in this network namespace",
        "capture.source cgroup and capture.interfaces",
        "--format: output.format: \"xml\" is not allowed",
    ] {
        assert!(finished.stderr.contains(wanted), "{wanted} is not in\n{}", finished.stderr);
    }
    assert_eq!(finished.stderr.lines().count(), 3, "{}", finished.stderr);
}
