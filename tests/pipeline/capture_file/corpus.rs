//! The fuzz corpora of capture files and packets, replayed against their properties.

use std::{fs, panic, path::Path};

use support::capture_properties;

fn replay(target: &str, property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        let data = fs::read(&input).expect("a readable input");
        let held = panic::catch_unwind(panic::AssertUnwindSafe(|| property(&data)));
        assert!(held.is_ok(), "{}", input.display());
    }
}

#[test]
fn capture_files() {
    replay("capture_file", capture_properties::capture_file);
}

#[test]
fn packets() {
    replay("packet", capture_properties::packet);
}
