//! The opinion tier: real servers and clients are recorded, and `pod2pod replay` and tshark must tell the same list of
//! exchanges. Needs root, tshark, tcpdump and the programs of the scenarios; `cargo xtask test opinion` installs them.

#[cfg(test)]
mod listing;
#[cfg(test)]
mod pairing;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tshark;

#[cfg(test)]
mod tests {
    use crate::{pairing::pair, scenarios::SCENARIOS, stage::play, tshark::messages};

    #[test]
    fn fresh_recordings() {
        let directory = tempfile::tempdir().unwrap();
        for scenario in SCENARIOS {
            let capture = play(scenario, 1, None, directory.path()).unwrap();
            let messages = messages(&capture.file, &[capture.port], directory.path()).unwrap();
            for (ends, lines) in pair(&messages) {
                for line in lines {
                    println!("{ends:?}: {line}");
                }
            }
        }
    }
}
