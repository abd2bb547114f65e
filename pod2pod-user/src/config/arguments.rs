//! The command line: subcommands, and flags for the few things typed by hand. Each flag is a configuration key.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{load::Sources, value::Given};
use crate::{tail, top, watch::options};

/// Watches this machine's HTTP from the kernel and writes one exact record an exchange.
#[derive(Debug, Parser)]
#[command(name = "pod2pod", version, arg_required_else_help = true, subcommand_required = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watches this machine (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)
    Agent {
        /// Flags of all.
        #[command(flatten)]
        common: Common,
        /// Flags of the agent.
        #[command(flatten)]
        live: Live,
    },
    /// Reads capture files (pcap, pcapng), each with its own connections
    Replay {
        /// Files in order; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Flags of all.
        #[command(flatten)]
        common: Common,
    },
    /// Watches the kernel's IPVS tables: which new connections met the entries of old ones, and how harmful that is
    Ipvs {
        /// Its flags.
        #[command(flatten)]
        flags: options::Flags,
    },
    /// A live table of who talks to whom, from what the agents of one or more nodes count: rate, errors, durations, the network's share
    Top {
        /// Its flags.
        #[command(flatten)]
        flags: top::options::Flags,
    },
    /// Records as they come, of one or more agents, from `admin.listen`
    Tail {
        /// Its flags.
        #[command(flatten)]
        flags: tail::options::Flags,
    },
    /// Says what of this machine, of the rights given and of the configuration the agent lacks, and what is lost without
    Check {
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
        /// Also asks the targets of all sinks whether they are there
        #[arg(long)]
        sinks: bool,
        /// Flags of all.
        #[command(flatten)]
        common: Common,
        /// Flags of the agent.
        #[command(flatten)]
        live: Live,
    },
    /// Shows the records that a target refused, each with why, as JSON lines; or sends them again
    DeadLetters {
        /// Sends them to where they should have been; what is refused again stays
        #[arg(long)]
        send: bool,
        /// Those of this sink only
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// Flags of all.
        #[command(flatten)]
        common: Common,
    },
    /// Prints the JSON Schema of a record
    Schema,
}

/// Flags of `agent` and `replay`.
#[derive(Debug, Default, Args)]
pub struct Common {
    /// YAML file with any of the configuration keys [environment: POD2POD_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any configuration key; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Connections that match, as tcpdump would take it: an expression of pcap-filter(7)
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Port of servers to watch, or a range; can be repeated
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// auto, json, text, pod2pod-log or none
    #[arg(long)]
    pub format: Option<String>,
    /// Appends records to a file
    #[arg(long, value_name = "FILE")]
    pub output: Option<String>,
    /// Also writes what was captured to this pcapng file, without what redaction takes out
    #[arg(long, value_name = "FILE")]
    pub write_pcap: Option<String>,
    /// on or off: credentials are replaced unless off
    #[arg(long)]
    pub redact: Option<String>,
    /// Request header to capture; can be repeated
    #[arg(long, value_name = "NAME")]
    pub request_header: Vec<String>,
    /// Response header to capture; can be repeated
    #[arg(long, value_name = "NAME")]
    pub response_header: Vec<String>,
    /// First bytes of each body to capture
    #[arg(long, value_name = "SIZE")]
    pub body_bytes: Option<String>,
    /// Path to leave out, a glob; can be repeated
    #[arg(long, value_name = "GLOB")]
    pub ignore_path: Vec<String>,
    /// Share of ordinary exchanges to write, 0 to 1
    #[arg(long, value_name = "SHARE")]
    pub sample_rate: Option<String>,
    /// Address and port of /metrics, or off
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Flags of `agent`.
#[derive(Debug, Default, Args)]
pub struct Live {
    /// Watches one cgroup instead of all: a path below the cgroup v2 mount
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Watches network interfaces instead of sockets: a name, a glob, or veth; can be repeated
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,
}

impl Common {
    /// The sources of a configuration, with this process's environment.
    pub fn with_environment(self, live: Option<Live>) -> Sources {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        self.sources(live, std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect())
    }

    /// The sources of a configuration: these flags, those of the agent if it is for one, and `environment`.
    pub fn sources(self, live: Option<Live>, environment: Vec<(String, String)>) -> Sources {
        let is_live = live.is_some();
        let live = live.unwrap_or_default();
        let single = [
            ("filter.expression", self.filter, "--filter"),
            ("output.format", self.format, "--format"),
            ("output.file", self.output, "--output"),
            ("capture.write_pcap.file", self.write_pcap, "--write-pcap"),
            ("redact", self.redact, "--redact"),
            ("http.body_bytes", self.body_bytes, "--body-bytes"),
            ("sampling.rate", self.sample_rate, "--sample-rate"),
            ("log.level", self.log_level, "--log-level"),
            ("capture.cgroup", live.cgroup, "--cgroup"),
            ("metrics.listen", self.listen, "--listen"),
        ];
        let repeated = [
            ("http.request_headers", self.request_header, "--request-header"),
            ("http.response_headers", self.response_header, "--response-header"),
            ("filter.ports", self.port, "--port"),
            ("ignore.paths", self.ignore_path, "--ignore-path"),
            ("capture.interfaces", live.interfaces, "--interface"),
        ];
        let single = single.into_iter().filter_map(|(key, text, flag)| Some((key, Given::one(text?), flag)));
        let repeated = repeated.into_iter().filter(|(_, texts, _)| !texts.is_empty());
        let flags =
            single.chain(repeated.map(|(key, texts, flag)| (key, Given::list(texts), flag))).collect();
        Sources { file: self.config, environment, flags, settings: self.settings, live: is_live }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
