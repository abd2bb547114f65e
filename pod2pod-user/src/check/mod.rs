//! `pod2pod check`: what the configured job needs, what is there, what is lost without it, and how to get it. The start asks the
//! same of the machine, in the same words. Changes nothing, and watches nothing; a sink's table that is to be made is made.

mod listeners;
mod memory;
mod targets;
mod told;

use std::io::Write as _;

use crate::{
    behind::has_conntrack,
    capture::kernel::{SourceChoice, findings, locks_memory},
    config::{
        Config,
        load::{self, Sources},
    },
    exit,
    finding::{Finding, Status},
    kubernetes_api::review,
    mode::Mode,
    rights::{self, Feature},
    watch::source::{SourceError, is_host},
};

/// Looks at everything and tells it on standard output; says how the program should exit: 0, also where something that the job
/// can do without is lost; 1 if something lacks that it needs; 64 if the configuration is wrong.
pub fn run(sources: &Sources, as_json: bool, asks_sinks: bool) -> u8 {
    let (findings, code) = match load::load(sources) {
        Err(mistakes) => {
            let wrong = |mistake: &load::Mistake| Finding::missing(CONFIGURATION, mistake.to_string());
            (mistakes.iter().map(wrong).collect(), exit::CONFIGURATION)
        }
        Ok(mut config) => {
            let mut findings = vec![configuration(&config)];
            // Too little memory is a mistake in the configuration, and was told as such.
            let _ = config.divide_memory();
            findings.extend(machine(&config));
            if asks_sinks {
                findings.extend(targets::check(&config.sinks));
            }
            let lacks = findings.iter().any(|finding| finding.status == Status::Missing);
            (findings, if lacks { exit::FAILURE } else { exit::OK })
        }
    };
    let text = if as_json { told::json(&findings, code) } else { told::text(&findings) };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            exit::tell(format_args!("cannot write to standard output: {error}"));
            exit::FAILURE
        }
        Ok(()) | Err(_) => code,
    }
}

/// What of the machine makes a start hopeless, as far as can be known before.
pub fn before_start(config: &Config) -> Vec<Finding> {
    let mut found = vec![findings::kernel()];
    found.extend(findings::capabilities(|feature| feature == Feature::Capture));
    if config.capture.source == SourceChoice::Cgroup || config.capture.cgroup.is_some() {
        found.push(findings::cgroup(&config.capture));
    }
    found.retain(|finding| finding.status == Status::Missing);
    found
}

/// Says in the log what is lost where containers are not told by their cgroup.
pub fn tell_of_cgroups(config: &Config) {
    let Finding { status, found, lost, cure, .. } = findings::cgroup(&config.capture);
    if status != Status::Ok {
        tracing::info!(found, lost, cure, "containers are not told by their cgroup");
    }
}

const CONFIGURATION: &str = "configuration";

fn configuration(config: &Config) -> Finding {
    let warnings = config.warnings();
    if warnings.is_empty() {
        return Finding::ok(CONFIGURATION, "no mistake in it");
    }
    Finding::missing(CONFIGURATION, warnings.join("; ")).limits()
}

fn machine(config: &Config) -> Vec<Finding> {
    let follows = config.ipvs.mode != Mode::Off && config.ipvs.follows();
    let mut found = vec![findings::programs(), findings::kernel()];
    found.extend(findings::capabilities(|feature| is_used(config, feature)));
    found.extend([findings::bpf(), findings::ring(), findings::types(follows)]);
    found.extend([findings::cgroup(&config.capture), findings::interfaces(&config.capture)]);
    found.extend([ipvs(config), findings::exact(follows), conntrack(config), memory::check(config)]);
    found.extend(listeners::check(config));
    found.extend(review::check(&config.kubernetes));
    found
}

/// Which features the configured job uses, so that their rights are needed.
fn is_used(config: &Config, feature: Feature) -> bool {
    let at_interfaces = config.capture.watches_interfaces();
    let exact = config.ipvs.mode != Mode::Off && config.ipvs.follows();
    match feature {
        Feature::Capture | Feature::GoFirst => true,
        Feature::LockedMemory => locks_memory(),
        // Where it is not to be seen, the finding about cgroups says so.
        Feature::OwnMount | Feature::PacketFile | Feature::StaleFilters => false,
        Feature::MapCalls => rights::calls_need_a_right(),
        Feature::LaterInterfaces => at_interfaces,
        Feature::Exact => exact,
        Feature::ExactWhereClosed => exact && rights::probes_need_a_right(),
        Feature::IpvsAsked => config.ipvs.mode != Mode::Off,
        Feature::Conntrack => config.kubernetes.is_asked(),
        Feature::HostNamespace => exact && config.ipvs.path.is_none() && !is_host(),
    }
}

/// The table of IPVS.
fn ipvs(config: &Config) -> Finding {
    const NAME: &str = "ipvs";
    if config.ipvs.mode == Mode::Off {
        return Finding::ok(NAME, "not asked for");
    }
    let source = config.ipvs.source();
    match source.read(&mut |_, _| {}) {
        Ok(reading) => Finding::ok(NAME, format!("{}: {} entries", source.path().display(), reading.rows)),
        Err(SourceError::Missing(_)) if config.ipvs.mode == Mode::Auto => {
            Finding::ok(NAME, "there is no table; it is watched when the module ip_vs comes")
        }
        Err(error) => Finding::missing(NAME, error.to_string())
            .with(
                "the table of IPVS",
                "nothing is told of IPVS until it is there",
                "load the module ip_vs; in a container give it the host's network (hostNetwork), or set ipvs.mode: off",
            )
            .limits(),
    }
}

/// Conntrack, which says where connections to Services are led.
fn conntrack(config: &Config) -> Finding {
    const NAME: &str = "conntrack";
    if !config.kubernetes.is_asked() {
        return Finding::ok(NAME, "not asked for");
    }
    if has_conntrack() {
        return Finding::ok(NAME, "it is there, and asked about connections to Services");
    }
    Finding::missing(NAME, "there is none in this network namespace")
        .with(
            "conntrack of the node's network",
            "records of connections to Services name the pod only where its own end is seen too, or IPVS is polled",
            "it comes with kube-proxy; in a container give it the host's network (hostNetwork)",
        )
        .limits()
}
