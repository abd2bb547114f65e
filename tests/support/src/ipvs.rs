//! IPVS tables for tests: recorded ones from `tests/data/ipvs`, rows as the kernel writes them, and the parser's properties.

use std::{
    fmt::Display,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use pod2pod_user::ipvs::{
    Detector, Reuse,
    detect::Config,
    kernel::Kernel,
    parse::{Connections, Damage, Lines, Row, connection::Origin, stats},
    services::Services,
};

/// Header of `ip_vs_conn`.
pub const HEADER: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";

/// `ip_vs` with the service 10.96.0.10:80 over TCP, and these real servers: where they are as the kernel writes it, how they are
/// reached, weight, connections that are not active.
pub fn service_table<S: Display>(servers: impl IntoIterator<Item = (S, &'static str, u32, u32)>) -> String {
    let mut text = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr  
"
    .to_owned();
    for (server, forward, weight, inactive) in servers {
        text.push_str(&format!("  -> {server}      {forward:7} {weight:<6} {:<10} {inactive:<10}\n", 0));
    }
    text
}

/// The same in the midst of an update: the first one takes no new connections.
pub fn updated_services() -> String {
    service_table([("0AF40203:1F90", "Masq", 0, 1), ("0AF40202:1F90", "Masq", 1, 0)])
}

/// An entry of `ip_vs_conn`: from this port of 10.244.1.2 to that service, at the first of these servers.
pub fn entry(port: u16, state: &str, left: u32) -> String {
    format!("TCP 0AF40102 {port:04X} 0A60000A 0050 0AF40203 1F90 {state:11} {left:>7}\n")
}

/// The recorded tables.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ipvs")
}

/// Every recorded file of a name, in order.
pub fn recorded(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder that is in the tree") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|own| own == name) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => {
            let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:04x}")).collect();
            groups.join(":")
        }
    }
}

/// A row as the kernel writes it (`ip_vs_conn_seq_show`, `ip_vs_conn_sync_seq_show`), without its line feed.
pub fn written(row: &Row<'_>) -> Vec<u8> {
    let tuple = row.tuple;
    let ends = [tuple.client, tuple.service, row.server];
    let ends = ends.map(|(own, port)| format!("{} {port:04X}", address(own))).join(" ");
    let mut line = format!("{:3} {ends} ", tuple.protocol.to_string()).into_bytes();
    line.extend_from_slice(row.state_text);
    line.extend(std::iter::repeat_n(b' ', 11usize.saturating_sub(row.state_text.len())));
    match row.origin {
        None => {}
        Some(Origin::Local) => line.extend_from_slice(b" LOCAL "),
        Some(Origin::Synced) => line.extend_from_slice(b" SYNC  "),
    }
    line.extend_from_slice(format!(" {:7}", row.expires).as_bytes());
    if !row.rest.is_empty() {
        line.push(b' ');
        line.extend_from_slice(row.rest);
    }
    line
}

/// What a table gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Every row, as the kernel would write it.
    pub rows: Vec<Vec<u8>>,
    /// Rows that were not understood.
    pub damage: Damage,
    /// Lines, the header among them.
    pub lines: usize,
    /// Lines without anything on them.
    pub blank: usize,
}

/// Reads a table that comes in pieces.
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut connections = Connections::default();
    let mut read = Read::default();
    let mut each = |line: &[u8]| {
        read.lines += 1;
        read.blank += usize::from(line.trim_ascii().is_empty());
        if let Some(row) = connections.line(line) {
            let again = written(&row);
            assert_eq!(
                Row::parse(&again, row.origin.is_some()),
                Some(row),
                "what the kernel would write of it"
            );
            read.rows.push(again);
        }
    };
    let mut lines = Lines::default();
    for piece in pieces {
        lines.push(piece, &mut each);
    }
    lines.finish(&mut each);
    read.damage = connections.damage.clone();
    assert_eq!(connections.rows, read.rows.len() as u64, "rows are counted");
    read
}

/// The services of a table.
pub fn services(text: &[u8]) -> Services {
    let mut services = Services::default();
    let mut lines = Lines::default();
    lines.push(text, &mut |line| services.line(line));
    lines.finish(&mut |line| services.line(line));
    services
}

/// A poll.
pub fn poll(
    detector: &mut Detector,
    text: &[u8],
    at: Duration,
    services: Option<&Services>,
    kernel: &Kernel,
) -> Vec<Reuse> {
    detector.begin(at);
    let mut connections = Connections::default();
    let mut lines = Lines::default();
    let mut each = |line: &[u8]| {
        if let Some(row) = connections.line(line) {
            detector.push(&row);
        }
    };
    lines.push(text, &mut each);
    lines.finish(&mut each);
    detector.finish(Duration::ZERO, services, kernel)
}

/// What two polls, so long apart, prove.
pub fn compared(
    before: &[u8],
    after: &[u8],
    apart: Duration,
    services: Option<&Services>,
    kernel: &Kernel,
) -> Vec<Reuse> {
    let mut detector = Detector::new(Config::default());
    let first = poll(&mut detector, before, Duration::ZERO, services, kernel);
    let second = poll(&mut detector, after, apart, services, kernel);
    // One poll alone tells of entries that it has twice.
    first.into_iter().chain(second).collect()
}

/// The fuzz target: any bytes as every kind of table. Rows do not depend on how the file was cut, each is what the kernel would
/// write of it, every line is accounted for, and no two tables make the detector lose count.
pub fn tables(data: &[u8]) {
    let whole = read([data]);
    let (first, rest) = data.split_at(data.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    assert_eq!(read([first, second, third]), whole, "cut in three");
    if data.len() < 2000 {
        assert_eq!(read(data.chunks(1)), whole, "byte by byte");
    }
    let is_table = !whole.rows.is_empty() || whole.damage.lines > 0;
    if is_table {
        let accounted = 1 + whole.rows.len() as u64 + whole.damage.lines;
        // A header that is blank is none.
        assert_eq!(accounted + whole.blank as u64, whole.lines as u64, "every line is accounted for");
    }
    let services = services(data);
    let _ = stats::parse(data);
    let mut detector = Detector::new(Config { max_entries: 64 });
    for (index, poll_data) in [data, first, data].into_iter().enumerate() {
        let at = Duration::from_secs(5 * index as u64);
        for reuse in poll(&mut detector, poll_data, at, Some(&services), &Kernel::default()) {
            assert_ne!(reuse.tuple.client.1, 0, "a template is no connection");
        }
    }
    let counted = detector.stats().rows;
    let expected = 2 * whole.rows.len() + read([first]).rows.len();
    assert_eq!(counted, expected as u64, "every row is counted");
    assert!(detector.entries() <= 128, "as much as there is room for");
}
