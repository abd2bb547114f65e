//! tshark's opinion on connection attempts: how often a SYN was sent again, and what answered it.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use support::{
    capture_file::{ACK, ETHERNET, Order, Pcap, RST, SYN, Tcp, Unit, ethernet, ip},
    rng::Rng,
};

use crate::{programs::run, replay::binary};

/// Attempts in the capture, each from a port of its own.
const ATTEMPTS: u16 = 200;
const FIRST_PORT: u16 = 20_000;
/// When Linux sends the first copies of a SYN, ms.
const COPIES: [u64; 4] = [0, 1000, 3000, 7000];
/// A packet long after all, so that time goes on.
const END_MS: u64 = 200_000;

/// What came of an attempt, and how often its SYN was sent again before.
type Seen = (String, u64);

/// Complaints about a capture of attempts made with `seed`.
pub(crate) fn judge(seed: u64, directory: &Path) -> Result<Vec<String>> {
    let capture = directory.join("connects.pcap");
    fs::write(&capture, make(seed))?;
    let theirs = tshark(&capture, directory)?;
    let ours = ours(&capture, directory)?;
    ensure!(theirs.len() == usize::from(ATTEMPTS), "tshark found {} attempts", theirs.len());
    let mut wrong = Vec::new();
    for (port, seen) in &theirs {
        // What was answered at once is not told, nor is a single SYN whose answer may have gone another way.
        let is_news = seen.1 > 0 || !["complete", "timeout"].contains(&seen.0.as_str());
        let told = ours.get(port);
        if told != Some(seen).filter(|_| is_news) {
            wrong.push(format!("port {port}: tshark sees {seen:?}, pod2pod tells {told:?}"));
        }
    }
    Ok(wrong)
}

fn make(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut packets: Vec<(u64, Vec<u8>)> = Vec::new();
    for number in 0..ATTEMPTS {
        let addresses = if rng.next_u64().is_multiple_of(2) {
            ["10.0.0.1", "10.0.0.2", "10.0.0.254"]
        } else {
            ["fd00::1", "fd00::2", "fd00::fe"]
        };
        let [client, server, router]: [IpAddr; 3] =
            addresses.map(|address| address.parse().expect("an address"));
        let (source, destination): (SocketAddr, SocketAddr) =
            ((client, FIRST_PORT + number).into(), (server, 80).into());
        let isn = rng.next_u64() as u32;
        let syn = Tcp { source, destination, flags: SYN, acknowledgement: 0, ..Tcp::data(isn, &[]) };
        let start = rng.next_u64() % 10_000;
        let copies = 1 + (rng.next_u64() % 4) as usize;
        for delay in &COPIES[..copies] {
            packets.push((start + delay, syn.ethernet()));
        }
        let answer =
            Tcp { source: destination, destination: source, acknowledgement: isn.wrapping_add(1), ..syn };
        let answer = match rng.next_u64() % 4 {
            0 => Tcp { flags: SYN | ACK, sequence: rng.next_u64() as u32, ..answer }.ethernet(),
            1 => Tcp { flags: RST | ACK, sequence: 0, ..answer }.ethernet(),
            2 if client.is_ipv4() => {
                ethernet(0x0800, &ip(router, client, 1, &[&[3, 1, 0, 0, 0, 0, 0, 0], &syn.ip()[..]].concat()))
            }
            2 => ethernet(
                0x86dd,
                &ip(router, client, 58, &[&[1, 3, 0, 0, 0, 0, 0, 0], &syn.ip()[..]].concat()),
            ),
            _ => continue,
        };
        packets.push((start + COPIES[copies - 1] + 1 + rng.next_u64() % 500, answer));
    }
    packets.push((END_MS, Tcp { flags: ACK, ..Tcp::data(1, &[]) }.ethernet()));
    packets.sort_by_key(|(time, _)| *time);
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    for (milliseconds, packet) in packets {
        file.packet(1_700_000_000_000_000_000 + milliseconds * 1_000_000, &packet);
    }
    file.bytes
}

fn tshark(capture: &Path, directory: &Path) -> Result<BTreeMap<u64, Seen>> {
    let fields = [
        "tcp.srcport",
        "tcp.dstport",
        "tcp.flags",
        "tcp.analysis.retransmission",
        "icmp.type",
        "icmpv6.type",
    ];
    let mut arguments =
        ["-n", "-r", &capture.display().to_string(), "-T", "fields"].map(str::to_owned).to_vec();
    arguments.extend(fields.iter().flat_map(|field| ["-e".to_owned(), (*field).to_owned()]));
    let lines = String::from_utf8(run("tshark", &arguments, directory, &[0])?)?;
    let mut seen = BTreeMap::new();
    for line in lines.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [source, destination, flags, again, icmp, icmp_v6] = columns[..] else {
            anyhow::bail!("not as asked for: {line}")
        };
        let flags = u8::from_str_radix(flags.trim_start_matches("0x"), 16).context("flags")?;
        if !icmp.is_empty() || !icmp_v6.is_empty() {
            end(&mut seen, source.parse()?, "unreachable");
        } else if flags == SYN {
            let (_, copies) = seen.entry(source.parse()?).or_insert_with(|| ("timeout".to_owned(), 0));
            *copies += u64::from(!again.is_empty());
        } else if flags & RST != 0 {
            end(&mut seen, destination.parse()?, "refused");
        } else if flags == SYN | ACK {
            end(&mut seen, destination.parse()?, "complete");
        }
    }
    Ok(seen)
}

fn end(seen: &mut BTreeMap<u64, Seen>, port: u64, outcome: &str) {
    if let Some((told, _)) = seen.get_mut(&port) {
        outcome.clone_into(told);
    }
}

fn ours(capture: &Path, directory: &Path) -> Result<BTreeMap<u64, Seen>> {
    let program = binary()?.display().to_string();
    let lines = run(&program, &["replay", &capture.display().to_string()], directory, &[0])?;
    let mut told = BTreeMap::new();
    for line in String::from_utf8(lines)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        ensure!(record["kind"] == "connect", "{line}");
        let port = record["client.port"].as_u64().context("a port")?;
        let outcome = record["outcome"].as_str().context("an outcome")?.to_owned();
        let copies = record["tcp.connect.retransmits"].as_u64().unwrap_or_default();
        ensure!(told.insert(port, (outcome, copies)).is_none(), "told twice: {line}");
    }
    Ok(told)
}
