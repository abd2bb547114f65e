//! What of a sink is kept on disk, and where.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::SinkConfig;
use crate::delivery::{DeadLetters, spool};

/// What of a sink is kept on disk.
#[derive(Debug, Default)]
pub struct Kept {
    /// What its target refuses.
    pub dead: Option<DeadLetters>,
    /// Where it may have a spool.
    pub data_dir: Option<PathBuf>,
    /// How long it waits for that while a sink of the same name, which leaves, has it.
    pub patience: Duration,
}

/// The folder of all spools in the data directory.
const SPOOL_FOLDER: &str = "spool";

/// Folders of spools in `data_dir` that have something and that none of `sinks` uses, and how many bytes that is; one that cannot be read
/// has none.
pub fn left_behind(data_dir: &Path, sinks: &[SinkConfig]) -> Vec<(PathBuf, u64)> {
    let used: Vec<_> = sinks.iter().map(|sink| spool_folder(data_dir, sink)).collect();
    let folders = fs::read_dir(data_dir.join(SPOOL_FOLDER)).into_iter().flatten().flatten();
    let unused = folders.map(|folder| folder.path()).filter(|folder| !used.contains(folder));
    let mut left: Vec<_> =
        unused.map(|folder| (folder.clone(), spool::bytes(&folder).unwrap_or(0))).collect();
    left.retain(|(_, bytes)| *bytes > 0);
    left.sort();
    left
}

/// What is in a spool is of its sink's type: of another type it is another folder.
pub(super) fn spool_folder(data_dir: &Path, sink: &SinkConfig) -> PathBuf {
    data_dir.join(SPOOL_FOLDER).join(format!("{}.{}", sink.common.name, sink.target.word()))
}
