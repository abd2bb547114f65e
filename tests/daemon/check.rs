//! `pod2pod check`: its exit codes, its table and its JSON, and that the start says the same.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    os::unix::process::CommandExt as _,
    process::Stdio,
};

use serde_json::Value;
use support::{
    process::{Finished, binary, command, run},
    server::Nobody,
};

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

/// A server that answers everything with the same.
fn answering(answer: String) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn targets_of_sinks_are_asked() {
    let of_status = |status: &str| answering(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
    let version = r#"{"version":{"distribution":"opensearch","number":"2.19.1"}}"#;
    let node = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{version}", version.len());
    let folder = tempfile::tempdir().unwrap();
    let nobody = Nobody::new();
    let of_a_folder = format!("path={}", folder.path().join("records").display());
    let (fine, forbidden, node) = (of_status("405 No"), of_status("401 Who"), answering(node));
    let gone = nobody.address;
    let sinks = [
        ("fine", format!("url=http://{fine}/in"), true, "answers HEAD with 405"),
        ("forbidden", format!("url=http://{forbidden}/in"), false, "unauthorized: 401"),
        ("gone", format!("url=http://{gone}/in"), false, "connect: "),
        ("node", format!("url=http://{node}/"), true, "opensearch 2.19.1"),
        ("no-node", format!("url=http://{fine}/"), false, "nonsense: 405"),
        ("traces", format!("url=http://{fine}/"), true, "answers HEAD"),
        ("lines", format!("url=syslog+tcp://{fine}"), true, "takes a connection"),
        ("datagrams", format!("url=syslog+udp://{gone}"), true, "cannot be known"),
        ("forward", format!("url=fluentd://{gone}"), false, "connect: "),
        ("db", format!("url=postgres://u@{fine}/d"), false, ""),
        ("here", of_a_folder, true, "can be written"),
    ];
    let settings: Vec<_> = sinks.iter().map(|(name, set, ..)| format!("sinks.{name}.{set}")).collect();
    let mut arguments = vec!["--sinks", "--listen", "off"];
    let types = [
        "sinks.here.type=file",
        "limits.memory=256MiB",
        "sinks.node.type=elasticsearch",
        "sinks.no-node.type=elasticsearch",
        "sinks.traces.type=otlp",
        "sinks.db.tls.mode=disable",
    ];
    let settings = settings.iter().map(String::as_str).chain(types);
    arguments.extend(settings.flat_map(|setting| ["--set", setting]));
    let (finished, told) = check(&arguments);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for (name, _, is_fine, found) in &sinks {
        let finding = finding(&told, &format!("sinks.{name}"));
        assert_eq!(finding["status"] == "ok", *is_fine, "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(found), "{finding}");
    }
    assert!(!folder.path().join("records").exists(), "nothing is left behind");
    // Only who asks for it has them asked.
    let (_, told) = check(&["--listen", "off", "--set", &format!("sinks.gone.url=http://{gone}/")]);
    assert!(findings(&told).iter().all(|finding| finding["name"] != "sinks.gone"));
    let (_, told) = check(&["--listen", "off", "--sinks"]);
    assert_eq!(finding(&told, "sinks")["status"], "ok");
}
