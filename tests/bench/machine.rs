//! What the figures were measured on and with.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use serde::{Deserialize, Serialize};

/// The machine and the versions of everything that took part.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// Program and version.
    pub(crate) versions: Vec<(String, String)>,
}

/// Programs, the arguments that make them tell, and the words around their version.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("nginx", &["-v"]),
    ("wrk", &["-v"]),
    ("tcpdump", &["--version"]),
    ("httpry", &["-h"]),
    ("tshark", &["-v"]),
    ("rsyslogd", &["-v"]),
];

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        let mut versions = vec![("pod2pod".to_owned(), commit())];
        for (program, arguments) in PROGRAMS {
            versions.push((program.to_owned(), version(program, arguments)));
        }
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: thread::available_parallelism().map_or(0, usize::from),
            // Who built it is no figure.
            kernel: read("/proc/sys/kernel/osrelease")
                .trim()
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned(),
            memory_mib: kib / 1024,
            versions,
        }
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let versions: Vec<String> =
            self.versions.iter().map(|(program, version)| format!("{program} {version}")).collect();
        format!(
            "{} × {}, {} MiB, Linux {}; {}",
            self.cores,
            self.cpu,
            self.memory_mib,
            self.kernel,
            versions.join(", ")
        )
    }
}

/// The first word with a digit that a program says when asked who it is.
fn version(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let word = said.split_whitespace().find(|word| word.contains(|c: char| c.is_ascii_digit()));
    let word = word.unwrap_or("not found").trim_end_matches(['.', ',']);
    word.rsplit_once('/').map_or(word, |(_, version)| version).to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    let commit =
        git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    if changed { format!("{commit} with changes") } else { commit }
}
