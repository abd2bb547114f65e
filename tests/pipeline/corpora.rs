//! The fuzz targets without a fuzzer: every target's corpus, replayed against its property. `tests/fuzz` finds new inputs.

use std::{collections::BTreeSet, fs, panic, path::PathBuf};

use support::{btf, capture_properties, http, ipvs, reassembly};

/// A target and its property, which panics when it is broken.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 7] = [
    ("btf", btf::properties),
    ("capture_file", capture_properties::capture_file),
    ("chunked", http::check_chunked),
    ("http", http::check_http),
    ("ipvs", ipvs::tables),
    ("packet", capture_properties::packet),
    ("reassembly", reassembly::properties),
];

/// Most files of a corpus: it is read by people too, and replayed in every run.
const MAX_CORPUS_FILES: usize = 100;
/// Most bytes of a corpus, all files together.
const MAX_CORPUS_BYTES: usize = 300 * 1024;

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without extension.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).expect("a folder that is in the tree");
    let name = |entry: PathBuf| entry.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| name(entry.expect("a readable folder").path())).collect()
}

/// What stands between `begin` and `end` in the lines of a file that begin so.
fn told(file: &str, begin: &str, end: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(fuzz().join(file)).expect("a file that is in the tree");
    let parts = text.lines().filter_map(|line| line.strip_prefix(begin)?.split_once(end));
    parts.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_target_is_built_told_and_replayed() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), expected, "programs");
    assert_eq!(names("corpus"), expected, "corpora");
    assert_eq!(told("Cargo.toml", "path = \"fuzz_targets/", ".rs\""), expected, "binaries in Cargo.toml");
    assert_eq!(told("README.md", "| `", "` |"), expected, "rows in README.md");
}

#[test]
fn corpora_have_the_properties() {
    for (name, property) in TARGETS {
        let entries = fs::read_dir(fuzz().join("corpus").join(name)).expect("a corpus");
        let mut inputs: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
        inputs.sort();
        assert!((1..=MAX_CORPUS_FILES).contains(&inputs.len()), "{name} has {} inputs", inputs.len());
        let mut bytes = 0;
        for input in inputs {
            let data = fs::read(&input).expect("a readable input");
            bytes += data.len();
            let held = panic::catch_unwind(|| property(&data));
            assert!(held.is_ok(), "{}", input.display());
        }
        assert!(bytes <= MAX_CORPUS_BYTES, "{name} has {bytes} bytes");
    }
}
