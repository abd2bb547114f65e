//! `pod2pod check`: its exit codes, its table and its JSON, and that the start says the same.

use std::{
    fs, net::TcpListener, os::unix::fs::PermissionsExt as _, os::unix::process::CommandExt as _,
    process::Stdio,
};

use serde_json::Value;
use support::process::{Finished, binary, command, run};

/// Keys of a finding.
const KEYS: [&str; 6] = ["name", "status", "found", "needed", "lost", "cure"];
const NOBODY: u32 = 65_534;

fn check(arguments: &[&str]) -> (Finished, Value) {
    let finished = run(command([&["check", "--json"], arguments].concat()), b"");
    let told = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished, told)
}

/// As one who may do nothing.
fn as_nobody(arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("pod2pod");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(&copy);
    command.args(arguments).env_clear().current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    run(command, b"")
}

fn findings(told: &Value) -> &Vec<Value> {
    told["findings"].as_array().unwrap()
}

fn finding<'a>(told: &'a Value, name: &str) -> &'a Value {
    findings(told)
        .iter()
        .find(|finding| finding["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {told:#}"))
}

#[test]
fn every_finding_has_every_key() {
    let (finished, told) = check(&["--listen", "off"]);
    let keys: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["version", "exit_code", "findings"]);
    assert_eq!(told["exit_code"], finished.code.unwrap());
    for finding in findings(&told) {
        let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, KEYS, "{finding}");
        let is_fine = finding["status"] == "ok";
        assert!(is_fine || finding["status"] == "limited" || finding["status"] == "missing", "{finding}");
        assert!(finding["found"].as_str().is_some_and(|found| !found.is_empty()), "{finding}");
        let is_told = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_fine || ["needed", "lost", "cure"].into_iter().all(is_told), "{finding}");
    }
    for name in [
        "configuration",
        "programs",
        "kernel",
        "bpf",
        "ring buffer",
        "kernel types",
        "cgroup v2",
        "interfaces",
    ] {
        finding(&told, name);
    }
    for name in ["ipvs", "ipvs, exact mode", "memory", "metrics.listen", "admin.listen"] {
        finding(&told, name);
    }
    let lacks = findings(&told).iter().any(|finding| finding["status"] == "missing");
    assert_eq!(finished.code, Some(i32::from(lacks)), "{told:#}");
}

#[test]
fn a_wrong_configuration_is_told_whole() {
    let (finished, told) = check(&["--format", "xml", "--set", "rate=1", "--interface", "nowhere0"]);
    assert_eq!((finished.code, &told["exit_code"], finished.stderr.as_str()), (Some(64), &64.into(), ""));
    let found: Vec<_> = findings(&told).iter().map(|finding| finding["found"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    for part in ["output.format: \"xml\"", "unknown key rate", "there is no interface nowhere0"] {
        assert!(found.iter().any(|found| found.contains(part)), "{part}: {found:?}");
    }
    let text = run(command(["check", "--format", "xml"]), b"");
    assert_eq!(text.code, Some(64));
    assert!(text.stdout.starts_with("configuration  missing  --format: output.format: \"xml\""), "{text:?}");
}

#[test]
fn without_rights_the_check_and_the_start_say_the_same() {
    let told = as_nobody(&["check", "--json", "--listen", "off"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""), "{told:?}");
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let start = as_nobody(&["agent", "--listen", "off"]);
    assert_eq!((start.code, start.stdout.as_str()), (Some(77), ""), "{start:?}");
    for name in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
        let finding = finding(&told, name);
        assert_eq!(
            (&finding["status"], &finding["lost"]),
            (&"missing".into(), &"nothing can be watched".into()),
            "{finding}"
        );
        let [found, cure] = ["found", "cure"].map(|key| finding[key].as_str().unwrap());
        assert!(start.stderr.contains(&format!("pod2pod: {found}: {cure}\n")), "{found}: {}", start.stderr);
    }
    assert_eq!(finding(&told, "CAP_SYS_NICE")["status"], "limited");
}

#[test]
fn a_port_that_is_taken_is_missing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (finished, told) = check(&["--listen", &address]);
    let finding = finding(&told, "metrics.listen");
    assert_eq!((finished.code, &finding["status"]), (Some(1), &"missing".into()), "{told:#}");
    assert!(finding["found"].as_str().unwrap().contains(&address), "{finding}");
    drop(taken);
    let (_, told) = check(&["--listen", &address]);
    assert_eq!(self::finding(&told, "metrics.listen")["status"], "ok");
}

#[test]
fn what_is_not_there_is_told_where_it_is_asked_for() {
    let path = "ipvs.path=/nowhere/ip_vs_conn";
    for (mode, status) in [("auto", "ok"), ("on", "limited")] {
        let (_, told) = check(&["--listen", "off", "--set", path, "--set", &format!("ipvs.mode={mode}")]);
        assert_eq!(finding(&told, "ipvs")["status"], status, "{mode}");
    }
    let api = ["auto", "on", "off"].map(|mode| {
        let (_, told) = check(&["--listen", "off", "--set", &format!("kubernetes.mode={mode}")]);
        let api = finding(&told, "kubernetes api");
        (api["status"] == "ok", api["found"] == "not asked for")
    });
    assert_eq!(api, [(true, false), (false, false), (true, true)]);
    let (finished, told) = check(&["--listen", "off", "--cgroup", "/nowhere/at/all"]);
    assert_eq!((finished.code, &finding(&told, "cgroup v2")["status"]), (Some(1), &"missing".into()));
}
