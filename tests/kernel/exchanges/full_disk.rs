//! A disk without room for a spool: records go on from memory, within its bounds, and what is too much is counted; and to the disk again
//! as soon as it has room.

use std::{path::Path, sync::atomic::AtomicUsize};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use support::{
    stand_in::{Manner, Protocol, StandIn},
    world::SERVER_POD,
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::Server,
    spool::talk,
    stage::Stage,
};

/// Of the disk: some thousand records.
const LITTLE: &str = "size=1m";
/// Once it has room.
const MUCH: &str = "size=64m";
/// Bytes queued for the sink at most.
const QUEUE_BYTES: u64 = 256 * 1024;
/// More than both hold.
const EXCHANGES: usize = 5_000;
/// What comes when there is room.
const MORE: usize = 200;
/// Whose metrics.
const KEPT: &str = "sink=\"kept\"";

/// A file system in memory, as long as this lives.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn resize(&self, size: &str) {
        mount(Some("tmpfs"), self.path(), Some("tmpfs"), MsFlags::MS_REMOUNT, Some(size)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps that, and nothing else.
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_costs_what_memory_has_no_room_for_and_is_written_again_when_it_has_some() {
    let mut stage = Stage::new();
    let collector = StandIn::local(Protocol::Http);
    collector.behave(Manner::Unavailable);
    let disk = Disk::new(LITTLE);
    let settings = [
        AMPLE_RING.to_owned(),
        "roles=server".to_owned(),
        format!("data_dir={}", disk.path().display()),
        format!("sinks.kept.url=http://{}/", collector.address),
        "sinks.kept.batch_records=50".to_owned(),
        "sinks.kept.linger=50ms".to_owned(),
        format!("sinks.kept.queue_bytes={QUEUE_BYTES}"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    let path = |number: usize| format!("/{number:05}");
    talk(stage.client.connect(server.address), EXCHANGES, &path, &AtomicUsize::new(0));
    let full = agent.wait_metrics("the disk is full, and all is counted", |metrics| {
        metrics.sum("sink_records_received_total", KEPT) == EXCHANGES as u64
            && metrics.sum("sink_spool_failures_total", KEPT) > 0
            && metrics.sum("ledger_balanced", "") == 1
    });
    let (written, dropped) =
        (full.sum("sink_spool_records", KEPT), full.sum("sink_records_dropped_total", KEPT));
    let by_memory = full.sum_of("sink_records_dropped_total", &[KEPT, "reason=\"queue_full\""]);
    assert!(written > 0 && dropped > 0 && by_memory == dropped, "{}", full.text());
    assert!(full.sum("sink_queue_bytes", KEPT) <= QUEUE_BYTES, "{}", full.text());
    // There is room, and what comes is on disk.
    disk.resize(MUCH);
    let later = |number: usize| format!("/later/{number:05}");
    let mut made = 0;
    let mut metrics = full;
    while metrics.sum("sink_spool_records", KEPT) < written + MORE as u64 {
        let path = |number| later(made + number);
        talk(stage.client.connect(server.address), MORE, &path, &AtomicUsize::new(0));
        made += MORE;
        let all = (EXCHANGES + made) as u64;
        metrics = agent.wait_metrics("these came too", |metrics| {
            metrics.sum("sink_records_received_total", KEPT) == all && metrics.sum("ledger_balanced", "") == 1
        });
        assert!(made <= EXCHANGES, "nothing of {made} is on disk\n{}", metrics.text());
    }
    collector.behave(Manner::Well);
    let all = (EXCHANGES + made) as u64;
    let metrics = agent.wait_metrics_for(super::conservation::MAX_WAIT, "the rest is delivered", |metrics| {
        metrics.sum("sink_records_delivered_total", KEPT) + metrics.sum("sink_records_dropped_total", KEPT)
            == all
    });
    let (delivered, dropped) =
        (metrics.sum("sink_records_delivered_total", KEPT), metrics.sum("sink_records_dropped_total", KEPT));
    eprintln!("{all} made, {written} on the full disk, {delivered} delivered, {dropped} dropped");
    let taken = collector.taken();
    assert_eq!(taken.len() as u64, delivered, "what was not dropped was taken");
    assert!(taken.values().all(|times| *times == 1), "once each");
    assert!(agent.end().summary.contains(&format!("kept: delivered {delivered}, lost {dropped}")));
}
