//! tshark's opinion on the files that `--write-pcap` writes: it can read them, all checksums are good, each complete exchange
//! is named once, and without redaction the exchanges in them are those of the original.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{programs::run, replay::binary};

/// Writes what `replay` sees of `capture` to `packets`, redacted or not; how many exchanges it told.
pub(crate) fn write(capture: &Path, directory: &Path, packets: &Path, redact: &str) -> Result<usize> {
    let (capture, packets) = (capture.display().to_string(), packets.display().to_string());
    let arguments = ["replay", "--redact", redact, &capture, "--write-pcap", &packets];
    let told = String::from_utf8(run(&binary()?.display().to_string(), &arguments, directory, &[0])?)?;
    // An exchange that goes on is told again, and an attempt is none.
    let others = ["\"exchange.in_progress\"", "\"kind\":\"connect\""];
    Ok(told.lines().filter(|line| !others.iter().any(|other| line.contains(other))).count())
}

/// Complaints about the checksums in `packets`, and about the number of exchanges named there.
pub(crate) fn judge(packets: &Path, exchanges: usize, directory: &Path) -> Result<Vec<String>> {
    let packets = packets.display().to_string();
    let mut arguments =
        vec!["-n", "-r", &packets, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    arguments.extend([
        "-T",
        "fields",
        "-e",
        "ip.version",
        "-e",
        "ip.checksum.status",
        "-e",
        "tcp.checksum.status",
    ]);
    arguments.extend(["-e", "frame.cap_len", "-e", "frame.len", "-e", "frame.comment", "-E", "aggregator=|"]);
    let told = String::from_utf8(run("tshark", &arguments, directory, &[0])?)?;
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (number, line) in told.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[version, ip, tcp, captured, length, comments] = &fields[..] else {
            wrong.push(format!("packet {number}: {line:?}"));
            continue;
        };
        let is_whole = captured == length;
        // 1 is good; what was not captured cannot be checked.
        let is_good = (version != "4" || ip == "1") && (!is_whole || tcp == "1");
        if !is_good {
            wrong.push(format!("packet {number}: IP {ip}, TCP {tcp}"));
        }
        named += comments.matches("connection.id").count();
    }
    ensure!(told.lines().count() > 0, "no packet in {packets}");
    if named != exchanges {
        wrong.push(format!("{named} exchanges are named, {exchanges} were told"));
    }
    Ok(wrong)
}
