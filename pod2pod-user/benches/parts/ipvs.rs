//! A poll of IPVS: a table of 100,000 rows parsed and compared with the one before.

use std::{hint::black_box, time::Duration};

use pod2pod_user::ipvs::{
    Detector,
    detect::Config,
    kernel::Kernel,
    parse::{Connections, Lines},
};

use super::Parts;

/// Entries; half of the clients' ports of four addresses.
const ROWS: u32 = 100_000;
/// From one poll to the next, seconds.
const INTERVAL: u32 = 5;

pub(super) fn polling(parts: &mut Parts) {
    let (before, after) = (table(100), table(100 - INTERVAL));
    let fresh = || {
        let mut detector = Detector::new(Config::default());
        poll(&mut detector, &before, 0);
        detector
    };
    parts.measure("ipvs, a row", ROWS as usize, fresh, |detector| poll(detector, &after, INTERVAL));
}

/// Closed connections, with so many seconds left.
fn table(left: u32) -> Vec<u8> {
    let mut table =
        b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n".to_vec();
    for index in 0..ROWS {
        // In no order, as hashes are: a number that shares no factor with the count.
        let scattered = u64::from(index) * 7919 % u64::from(ROWS);
        let (client, port) = (0x0AF4_0100 + scattered / 25_000, 10_000 + scattered % 25_000);
        let row = format!("TCP {client:08X} {port:04X} 0A60000A 0050 0AF40203 1F90 TIME_WAIT   {left:>7}\n");
        table.extend_from_slice(row.as_bytes());
    }
    table
}

fn poll(detector: &mut Detector, table: &[u8], at: u32) {
    detector.begin(Duration::from_secs(at.into()));
    let mut connections = Connections::default();
    Lines::default().push(black_box(table), &mut |line| {
        if let Some(row) = connections.line(line) {
            detector.push(&row);
        }
    });
    black_box(detector.finish(Duration::ZERO, None, &Kernel::default()));
}
