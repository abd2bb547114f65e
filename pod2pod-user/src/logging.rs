//! The one place that sets up logs: to standard error, levels by `log.level`, lines of text or of JSON.
//!
//! Records never go through here.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Least severe level that is logged.
    pub level: LevelFilter,
    /// How lines look.
    pub format: Format,
}

impl Default for Config {
    /// What an operator should know; state changes only with `info`.
    fn default() -> Self {
        Self { level: LevelFilter::WARN, format: Format::Text }
    }
}

/// Starts logging. Logs of crates that use `log` (aya-log's among them) come along.
pub fn start(config: Config) {
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(config.level).with_target(false);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Both fail only if logging was started before, and then it runs.
    // What is relocated in an object is news for nobody.
    let _ = tracing_log::LogTracer::builder().ignore_crate("aya_obj").init();
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match config.format {
        Format::Text => Box::new(builder.with_ansi(colour).finish()),
        Format::Json => Box::new(builder.json().finish()),
    };
    let _ = tracing::subscriber::set_global_default(subscriber);
}
