//! The process: command line → configuration (all mistakes at once) → logging → one subcommand → exit code.

use std::process::ExitCode;

use clap::Parser as _;
use pod2pod_user::{
    agent, check,
    config::{
        Config,
        arguments::{Arguments, Command, Common, Live},
        load,
    },
    dead_letters, exit, logging,
    record::schema,
    replay, rights,
    shutdown::Shutdown,
    tail, top,
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
        Command::Agent { common, live } => {
            rights::begin();
            with_config(common, Some(live), agent::run)
        }
        Command::Replay { files, common } => {
            with_config(common, None, |config, shutdown| replay::run(&files, config, shutdown))
        }
        Command::Ipvs { flags } => with_options(flags.options(), |options, shutdown| {
            logging::start(logging::Config { level: options.log_level, ..logging::Config::default() });
            watch::run(options, shutdown)
        }),
        Command::Top { flags } => with_options(flags.options(), top::run),
        Command::Tail { flags } => with_options(flags.options(), tail::run),
        Command::Check { json, sinks, common, live } => {
            check::run(&common.with_environment(Some(live)), json, sinks)
        }
        Command::DeadLetters { send, sink, common } => {
            let asked = dead_letters::Asked { sends: send, sink };
            with_config(common, None, |config, shutdown| dead_letters::run(&config, &asked, shutdown))
        }
        Command::Schema => exit::print(format!("{:#}\n", schema::schema()).as_bytes()),
    })
}

/// Reads the configuration, then does `run`. Mistakes are told all at once.
fn with_config(common: Common, live: Option<Live>, run: impl FnOnce(Config, &Shutdown) -> u8) -> u8 {
    let config = match load::load(&common.with_environment(live)) {
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

/// Commands that have flags of their own and no configuration. Mistakes are told all at once.
fn with_options<O>(options: Result<O, Vec<String>>, run: impl FnOnce(O, &Shutdown) -> u8) -> u8 {
    match options {
        Ok(options) => with_signals(|shutdown| run(options, shutdown)),
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
