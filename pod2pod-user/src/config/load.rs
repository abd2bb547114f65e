//! Puts the sources together, later ones over earlier ones, and collects every mistake.

use std::{fmt, path::Path};

use nix::net::if_::if_nametoindex;

use super::{
    Config, file,
    keys::{self, Key, keys},
    legacy::{self, Taken},
    shown::{Said, without_secrets},
    targets::{self, MAX_SINKS, SECTION, SinkKey, SinkType, TYPES, Written},
    value::Given,
};
use crate::{
    filter::{Expression, ExpressionError, NamePattern, Selector, SelectorError},
    nearest::nearest,
    pcap::files,
    secrets::SecretError,
    sinks::Format,
};

/// What environment variables of ours begin with.
pub const ENVIRONMENT_PREFIX: &str = "POD2POD_";
/// What follows it in those of sinks.
const SINKS_PREFIX: &str = "SINKS_";
/// Variables with our prefix that are for the build and test tools.
const TOOL_PREFIXES: &[&str] = &["POD2POD_CACHE", "POD2POD_TEST_", "POD2POD_EBPF", "POD2POD_LIBPCAP"];
/// The environment variable that names the file.
pub const ENVIRONMENT_FILE: &str = "POD2POD_CONFIG";

/// Its default is another in the old format.
const IGNORE_TARGETS: &str = "ignore.targets";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of the file.
    File(String, u64),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(formatter, "{path}:{line}"),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// Something wrong.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// No such key.
    #[error("{source_of}: unknown key {key}{}", suggestion(.nearest))]
    UnknownKey {
        /// Where.
        source_of: Source,
        /// As written.
        key: String,
        /// The most similar key, if one is similar.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("{source_of}: {key}: {given:?} is not allowed; allowed: {allowed}")]
    BadValue {
        /// Where.
        source_of: Source,
        /// Its key.
        key: String,
        /// As written.
        given: String,
        /// What is.
        allowed: String,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no YAML mapping.
    #[error("{path}: {message}")]
    NotYaml {
        /// Its path.
        path: String,
        /// What the parser says.
        message: String,
    },
    /// A label selector.
    #[error("{key}: {text:?}: {source}")]
    Selector {
        /// Its key.
        key: &'static str,
        /// As written.
        text: String,
        /// Why not, and where in it.
        source: SelectorError,
    },
    /// The filter expression.
    #[error("filter.expression: {text:?}: {source}")]
    Expression {
        /// As written.
        text: String,
        /// Why not.
        source: ExpressionError,
    },
    /// An interface that is named and is not there.
    #[error(
        "capture.interfaces: there is no interface {0} in this network namespace; a pattern such as {0}* also means those \
         that come later"
    )]
    NoInterface(String),
    /// The same for the filter.
    #[error(
        "filter.interfaces: there is no interface {0}; a glob such as {0}* also means those that come later"
    )]
    NoFilterInterface(String),
    /// The packet file.
    #[error("capture.write_pcap.file: {path}: {source}")]
    PacketFile {
        /// Its path.
        path: String,
        /// Why not.
        source: files::Unwritable,
    },
    /// The directory of what outlives the process.
    #[error("data_dir: {path} cannot be written to: {source}")]
    DataDirectory {
        /// Its path.
        path: String,
        /// Why not.
        source: nix::errno::Errno,
    },
    /// Certificate, key or token.
    #[error("{section}: {error}")]
    Secret {
        /// Whose it is.
        section: String,
        /// What is wrong with it.
        error: SecretError,
    },
    /// A key of another type of sinks.
    #[error("{source_of}: {key} is a key of sinks of type {of}, and this one is of type {is}")]
    OtherType {
        /// Where.
        source_of: Source,
        /// Its key.
        key: String,
        /// Whose it is.
        of: String,
        /// The sink's.
        is: &'static str,
    },
    /// Values that exclude each other, or miss one.
    #[error("{0}")]
    Contradiction(String),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

/// The sources besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by the flag.
    pub file: Option<std::path::PathBuf>,
    /// Environment variables, all of them.
    pub environment: Vec<(String, String)>,
    /// Key, value and name of each flag given.
    pub flags: Vec<(&'static str, Given, &'static str)>,
    /// `KEY=VALUE` of each `--set`.
    pub settings: Vec<String>,
    /// It is for this machine, so what it names has to be here.
    pub live: bool,
}

/// The configuration that the sources make together.
///
/// # Errors
/// Every mistake in them.
pub fn load(sources: &Sources) -> Result<Config, Vec<Mistake>> {
    let mut loading = Loading { config: Config::default(), sinks: Vec::new(), mistakes: Vec::new() };
    if sources.live {
        loading.add_legacy(&sources.environment);
    }
    let of_environment = sources.environment.iter().find(|(name, _)| name == ENVIRONMENT_FILE);
    let file = sources.file.clone().or_else(|| of_environment.map(|(_, path)| path.into()));
    if let Some(path) = file {
        loading.add_file(&path);
    }
    loading.add_environment(&sources.environment);
    for setting in &sources.settings {
        loading.add_setting(setting);
    }
    for (key, given, flag) in &sources.flags {
        loading.add(key, given, Source::Flag(flag));
    }
    if sources.live {
        loading.add_legacy_sinks(&sources.environment);
    }
    loading.complete_old_format();
    loading.build_sinks();
    loading.compile_expression();
    loading.read_selectors();
    loading.mistakes.extend(keys::contradictions(&loading.config).into_iter().map(Mistake::Contradiction));
    if sources.live {
        let missing = loading.config.capture.missing_interfaces();
        loading.mistakes.extend(missing.into_iter().map(|name| Mistake::NoInterface(name.to_owned())));
        loading.look_at_data_directory();
    }
    loading.look_for_places(sources.live);
    loading.look_at_packet_file();
    loading.look_at_secrets();
    loading.config.sources = sources.clone();
    if loading.mistakes.is_empty() { Ok(loading.config) } else { Err(loading.mistakes) }
}

struct Loading {
    config: Config,
    /// In the order in which they were named first.
    sinks: Vec<Written>,
    mistakes: Vec<Mistake>,
}

impl Loading {
    /// What was meant for kubernetes-pod2pod-log.
    fn add_legacy(&mut self, environment: &[(String, String)]) {
        for name in legacy::NAMES {
            let Some((_, value)) = environment.iter().find(|(other, _)| other == name.name) else { continue };
            match name.take(value) {
                Taken::Set(key, given) => {
                    let told = format!("{}: taken as {key}: {}", name.name, given.texts.join(", "));
                    self.config.notes.push(told);
                    self.add(key, &given, Source::Environment(name.name.to_owned()));
                }
                Taken::Nothing => {}
                Taken::Replaced => {
                    self.config.notes.push(format!("{} is not used here: {}", name.name, name.meaning));
                }
            }
        }
    }

    /// Its sinks, but for those of a type or name that is configured.
    fn add_legacy_sinks(&mut self, environment: &[(String, String)]) {
        for legacy::Asked { word, by, said } in legacy::sinks(environment) {
            let is_so =
                |sink: &&Written| sink.name == word || sink.sink_type().is_some_and(|one| one.word == word);
            if let Some(Written { name, .. }) = self.sinks.iter().find(is_so) {
                let told = format!("{by} is not used: {SECTION}.{name} is of type {word} or has its name");
                self.config.notes.push(told);
                continue;
            }
            let values =
                said.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ");
            self.config.notes.push(format!("{by}: taken as {SECTION}.{word}: {values}"));
            for (key, value) in said {
                self.say_of_sink(word, key, &Given::one(value), Source::Environment(by.to_owned()));
            }
        }
    }

    /// The old format leaves out what its program did, unless it is said what is to be left out.
    fn complete_old_format(&mut self) {
        let is_said = self.config.said.iter().any(|said| said.key == IGNORE_TARGETS);
        if self.config.output.format == Some(Format::Pod2podLog) && !is_said {
            self.config.enrich.ignore.set_targets(legacy::IGNORED_TARGETS.map(str::to_owned).to_vec());
        }
        self.config.output.with_headers = !self.config.http.request_headers.is_empty();
    }

    fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(source) => return self.mistakes.push(Mistake::Unreadable { path: name, source }),
        };
        match file::entries(&text) {
            Ok(entries) => {
                for entry in entries {
                    let source = Source::File(name.clone(), entry.line);
                    self.add(&entry.path, &entry.value.unwrap_or_else(|| Given::list(Vec::new())), source);
                }
            }
            Err(message) => self.mistakes.push(Mistake::NotYaml { path: name, message }),
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        for (name, value) in environment {
            let tool = TOOL_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if !name.starts_with(ENVIRONMENT_PREFIX)
                || name == ENVIRONMENT_FILE
                || tool
                || is_service_link(name)
            {
                continue;
            }
            let source = Source::Environment(name.clone());
            let of_sink =
                name.strip_prefix(ENVIRONMENT_PREFIX).and_then(|rest| rest.strip_prefix(SINKS_PREFIX));
            if let Some((sink, key)) = of_sink.and_then(targets::of_environment) {
                self.say_of_sink(&sink, key, &Given::one(value), source);
                continue;
            }
            match keys().find(|key| key.environment() == *name) {
                Some(key) => self.set(key, &Given::one(value), source),
                None => {
                    let names = keys().map(Key::environment);
                    let nearest = nearest(name, names);
                    self.mistakes.push(Mistake::UnknownKey { source_of: source, key: name.clone(), nearest });
                }
            }
        }
    }

    fn add_setting(&mut self, setting: &str) {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        self.add(key.trim(), &Given::one(value), Source::Flag("--set"));
    }

    fn add(&mut self, path: &str, given: &Given, source: Source) {
        if let Some((sink, key)) = targets::name_and_key(path) {
            return self.say_of_sink(sink, key, given, source);
        }
        match keys().find(|key| key.path == path) {
            Some(key) => self.set(key, given, source),
            None => {
                let nearest = nearest(path, keys().map(|key| key.path.to_owned()));
                self.mistakes.push(Mistake::UnknownKey { source_of: source, key: path.to_owned(), nearest });
            }
        }
    }

    fn say_of_sink(&mut self, name: &str, key: &str, given: &Given, source: Source) {
        let place = self.sinks.iter().position(|sink| sink.name == name).unwrap_or_else(|| {
            self.sinks.push(Written { name: name.to_owned(), said: Vec::new() });
            self.sinks.len() - 1
        });
        if let Some(sink) = self.sinks.get_mut(place) {
            sink.said.push((key.to_owned(), given.clone(), source));
        }
    }

    /// What is said of sinks has its meaning once the type of each is known.
    fn build_sinks(&mut self) {
        let sinks = std::mem::take(&mut self.sinks);
        if sinks.len() > MAX_SINKS {
            self.mistakes.push(Mistake::Contradiction(format!(
                "{SECTION}: {} are named, and no more than {MAX_SINKS} are possible",
                sinks.len()
            )));
        }
        for sink in &sinks {
            self.mistakes.extend(sink.check_name().map(Mistake::Contradiction));
            match sink.sink_type() {
                Some(one) => self.build_sink(sink, one),
                None => self.mistakes.push(Mistake::Contradiction(sink.without_type())),
            }
        }
    }

    fn build_sink(&mut self, sink: &Written, one: &'static SinkType) {
        let mut settings = targets::Settings::default();
        let mut bad = Vec::new();
        for (word, given, source) in &sink.said {
            let path = format!("{SECTION}.{}.{word}", sink.name);
            let text = given.texts.join(", ");
            match one.keys().find(|key| key.path == word) {
                Some(key) if (key.set)(&mut settings, given).is_none() => {
                    bad.push(word.as_str());
                    let (given, allowed) = (without_secrets(&path, &text), key.allowed.to_owned());
                    self.mistakes.push(Mistake::BadValue {
                        source_of: source.clone(),
                        key: path,
                        given,
                        allowed,
                    });
                }
                None if word != "type" => self.no_such_key(path, word, one, source.clone()),
                Some(_) | None => {
                    self.config.said.push(Said { key: path, text, source: source.to_string() });
                }
            }
        }
        let (built, wrong) = sink.build(one, &settings, &bad, self.config.enrich.slow);
        self.config.sinks.extend(built);
        self.mistakes.extend(wrong.into_iter().map(Mistake::Contradiction));
    }

    fn no_such_key(&mut self, key: String, word: &str, one: &SinkType, source_of: Source) {
        let has = |one: &&&SinkType| one.keys().any(|key| key.path == word);
        let others: Vec<_> = TYPES.iter().filter(has).map(|one| one.word).collect();
        self.mistakes.push(if others.is_empty() {
            let prefix = key.strip_suffix(word).unwrap_or_default();
            let known = one.keys().map(|key: &SinkKey| format!("{prefix}{}", key.path));
            let nearest = nearest(&key, known);
            Mistake::UnknownKey { source_of, key, nearest }
        } else {
            Mistake::OtherType { source_of, key, of: others.join(", "), is: one.word }
        });
    }

    /// Interfaces and cgroups are this machine's, and capture files do not tell them.
    fn look_for_places(&mut self, live: bool) {
        let filter = &self.config.filter;
        if live {
            let names = filter.interfaces.iter().filter_map(NamePattern::name);
            let missing = names.filter(|name| if_nametoindex(*name).is_err()).map(str::to_owned);
            self.mistakes.extend(missing.map(Mistake::NoFilterInterface));
        } else if !filter.interfaces.is_empty() || !filter.cgroups.is_empty() {
            self.mistakes.push(Mistake::Contradiction(
                "filter.interfaces and filter.cgroups: capture files do not tell them; they are for the agent".to_owned(),
            ));
        }
    }

    fn look_at_packet_file(&mut self) {
        let Some(path) = &self.config.pcap.file else { return };
        if let Err(source) = files::check_path(path) {
            self.mistakes.push(Mistake::PacketFile { path: path.display().to_string(), source });
        }
    }

    fn look_at_data_directory(&mut self) {
        let Some(path) = &self.config.data_dir else { return };
        if let Err(source) = files::check_folder(path) {
            self.mistakes.push(Mistake::DataDirectory { path: path.display().to_string(), source });
        }
    }

    fn look_at_secrets(&mut self) {
        let mut secrets = |section: String, found: Vec<SecretError>| {
            let mistake = |error| Mistake::Secret { section: section.clone(), error };
            self.mistakes.extend(found.into_iter().map(mistake));
        };
        secrets("admin".to_owned(), self.config.admin.check_files());
        for sink in &self.config.sinks {
            secrets(format!("{SECTION}.{}", sink.common.name), sink.check_files());
        }
    }

    fn compile_expression(&mut self) {
        let Some(text) = &self.config.filter_expression else { return };
        match Expression::compile(text) {
            Ok(expression) => self.config.filter.expression = Some(expression),
            Err(source) => self.mistakes.push(Mistake::Expression { text: text.clone(), source }),
        }
    }

    fn read_selectors(&mut self) {
        let Config { selectors, names, .. } = &mut self.config;
        for (key, text, place) in [
            ("filter.labels", &selectors.only, &mut names.selection.only.labels),
            ("filter.ignore_labels", &selectors.ignore, &mut names.selection.ignore.labels),
        ] {
            let Some(text) = text else { continue };
            match Selector::parse(text) {
                Ok(selector) => *place = Some(selector),
                Err(source) => self.mistakes.push(Mistake::Selector { key, text: text.clone(), source }),
            }
        }
    }

    fn set(&mut self, key: &Key, given: &Given, source: Source) {
        let text = given.texts.join(", ");
        if (key.set)(&mut self.config, given).is_some() {
            self.config.said.push(Said { key: key.path.to_owned(), text, source: source.to_string() });
        } else {
            let given = without_secrets(key.path, &text);
            self.mistakes.push(Mistake::BadValue {
                source_of: source,
                key: key.path.to_owned(),
                given,
                allowed: key.allowed.to_owned(),
            });
        }
    }
}

/// Variables that Kubernetes sets for a Service whose name begins with `pod2pod` ("service links").
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(sources: &Sources) -> Vec<String> {
        load(sources).err().into_iter().flatten().map(|mistake| mistake.to_string()).collect()
    }

    #[test]
    fn nothing_is_enough() {
        assert!(load(&Sources::default()).is_ok());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let sources = Sources {
            file: None,
            environment: vec![
                ("POD2POD_SAMPLING_RATE".to_owned(), "2".to_owned()),
                ("POD2POD_SAMPLING_RAT".to_owned(), "1".to_owned()),
                ("POD2POD_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
                ("POD2POD_STORE_PORT_80_TCP".to_owned(), "x".to_owned()),
                ("HOME".to_owned(), "/".to_owned()),
            ],
            flags: vec![("output.format", Given::one("xml"), "--format")],
            settings: vec!["sampling.slwo=1s".to_owned(), "rate=1".to_owned(), "zzzzzzzz=1".to_owned()],
            live: false,
        };
        assert_eq!(
            mistakes(&sources),
            [
                "POD2POD_SAMPLING_RATE: sampling.rate: \"2\" is not allowed; allowed: a share from 0 to 1, or a percentage",
                "POD2POD_SAMPLING_RAT: unknown key POD2POD_SAMPLING_RAT; did you mean POD2POD_SAMPLING_RATE?",
                "--set: unknown key sampling.slwo; did you mean sampling.slow?",
                "--set: unknown key rate; did you mean sampling.rate?",
                "--set: unknown key zzzzzzzz",
                "--format: output.format: \"xml\" is not allowed; allowed: auto, json, text, pod2pod-log, none",
            ]
        );
    }

    #[test]
    fn a_named_interface_is_to_be_there_where_it_is_watched() {
        let sources = |live| Sources {
            settings: vec!["capture.interfaces=lo, nowhere0, nowhere*, veth".to_owned(), "rate=1".to_owned()],
            live,
            ..Sources::default()
        };
        let told = mistakes(&sources(true));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("capture.interfaces: there is no interface nowhere0 "), "{told:?}");
        assert_eq!(mistakes(&sources(false)).len(), 1);
    }

    #[test]
    fn places_are_to_be_there() {
        let places = |live| Sources {
            settings: vec!["filter.interfaces=lo, nowhere0, nowhere*".to_owned(), "rate=1".to_owned()],
            live,
            ..Sources::default()
        };
        let told = mistakes(&places(true));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("filter.interfaces: there is no interface nowhere0;"), "{told:?}");
        assert!(mistakes(&places(false))[1].ends_with("they are for the agent"));
        let cgroups = |live| Sources {
            settings: vec!["filter.cgroups=nginx.service".to_owned()],
            live,
            ..Sources::default()
        };
        assert_eq!((mistakes(&cgroups(true)).len(), mistakes(&cgroups(false)).len()), (0, 1));
    }
}
