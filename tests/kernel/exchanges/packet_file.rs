//! The file that the agent writes of what it sees: read again it tells the same exchanges, and no secret is in it.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;
use support::{
    process::{command, run},
    world::SERVER_POD,
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Body, Client, Server},
    seen::check,
    stage::Stage,
};

/// Bodies of less and of more than the kernel tells ahead of its reader.
const SMALL: u64 = 100_000;
const LARGE: u64 = 1_000_000;

/// What tells an exchange from all others, and what was said in it; of both ends once.
fn exchanges(lines: &str) -> BTreeSet<String> {
    let keys = [
        "connection.id",
        "exchange.offset",
        "http.request.method",
        "url.path",
        "url.query",
        "http.response.status_code",
        "http.request.body.size",
        "http.response.body.size",
        "outcome",
    ];
    let one = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        keys.map(|key| record[key].to_string()).join(" ")
    };
    lines.lines().filter(|line| line.contains(r#""kind":"http""#)).map(one).collect()
}

fn replay(file: &Path) -> String {
    let finished = run(command(["replay", &file.display().to_string()]), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

#[test]
fn what_it_saw_is_in_the_file_without_secrets() {
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("packets");
    let written = format!("capture.write_pcap.file={}", file.display());
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[AMPLE_RING, &written]);
    let mut done = Vec::new();
    for v6 in [false, true] {
        let address =
            if v6 { (SERVER_POD.v6, 0).into() } else { std::net::SocketAddr::from((SERVER_POD.v4, 0)) };
        let server = Server::start(stage.server.listen(address));
        let mut client = Client::connect(&mut stage.client, server.address);
        client.get(&format!("/{v6}/first?token=hunter2"));
        client.post(&format!("/{v6}/chunked/{SMALL}"), Body::Chunked, SMALL);
        client.post(&format!("/{v6}/length/{LARGE}"), Body::Length, LARGE);
        // What follows a body is told if that is read in time, which is not what this test is about.
        let so_far = 2 * (done.len() + client.done.len());
        agent.wait_records("the body is read", |records| records.len() >= so_far);
        client.get(&format!("/{v6}/last"));
        done.append(&mut client.done);
    }
    agent.wait_records("all is told", |records| records.len() >= 2 * done.len());
    let told = agent.end();
    // Records tell a query apart from its path.
    for exchange in &mut done {
        exchange.target = exchange.target.split('?').next().unwrap().to_owned();
    }
    check(&told.records(), &done);
    assert!(
        told.summary.contains("; packet file: written ") && told.summary.ends_with(", lost 0"),
        "{}",
        told.summary
    );

    assert_eq!(fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = fs::read(&file).unwrap();
    assert!(memchr::memmem::find(&bytes, b"hunter2").is_none());
    assert!(
        memchr::memmem::find(&bytes, b"POST /true/first?token=REDACTED 200 complete; connection.id ")
            .is_some()
    );
    let (live, read) = (exchanges(&told.text), exchanges(&replay(&file)));
    assert_eq!((live.len(), &live), (done.len(), &read));
}
