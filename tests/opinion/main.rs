//! The opinion tier: real servers and clients are recorded, and `pod2pod replay` and tshark must tell the same list of
//! exchanges. Needs root, tshark, tcpdump and the programs of the scenarios; `cargo xtask test opinion` installs them.

#[cfg(test)]
mod connects;
#[cfg(test)]
mod disagreements;
#[cfg(test)]
mod disturbance;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod packet_file;
#[cfg(test)]
mod pairing;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tshark;

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        path::{Path, PathBuf},
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::{SystemTime, UNIX_EPOCH},
    };

    use anyhow::{Context, Result};
    use support::rng::Rng;

    use crate::{
        connects,
        disagreements::{self, Disagreement, unexplained},
        disturbance::disturb,
        filter,
        listing::{Listing, differences},
        packet_file,
        pairing::pair,
        replay::replay,
        scenarios::SCENARIOS,
        stage::play,
        tshark::messages,
    };

    /// Scenarios that play at the same time: most of their time is waiting.
    const WORKERS: usize = 4;

    /// Least number of exchanges a capture must hold: an empty list would agree with anything.
    const LEAST_EXCHANGES: usize = 1;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
    const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/opinion/disagreements.json");

    /// Names the directory into which the recordings of a run are also copied, made on port 80: how the committed ones
    /// are made, see the README beside them.
    const RECORD: &str = "OPINION_RECORD";

    /// The seed of this run: `OPINION_SEED`, or the clock.
    fn seed() -> u64 {
        env::var("OPINION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        })
    }

    /// Both lists of one capture.
    fn opinions(capture: &Path, ports: &[u16], directory: &Path) -> Result<(Listing, Listing)> {
        Ok((pair(&messages(capture, ports, directory)?), replay(capture, directory, &[0])?))
    }

    /// Complaints about one capture.
    fn judge(
        name: &str,
        capture: &Path,
        ports: &[u16],
        directory: &Path,
        listed: &[Disagreement],
    ) -> Result<Vec<String>> {
        let (tshark, pod2pod) = opinions(capture, ports, directory)?;
        let mut wrong = unexplained(name, &differences(&tshark, &pod2pod), listed);
        if tshark.values().map(Vec::len).sum::<usize>() < LEAST_EXCHANGES {
            wrong.push(format!("{name}: tshark sees no exchange at all"));
        }
        Ok(wrong)
    }

    /// Runs `work` on the numbers below `count`, a few at a time, and collects what it says.
    fn in_parallel(count: usize, work: impl Fn(usize) -> Vec<String> + Sync) -> Vec<String> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let worker = || {
                let mut said = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return said;
                    }
                    said.extend(work(number));
                }
            };
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        })
    }

    /// Keeps a judged recording, where it is to become a committed one.
    fn keep(name: &str, file: &Path) -> Result<()> {
        let Some(kept) = env::var_os(RECORD) else { return Ok(()) };
        fs::copy(file, Path::new(&kept).join(name).with_extension("pcap"))
            .context("cannot keep a recording")?;
        Ok(())
    }

    #[test]
    fn fresh_recordings_agree() {
        let seed = seed();
        // Committed captures have their servers on a port that tshark knows.
        let port = env::var_os(RECORD).map(|_| 80);
        println!("seed {seed}: run again with OPINION_SEED={seed}");
        let directory = tempfile::tempdir().unwrap();
        let listed = disagreements::read(Path::new(LIST)).unwrap();
        let wrong = in_parallel(SCENARIOS.len(), |number| {
            let scenario = &SCENARIOS[number];
            let seed = seed.wrapping_add(number as u64);
            let judged = play(scenario, seed, port, directory.path()).and_then(|capture| {
                keep(scenario.name, &capture.file)?;
                judge(scenario.name, &capture.file, &[capture.port], &capture.directory, &listed)
            });
            judged.unwrap_or_else(|error| vec![format!("{error:#}")])
        });
        assert!(wrong.is_empty(), "seed {seed}\n{}", wrong.join("\n"));
    }

    /// The captures in `tests/data`, sorted.
    fn committed() -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(DATA).context(DATA)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
                files.push(file);
            }
        }
        files.sort();
        Ok(files)
    }

    #[test]
    fn committed_captures_agree() {
        let directory = tempfile::tempdir().unwrap();
        let listed = disagreements::read(Path::new(LIST)).unwrap();
        let files = committed().unwrap();
        assert!(files.len() >= 10, "only {} captures in {DATA}", files.len());
        let wrong = in_parallel(files.len(), |number| {
            let (file, directory) = (&files[number], directory.path().join(number.to_string()));
            let name = file.file_stem().unwrap().to_string_lossy();
            let judged = fs::create_dir(&directory).context("directory").and_then(|()| {
                // Their servers listen on port 80 or 8080, which tshark knows.
                judge(&name, file, &[], &directory, &listed)
            });
            judged.unwrap_or_else(|error| vec![format!("{error:#}")])
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn written_packet_files_agree() {
        let directory = tempfile::tempdir().unwrap();
        let listed = disagreements::read(Path::new(LIST)).unwrap();
        let files = committed().unwrap();
        let wrong = in_parallel(files.len(), |number| {
            let (file, directory) = (&files[number], directory.path().join(number.to_string()));
            let name = file.file_stem().unwrap().to_string_lossy();
            let (covered, raw) = (directory.join("covered"), directory.join("raw"));
            let judged = (|| {
                fs::create_dir(&directory)?;
                let told = packet_file::write(file, &directory, &covered, "on")?;
                let mut wrong = packet_file::judge(&covered, told, &directory)?;
                let told = packet_file::write(file, &directory, &raw, "off")?;
                wrong.extend(packet_file::judge(&raw, told, &directory)?);
                wrong.extend(judge(&name, &raw, &[], &directory, &listed)?);
                Ok::<_, anyhow::Error>(wrong)
            })();
            let wrong = judged.unwrap_or_else(|error| vec![format!("{error:#}")]);
            wrong.into_iter().map(|wrong| format!("{name}: {wrong}")).collect()
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn expressions_keep_the_connections_that_tcpdump_shows() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = committed().unwrap();
        // There tcpdump looks at the outermost headers, or does not know the link layer.
        let inside = ["crafted-links", "crafted-taps", "crafted-tunnels"];
        files.retain(|file| !inside.iter().any(|name| file.to_string_lossy().contains(name)));
        let wrong = in_parallel(files.len(), |number| {
            let directory = directory.path().join(number.to_string());
            let judged = fs::create_dir(&directory)
                .context("directory")
                .and_then(|()| filter::judge(&files[number], &directory));
            judged.unwrap_or_else(|error| vec![format!("{}: {error:#}", files[number].display())])
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn connection_attempts_are_what_tshark_sees() {
        let seed = seed();
        println!("seed {seed}: run again with OPINION_SEED={seed}");
        let directory = tempfile::tempdir().unwrap();
        let wrong = connects::judge(seed, directory.path()).unwrap();
        assert!(wrong.is_empty(), "seed {seed}\n{}", wrong.join("\n"));
    }

    #[test]
    fn disturbed_captures_tell_the_same() {
        let seed = seed();
        let directory = tempfile::tempdir().unwrap();
        // Recorded ones only: in a crafted one the order is often the case itself.
        let mut files = committed().unwrap();
        files.retain(|file| !file.to_string_lossy().contains("crafted-"));
        let wrong = in_parallel(files.len(), |number| {
            let directory = directory.path().join(number.to_string());
            let judged = (|| {
                fs::create_dir(&directory)?;
                let disturbed =
                    disturb(&fs::read(&files[number])?, &mut Rng::new(seed.wrapping_add(number as u64)));
                let file = directory.join("disturbed.pcap");
                fs::write(&file, disturbed)?;
                let (plain, disturbed) =
                    (replay(&files[number], &directory, &[0])?, replay(&file, &directory, &[0])?);
                Ok::<_, anyhow::Error>(unexplained(
                    &files[number].to_string_lossy(),
                    &differences(&plain, &disturbed),
                    &[],
                ))
            })();
            judged.unwrap_or_else(|error| vec![format!("{error:#}")])
        });
        assert!(wrong.is_empty(), "seed {seed}; \"tshark\" is the capture as it was\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_list_with_a_line_less_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let capture = Path::new(DATA).join("nginx-curl-ipv6.pcap");
        let (tshark, pod2pod) = opinions(&capture, &[], directory.path()).unwrap();
        assert_eq!(differences(&tshark, &pod2pod), [], "there is nothing to explain before the change");
        for connection in 0..tshark.len() {
            let (mut theirs, mut ours) = (tshark.clone(), pod2pod.clone());
            theirs.values_mut().nth(connection).unwrap().pop();
            assert_eq!(differences(&theirs, &pod2pod).len(), 1, "a line less from tshark");
            ours.values_mut().nth(connection).unwrap().pop();
            assert_eq!(differences(&tshark, &ours).len(), 1, "a line less from pod2pod");
        }
    }
}
