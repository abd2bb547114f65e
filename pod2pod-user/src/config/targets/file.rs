//! Keys of `type: file`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{DEFAULT_BATCH_RECORDS, SECTION, Settings, SinkKey as Key, SinkType, Wrong, common};
use crate::{
    config::{
        Config,
        keys::{positive, put},
    },
    pcap::files::check_path,
    sinks::{
        TargetConfig,
        file::{
            self, Compression, DEFAULT_MAX_FILE_BYTES, DEFAULT_MAX_FILES, DEFAULT_MODE, Durability,
            MAX_FILES, MIN_FILE_BYTES,
        },
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "file",
    sentence: "A file of lines, begun anew by size and age; a batch is in it as a whole, and waits where there is no room.",
    schemes: &[],
    keys: &[KEYS, common::FORMAT, common::LINES, common::KEYS],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// `file` as written.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: Option<PathBuf>,
    max_file_bytes: u64,
    max_file_age: Option<Duration>,
    max_files: u64,
    compression: Compression,
    durability: Durability,
    mode: u32,
}

impl Default for LogFile {
    fn default() -> Self {
        Self {
            path: None,
            max_file_bytes: DEFAULT_MAX_FILE_BYTES,
            max_file_age: None,
            max_files: DEFAULT_MAX_FILES,
            compression: Compression::None,
            durability: Durability::Never,
            mode: DEFAULT_MODE,
        }
    }
}

static KEYS: &[Key] = &[
    Key {
        path: "path",
        allowed: "a path",
        default: "",
        sentence: "The file that is written; what is there already stays. Who moves it away gets the next batch in a new one.",
        set: |sink, given| put(&mut sink.file.path, Some(Some(given.path()?))),
    },
    Key {
        path: "max_file_bytes",
        allowed: "a size from 1MiB",
        default: "64MiB",
        sentence: "Once it has so many bytes the next batch begins another; it is kept under its name and the time, `records.jsonl.20261123T035400.123456789Z`.",
        set: |sink, given| {
            put(&mut sink.file.max_file_bytes, given.bytes().filter(|bytes| *bytes >= MIN_FILE_BYTES))
        },
    },
    Key {
        path: "max_file_age",
        allowed: "a duration such as 10s, 2m, or unlimited",
        default: "unlimited",
        sentence: "Once it is so old the next batch begins another.",
        set: |sink, given| {
            let age = match given.text()? {
                "unlimited" => None,
                _ => Some(positive(given)?),
            };
            put(&mut sink.file.max_file_age, Some(age))
        },
    },
    Key {
        path: "max_files",
        allowed: "a number from 1 to 1000",
        default: "4",
        sentence: "Files at most, with the one that is written; the oldest are removed.",
        set: |sink, given| {
            put(&mut sink.file.max_files, given.integer().filter(|count| (1..=MAX_FILES).contains(count)))
        },
    },
    Key {
        path: "compression",
        allowed: "none, gzip, zstd",
        default: "none",
        sentence: "How files are kept that are not written any more.",
        set: |sink, given| {
            sink.file.compression = match given.text()? {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                "zstd" => Compression::Zstd,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "sync",
        allowed: "never, batch, or a duration such as 250ms, 10s",
        default: "never",
        sentence: "When what was written is made to be on disk (fdatasync): before a batch counts as delivered, so long after it, or when the kernel likes to, which is half a minute.",
        set: |sink, given| {
            sink.file.durability = match given.text()? {
                "never" => Durability::Never,
                "batch" => Durability::Batch,
                _ => Durability::Every(positive(given)?),
            };
            Some(())
        },
    },
    Key {
        path: "mode",
        allowed: "an octal number such as 0600, 0640",
        default: "0600",
        sentence: "Who may read and write a new file, less what the process's umask forbids.",
        set: |sink, given| {
            let mode = u32::from_str_radix(given.text()?, 8).ok();
            // Its owner has to write, and is asked for nothing else.
            put(&mut sink.file.mode, mode.filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600))
        },
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let LogFile { path, max_file_bytes, max_file_age, max_files, compression, durability, mode } =
        sink.file.clone();
    let Some(path) = path else {
        wrong.push(("path", "it is missing: say which file".to_owned()));
        return None;
    };
    if let Err(error) = check_path(&path) {
        wrong.push(("path", format!("{}: {error}", path.display())));
    }
    let config =
        file::Config { path, max_file_bytes, max_file_age, max_files, compression, durability, mode };
    Some(TargetConfig::File(Box::new(config)))
}

/// Files that more than one would write: each mistake.
pub(in crate::config) fn shared(config: &Config) -> Vec<String> {
    let own = [("capture.write_pcap.file", &config.pcap.file), ("output.file", &config.output.file)];
    let own = own.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_deref()?)));
    let sinks = config.sinks.iter().filter_map(|sink| match &sink.target {
        TargetConfig::File(file) => Some((format!("{SECTION}.{}.path", sink.common.name), &*file.path)),
        TargetConfig::Http(_)
        | TargetConfig::Elasticsearch(_)
        | TargetConfig::Fluentd(_)
        | TargetConfig::Kafka(_)
        | TargetConfig::Logstash(_)
        | TargetConfig::Syslog(_)
        | TargetConfig::SyslogHttp(_)
        | TargetConfig::Otlp(_)
        | TargetConfig::Postgres(_) => None,
    });
    let all: Vec<(String, &Path)> = own.chain(sinks).collect();
    let pairs = all.iter().enumerate().filter_map(|(place, (key, path))| {
        let (first, _) = all.iter().take(place).find(|(_, other)| whole(other) == whole(path))?;
        Some(format!("{first} and {key}: {} is the same file; each needs one of its own", path.display()))
    });
    pairs.collect()
}

/// Whatever its folder is called.
fn whole(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or(OsStr::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn told(settings: &[String]) -> Vec<String> {
        let settings = [settings, &["sinks.a.type=file".to_owned(), "sinks.b.type=file".to_owned()]].concat();
        let loaded = load::load(&load::Sources { settings, ..Default::default() });
        loaded.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_file_is_one_sinks() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().display(), folder.path().join("link"));
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let [a, other] = ["a", "link/a"].map(|name| format!("{path}/{name}"));
        let b = format!("sinks.b.path={path}/b");
        assert_eq!(told(&[format!("sinks.a.path={a}"), b.clone()]), [""; 0]);
        let expected =
            format!("sinks.a.path and sinks.b.path: {other} is the same file; each needs one of its own");
        assert_eq!(told(&[format!("sinks.a.path={a}"), format!("sinks.b.path={other}")]), [expected]);
        let settings = [format!("sinks.a.path={a}"), b, format!("output.file={a}")];
        assert!(told(&settings)[0].starts_with("output.file and sinks.a.path: "));
    }

    #[test]
    fn what_a_file_cannot_be_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            format!("sinks.a.path={}", folder.path().display()),
            "sinks.a.mode=0400".to_owned(),
            "sinks.a.max_file_bytes=1023KiB".to_owned(),
            "sinks.a.max_files=1001".to_owned(),
            "sinks.a.sync=0s".to_owned(),
        ];
        let told = told(&settings);
        for expected in [
            "--set: sinks.a.mode: ",
            "--set: sinks.a.max_file_bytes: ",
            "--set: sinks.a.max_files: ",
            "--set: sinks.a.sync: ",
            "sinks.a.path: ",
            "sinks.b.path: it is missing",
        ] {
            assert_eq!(told.iter().filter(|one| one.starts_with(expected)).count(), 1, "{told:#?}");
        }
        assert_eq!(told.len(), 6, "{told:#?}");
    }

    #[test]
    fn limits_are_as_the_table_says() {
        for (setting, allowed) in [
            (format!("max_files={MAX_FILES}"), true),
            (format!("max_files={}", MAX_FILES + 1), false),
            ("max_files=0".to_owned(), false),
            (format!("max_file_bytes={MIN_FILE_BYTES}"), true),
            (format!("max_file_bytes={}", MIN_FILE_BYTES - 1), false),
            ("mode=0777".to_owned(), true),
            ("mode=1777".to_owned(), false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let paths =
                ["a", "b"].map(|name| format!("sinks.{name}.path={}/{name}", folder.path().display()));
            let settings = [&paths[..], &[format!("sinks.a.{setting}")]].concat();
            assert_eq!(told(&settings).is_empty(), allowed, "{setting}");
        }
    }
}
