//! The process: command line → configuration (all mistakes at once) → logging → one subcommand → exit code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use pod2pod_user::{
    agent,
    config::{
        Config,
        arguments::{Arguments, Command, Common, Live},
        load,
    },
    exit, logging,
    record::schema,
    replay,
    shutdown::Shutdown,
    watch::{self, options},
};

fn main() -> ExitCode {
    let line = options::with_two_dashes(std::env::args_os());
    let arguments = match Arguments::try_parse_from(line) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::CONFIGURATION } else { exit::OK });
        }
    };
    ExitCode::from(match arguments.command {
        Command::Agent { common, live } => with_config(common, Some(live), agent::run),
        Command::Replay { files, common } => {
            with_config(common, None, |config, shutdown| replay::run(&files, config, shutdown))
        }
        Command::Ipvs { flags } => watch_ipvs(flags),
        Command::Schema => print_schema(),
    })
}

/// Reads the configuration, then does `run`. Mistakes are told all at once.
fn with_config(common: Common, live: Option<Live>, run: impl FnOnce(Config, &Shutdown) -> u8) -> u8 {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect();
    let config = match load::load(&common.sources(live, environment)) {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.iter().for_each(exit::tell);
            return exit::CONFIGURATION;
        }
    };
    with_signals(|shutdown| {
        logging::start(config.log);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        run(config, shutdown)
    })
}

/// `pod2pod ipvs`, which has flags of its own and no configuration.
fn watch_ipvs(flags: options::Flags) -> u8 {
    match flags.options() {
        Ok(options) => with_signals(|shutdown| {
            logging::start(logging::Config { level: options.log_level, ..logging::Config::default() });
            watch::run(options, shutdown)
        }),
        Err(mistakes) => {
            mistakes.iter().for_each(exit::tell);
            exit::CONFIGURATION
        }
    }
}

/// Takes signals over, then does `run`. Before any thread starts: threads inherit which signals are blocked.
fn with_signals(run: impl FnOnce(&Shutdown) -> u8) -> u8 {
    match Shutdown::install() {
        Ok(shutdown) => run(&shutdown),
        Err(error) => {
            exit::tell(format_args!("cannot take over signals: {error}"));
            exit::FAILURE
        }
    }
}

fn print_schema() -> u8 {
    let text = format!("{:#}\n", schema::schema());
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            exit::tell(format_args!("cannot write to standard output: {error}"));
            exit::FAILURE
        }
    }
}
