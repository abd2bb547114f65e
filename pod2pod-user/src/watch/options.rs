//! Flags of `pod2pod ipvs`, those of ipvs-logger among them, and what they mean; all mistakes are told at once.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::exact::Mode;
use crate::{
    flags::{self, chosen, refused},
    ipvs::selection::{self, Pattern},
};

/// Where the kernel has its entries.
pub const DEFAULT_PATH: &str = "/proc/net/ip_vs_conn";
/// From one poll to the next; ipvs-logger's. Short enough for CLOSE, which lasts 10 s.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest interval: the time-outs are of whole seconds.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest interval: closed entries live two minutes, and two polls should see each.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// Flags as written.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Table of entries to read; its siblings are looked for beside it
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// From one poll to the next: seconds, or a duration; with --diff from A to B
    #[arg(long, value_name = "INTERVAL")]
    pub interval: Option<String>,
    /// Service to watch: an address, a network, or an address and a port; can be repeated
    #[arg(long, alias = "service-ip", value_name = "SERVICE")]
    pub service: Vec<String>,
    /// auto, json, text, table, or legacy: ipvs-logger's line
    #[arg(long)]
    pub format: Option<String>,
    /// exact, or legacy: ipvs-logger's rule
    #[arg(long, value_name = "RULE")]
    pub detector: Option<String>,
    /// auto, exact: the kernel's own decisions by eBPF, or polling
    #[arg(long)]
    pub mode: Option<String>,
    /// Tells once what is there, then ends
    #[arg(long)]
    pub once: bool,
    /// Compares two saved tables: files, or folders with ip_vs_conn, and ip_vs beside it
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub diff: Vec<PathBuf>,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Poll until a signal comes.
    Watch,
    /// One look.
    Once,
    /// Two saved tables.
    Diff(PathBuf, PathBuf),
}

/// How reuses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The live table on a terminal, JSON elsewhere; of one look, or of two tables, text on a terminal.
    Auto,
    /// A table of services and real servers, anew with each poll.
    Table,
    /// A JSON object a line.
    Json,
    /// A line for people.
    Text,
    /// ipvs-logger's line.
    Legacy,
}

/// Which rule finds reuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The one of `ipvs::detect`.
    Exact,
    /// ipvs-logger's.
    Legacy,
}

/// What the flags mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is to be done.
    pub task: Task,
    /// Table of entries.
    pub path: PathBuf,
    /// From one poll to the next.
    pub interval: Duration,
    /// Which services; all, if there are none.
    pub services: Vec<Pattern>,
    /// How reuses are written.
    pub format: Format,
    /// Which rule finds them.
    pub rule: Rule,
    /// Whether the kernel's decisions are followed.
    pub mode: Mode,
    /// Least severe level that is logged.
    pub log_level: LevelFilter,
}

impl Flags {
    /// What they mean.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn options(self) -> Result<Options, Vec<String>> {
        let mut mistakes = Vec::new();
        let interval =
            chosen(&mut mistakes, "--interval", self.interval, DEFAULT_INTERVAL, INTERVALS, interval);
        let format = chosen(
            &mut mistakes,
            "--format",
            self.format,
            Format::Auto,
            "auto, json, text, table, legacy",
            format,
        );
        let rule = chosen(&mut mistakes, "--detector", self.detector, Rule::Exact, "exact, legacy", rule);
        let mode = chosen(&mut mistakes, "--mode", self.mode, Mode::Auto, "auto, exact, polling", mode);
        let level = |text: &str| text.parse().ok();
        let levels = "off, error, warn, info, debug, trace";
        let log_level =
            chosen(&mut mistakes, "--log-level", self.log_level, LevelFilter::WARN, levels, level);
        let mut services = Vec::new();
        for text in self.service.iter().flat_map(|texts| texts.split(',')) {
            match Pattern::parse(text) {
                Some(pattern) => services.push(pattern),
                None => mistakes.push(refused("--service", text, selection::ALLOWED)),
            }
        }
        let path = self.path.unwrap_or_else(|| DEFAULT_PATH.into());
        let task = match (self.once, <[PathBuf; 2]>::try_from(self.diff)) {
            (true, Ok(_)) => {
                mistakes.push("--once, --diff: only one of them can be done".to_owned());
                Task::Once
            }
            (true, Err(_)) => Task::Once,
            (false, Ok([before, after])) => Task::Diff(before, after),
            (false, Err(_)) => Task::Watch,
        };
        if task == Task::Once && (format == Format::Legacy || rule == Rule::Legacy) {
            mistakes.push("--once: there is nothing legacy about it; it takes auto, json or text".to_owned());
        }
        if mode == Mode::Exact && (task != Task::Watch || format == Format::Legacy || rule == Rule::Legacy) {
            mistakes.push(
                "--mode: exact is of the live watch only, without --once, --diff, and what is legacy"
                    .to_owned(),
            );
        }
        let options = Options { task, path, interval, services, format, rule, mode, log_level };
        if mistakes.is_empty() { Ok(options) } else { Err(mistakes) }
    }
}

const INTERVALS: &str = "a number of seconds, or a duration such as 500ms, 5s, 1m; from 100ms to 1m";

fn interval(text: &str) -> Option<Duration> {
    flags::interval(text, MIN_INTERVAL..=MAX_INTERVAL)
}

fn format(text: &str) -> Option<Format> {
    match text {
        "auto" => Some(Format::Auto),
        "json" => Some(Format::Json),
        "text" => Some(Format::Text),
        "table" => Some(Format::Table),
        "legacy" => Some(Format::Legacy),
        _ => None,
    }
}

fn rule(text: &str) -> Option<Rule> {
    match text {
        "exact" => Some(Rule::Exact),
        "legacy" => Some(Rule::Legacy),
        _ => None,
    }
}

fn mode(text: &str) -> Option<Mode> {
    match text {
        "auto" => Some(Mode::Auto),
        "exact" => Some(Mode::Exact),
        "polling" => Some(Mode::Polling),
        _ => None,
    }
}

/// Flags of ipvs-logger, which Go lets be written with one dash.
const ONE_DASH: [&str; 3] = ["-interval", "-path", "-service-ip"];

/// The command line, with two dashes where `pod2pod ipvs` takes one.
pub fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|command| command == "ipvs") {
        for argument in arguments.iter_mut().skip(2) {
            let is_one = |text: &str| ONE_DASH.contains(&text.split_once('=').map_or(text, |(name, _)| name));
            if argument.to_str().is_some_and(is_one) {
                *argument = [OsStr::new("-"), argument].concat_os();
            }
        }
    }
    arguments
}

trait ConcatOs {
    fn concat_os(self) -> OsString;
}

impl ConcatOs for [&OsStr; 2] {
    fn concat_os(self) -> OsString {
        self.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(set: impl FnOnce(&mut Flags)) -> Result<Options, Vec<String>> {
        let mut flags = Flags::default();
        set(&mut flags);
        flags.options()
    }

    #[test]
    fn defaults() {
        let options = flags(|_| {}).unwrap();
        assert_eq!((options.path.to_str(), options.interval), (Some(DEFAULT_PATH), DEFAULT_INTERVAL));
        assert_eq!((options.task, options.format, options.rule), (Task::Watch, Format::Auto, Rule::Exact));
    }

    #[test]
    fn intervals() {
        for (text, expected) in [
            ("5", Some(DEFAULT_INTERVAL)),
            ("5s", Some(DEFAULT_INTERVAL)),
            ("100ms", Some(MIN_INTERVAL)),
            ("99ms", None),
            ("60", Some(MAX_INTERVAL)),
            ("61", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
        ] {
            let options = flags(|flags| flags.interval = Some(text.to_owned()));
            assert_eq!(options.ok().map(|options| options.interval), expected, "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_told() {
        let mistakes = flags(|flags| {
            flags.interval = Some("0".to_owned());
            flags.format = Some("xml".to_owned());
            flags.detector = Some("guess".to_owned());
            flags.mode = Some("sure".to_owned());
            flags.log_level = Some("loud".to_owned());
            flags.service = vec!["10.96.0.10,web".to_owned(), "10.0.0.0/99".to_owned()];
            flags.once = true;
            flags.diff = vec!["a".into(), "b".into()];
        });
        assert_eq!(mistakes.unwrap_err().len(), 8);
        assert_eq!(
            flags(|flags| (flags.once, flags.format) = (true, Some("legacy".to_owned()))).unwrap_err().len(),
            1
        );
    }

    #[test]
    fn exact_mode_is_of_the_live_watch() {
        for (mode, expected) in [("auto", Mode::Auto), ("exact", Mode::Exact), ("polling", Mode::Polling)] {
            let set = |flags: &mut Flags| flags.mode = Some(mode.to_owned());
            assert_eq!(flags(set).unwrap().mode, expected);
            let once = flags(|flags| (flags.mode, flags.once) = (Some(mode.to_owned()), true));
            assert_eq!(once.is_err(), expected == Mode::Exact, "{mode}");
            let legacy = |flags: &mut Flags| {
                (flags.mode, flags.format) = (Some(mode.to_owned()), Some("legacy".to_owned()));
            };
            assert_eq!(flags(legacy).is_err(), expected == Mode::Exact, "{mode}");
        }
    }

    #[test]
    fn flags_of_the_old_tool_may_have_one_dash() {
        let line = |text: &str| with_two_dashes(text.split(' ').map(OsString::from)).join(OsStr::new(" "));
        let old = "pod2pod ipvs -interval 15 -path=/x -service-ip 10.0.0.1 --once -x";
        assert_eq!(line(old), "pod2pod ipvs --interval 15 --path=/x --service-ip 10.0.0.1 --once -x");
        assert_eq!(line("pod2pod agent -interval 15"), "pod2pod agent -interval 15");
    }
}
