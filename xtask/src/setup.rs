//! Installs exactly what is missing, says what and why, and is silent when nothing is. It starts no service and
//! removes nothing.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, Cmd, say},
    image, jars, node, pcap, servers, toolchain, unpacked,
};

/// What can be set up: `run`, `image`, `demo`, `bench`, `lint` and the tiers of `test`.
pub(crate) const GOALS: [&str; 12] = [
    "run", "image", "demo", "bench", "lint", "unit", "pipeline", "daemon", "opinion", "kernel", "services",
    "vm",
];

/// Goals that build the kernel side.
const EBPF_GOALS: [&str; 8] = ["run", "image", "demo", "bench", "lint", "kernel", "services", "vm"];

/// A program, the Debian package that has it, and who needs it what for. Any version on `PATH` will do.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
    goals: &'static [&'static str],
}

const TOOLS: [Tool; 35] = [
    tool("tshark", "tshark", "the independent opinion on captures", &["opinion", "bench"]),
    tool("tcpdump", "tcpdump", "captures real servers and clients", &["opinion", "bench"]),
    tool("httpry", "httpry", "a second opinion, and the speed to beat", &["opinion", "bench"]),
    tool(
        "nginx",
        "nginx-light",
        "a server that differs, and one that takes records",
        &["opinion", "kernel", "services", "vm", "bench"],
    ),
    tool("apache2", "apache2-bin", "a server that differs", &["opinion"]),
    tool("haproxy", "haproxy", "a proxy that differs", &["opinion"]),
    tool("java", "default-jdk-headless", "a server that differs, and runs others", &["opinion", "services"]),
    tool("javac", "default-jdk-headless", "compiles a server's main class", &["services"]),
    tool("mvn", "maven", "fetches servers", &["services"]),
    tool("node", "nodejs", "a server and client that differ, and runs others", &["opinion", "services"]),
    tool("npm", "npm", "fetches servers", &["services"]),
    tool("go", "golang-go", "a server and client that differ, and builds others", &["opinion", "services"]),
    tool("python3", "python3", "a server and client that differ", &["opinion"]),
    tool("curl", "curl", "a client that differs", &["opinion", "daemon", "kernel"]),
    tool("wrk", "wrk", "a client that pipelines", &["opinion", "kernel", "vm", "bench"]),
    tool("ab", "apache2-utils", "a client that speaks HTTP/1.0", &["opinion"]),
    tool("h2load", "nghttp2-client", "a client that differs, in HTTP/1 mode", &["opinion"]),
    tool("make", "make", "builds the library of the sink of Kafka", &["lint", "services"]),
    tool("perl", "perl", "builds the TLS of the sink of Kafka", &["lint", "services"]),
    tool("cc", "gcc", "compiles both", &["lint", "services"]),
    tool("pg_ctlcluster", "postgresql", "a database that sinks write to", &["services"]),
    tool("rsyslogd", "rsyslog", "takes what the sink syslog sends", &["services"]),
    tool("setpriv", "util-linux", "ends servers with the test that started them", &["services"]),
    tool("skopeo", "skopeo", "a second opinion on the image", &["image"]),
    tool("qemu-aarch64-static", "qemu-user-static", "runs the image's program for arm64", &["image"]),
    tool("promtool", "prometheus", "checks the metrics page", &["daemon"]),
    tool("ip", "iproute2", "makes network namespaces", &["kernel", "services", "vm", "demo", "bench"]),
    tool("nft", "nftables", "makes the NAT between client and server", &["kernel", "vm", "demo"]),
    tool("ipvsadm", "ipvsadm", "makes virtual services", &["kernel", "vm"]),
    tool("qemu-system-x86_64", "qemu-system-x86", "boots other kernels", &["vm"]),
    tool("busybox", "busybox-static", "the first process of a machine", &["vm"]),
    tool("depmod", "kmod", "makes a kernel's list of modules", &["vm"]),
    tool("xz", "xz-utils", "unpacks a kernel's modules", &["vm"]),
    tool("c++", "g++", "links the BPF linker with LLVM", &EBPF_GOALS),
    tool(toolchain::STRIP, toolchain::STRIP_PACKAGE, "makes the kernel side small", &EBPF_GOALS),
];

/// A part of rsyslog's that has no program.
const TLS_OF_RSYSLOG: &str = "rsyslog-openssl";

const fn tool(
    program: &'static str,
    package: &'static str,
    why: &'static str,
    goals: &'static [&'static str],
) -> Tool {
    Tool { program, package, why, goals }
}

/// `cargo xtask setup [FOR…]`.
///
/// # Errors
/// Something cannot be installed.
pub(crate) fn command(goals: &[String]) -> Result<ExitCode> {
    let chosen: Vec<&str> =
        if goals.is_empty() { GOALS.to_vec() } else { goals.iter().map(String::as_str).collect() };
    if let Some(unknown) = chosen.iter().find(|goal| !GOALS.contains(goal)) {
        say(&format!("xtask: nothing is called `{unknown}`; there are: {}", GOALS.join(" ")));
        return Ok(ExitCode::from(crate::EXIT_USAGE));
    }
    ensure(&chosen)?;
    say(&format!("everything is there for {}", chosen.join(", ")));
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing for `goals`; silent if nothing is.
///
/// # Errors
/// Something cannot be installed; the error says what to do.
pub(crate) fn ensure(goals: &[&str]) -> Result<()> {
    let ebpf = goals.iter().any(|goal| EBPF_GOALS.contains(goal));
    let linker = ebpf && !linker_is_there();
    let mut wanted = wanted_tools(goals, |program| cmd::find(program).is_some());
    if linker {
        for package in toolchain::BUILD_PACKAGES.into_iter().filter(|package| !is_installed(package)) {
            wanted.push((package, "builds the BPF linker".to_owned()));
        }
    }
    if goals.contains(&"lint") {
        for package in toolchain::OTHER_PACKAGES.into_iter().filter(|package| !is_installed(package)) {
            wanted.push((package, format!("compiles for {}", toolchain::OTHER_TARGET)));
        }
    }
    if !goals.is_empty() && !pcap::is_there() {
        for (program, package) in pcap::BUILD_TOOLS {
            if cmd::find(program).is_none() {
                wanted.push((package, "builds libpcap".to_owned()));
            }
        }
    }
    if goals.contains(&"services") && !is_installed(TLS_OF_RSYSLOG) {
        wanted.push((TLS_OF_RSYSLOG, "the same over TLS".to_owned()));
    }
    if goals.contains(&"image") {
        wanted.extend(image::tools::packages());
    }
    packages(&wanted)?;
    if !goals.is_empty() {
        pcap::ensure()?;
    }
    if goals.contains(&"image") {
        image::tools::ensure()?;
    }
    if ebpf {
        let compiler = Cmd::new("rustc").args(["-vV"]).ask().context("there is no rustc on PATH")?;
        bitcode_is_readable(&compiler)?;
        rust_source()?;
    }
    if goals.contains(&"lint") {
        for (component, subcommand) in [("clippy", "clippy"), ("rustfmt", "fmt")] {
            if Cmd::cargo().args([subcommand, "--version"]).ask().is_none() {
                component_add(component, "checks the code")?;
            }
        }
        other_target()?;
    }
    if goals.contains(&"services") {
        servers::ensure()?;
        jars::ensure()?;
        node::ensure()?;
        unpacked::ensure()?;
    }
    if linker { bpf_linker() } else { Ok(()) }
}

/// Packages for the programs that `goals` need and `is_there` does not know, each with its reason.
fn wanted_tools(goals: &[&str], is_there: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    TOOLS
        .iter()
        .filter(|tool| tool.goals.iter().any(|goal| goals.contains(goal)) && !is_there(tool.program))
        .map(|tool| (tool.package, format!("{}: {}", tool.program, tool.why)))
        .collect()
}

/// Whether dpkg has the package, configured.
fn is_installed(package: &str) -> bool {
    Cmd::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .ask()
        .is_some_and(|status| status == "installed")
}

/// Installs Debian packages, as root or through a sudo that asks for nothing.
fn packages(wanted: &[(&str, String)]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    for (package, why) in wanted {
        say(&format!("setup: Debian package {package} ({why})"));
    }
    let names: Vec<&str> = wanted.iter().map(|(package, _)| *package).collect();
    if cmd::find("apt-get").is_none() {
        bail!("this system has no apt-get; install what Debian calls {} and run this again", names.join(" "));
    }
    let update = root_command(&["apt-get", "update", "--quiet"], &[]);
    let install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
    if !cmd::is_root() && Cmd::new("sudo").args(["-n", "true"]).ask().is_none() {
        let install = root_command(&install, &names);
        bail!("installing packages needs root; run these and try again:\n  {update}\n  {install}");
    }
    if let Err(error) = update.run_aside() {
        // A repository that has nothing to do with us may be broken; whether ours is shows next.
        say(&format!("setup: going on with old package lists: {error:#}"));
    }
    let quietly = ["sh", "-c", WITHOUT_SERVICES, "install"];
    root_command(&[&quietly[..], &install[..]].concat(), &names).run_aside().with_context(|| {
        format!(
            "LLVM {} is in Debian's security updates and in the LLVM project's own repository",
            toolchain::LLVM
        )
    })
}

/// Runs its arguments while package scripts start no service: nginx and prometheus would open ports. The file is what
/// invoke-rc.d and deb-systemd-invoke ask; a shell removes it even if this program is killed.
const WITHOUT_SERVICES: &str = r##"policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap "rm -f $policy" EXIT
  trap "exit 130" INT TERM
  printf "#!/bin/sh\nexit 101\n" > $policy && chmod 0755 $policy
fi
"$@""##;

/// A command as root that asks no questions.
fn root_command(words: &[&str], more: &[&str]) -> Cmd {
    let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
    let command = Cmd::new(program).env("DEBIAN_FRONTEND", "noninteractive").args(arguments).args(more);
    if cmd::is_root() { command } else { command.through_sudo(&[]) }
}

/// Whether the linker's LLVM reads what this rustc writes: LLVM reads bitcode of its own release and of older ones.
fn bitcode_is_readable(compiler: &str) -> Result<()> {
    let version = compiler.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or_default();
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
    if major > toolchain::LLVM.parse()? {
        bail!(
            "this rustc has LLVM {version} and the BPF linker reads up to {}; with rustup, use an older one: \
             cargo +{} xtask …",
            toolchain::LLVM,
            env!("CARGO_PKG_RUST_VERSION")
        );
    }
    Ok(())
}

/// Where rustc and its libraries are.
fn sysroot() -> Result<PathBuf> {
    let said = Cmd::new("rustc").args(["--print", "sysroot"]).ask().context("there is no rustc on PATH")?;
    Ok(PathBuf::from(said.trim()))
}

/// The standard library's sources: no BPF target comes with a built `core`.
fn rust_source() -> Result<()> {
    if sysroot()?.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return Ok(());
    }
    component_add("rust-src", "the kernel side builds its own `core`")
}

/// The standard library of the target that the daemon is only checked for.
fn other_target() -> Result<()> {
    let target = toolchain::OTHER_TARGET;
    if toolchain::has_library(target)? {
        return Ok(());
    }
    say(&format!("setup: rustup target {target} (the daemon compiles for it too)"));
    Cmd::new("rustup")
        .args(["target", "add", target])
        .run_aside()
        .with_context(|| format!("install the Rust standard library for {target}"))
}

fn component_add(component: &str, why: &str) -> Result<()> {
    say(&format!("setup: rustup component {component} ({why})"));
    Cmd::new("rustup").args(["component", "add", component]).run_aside().with_context(|| {
        format!("install the Rust component {component} of this rustc, or rustc from https://rustup.rs")
    })
}

/// What the stamp beside the linker says when it is the one we want.
fn stamp() -> String {
    format!("bpf-linker {} llvm-{}\n", toolchain::BPF_LINKER, toolchain::LLVM)
}

fn stamp_file() -> PathBuf {
    toolchain::tools().join("bpf-linker.stamp")
}

fn linker_is_there() -> bool {
    let linker = toolchain::tools().join("bin/bpf-linker");
    // Run it: a cached one is of no use on a machine without its libLLVM.
    fs::read_to_string(stamp_file()).is_ok_and(|text| text == stamp())
        && Cmd::new(linker).args(["--version"]).ask().is_some()
}

fn bpf_linker() -> Result<()> {
    let tools = toolchain::tools();
    say(&format!(
        "setup: bpf-linker {} into {} (links the kernel side)",
        toolchain::BPF_LINKER,
        tools.display()
    ));
    Cmd::cargo()
        .env("LLVM_PREFIX", toolchain::llvm_prefix())
        .args(["install", "bpf-linker", "--version", toolchain::BPF_LINKER, "--locked"])
        .args(["--no-default-features", "--features", &format!("llvm-{}", toolchain::LLVM), "--root"])
        .args([&tools])
        .run_aside()?;
    fs::write(stamp_file(), stamp()).with_context(|| format!("cannot write {}", stamp_file().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_needs_no_test_tool() {
        let wanted = wanted_tools(&["run"], |_| false);
        let packages: Vec<&str> = wanted.iter().map(|(package, _)| *package).collect();
        assert_eq!(packages, ["g++", "llvm-22"]);
    }

    #[test]
    fn nothing_is_wanted_when_everything_is_there() {
        assert!(wanted_tools(&GOALS, |_| true).is_empty());
    }

    #[test]
    fn a_compiler_newer_than_the_linker_is_refused() {
        for (version, readable) in [("21.1.8", true), ("22.1.2", true), ("23.0.0", false)] {
            let compiler = format!("rustc 1.95.0\nLLVM version: {version}\n");
            assert_eq!(bitcode_is_readable(&compiler).is_ok(), readable, "{version}");
        }
    }

    #[test]
    fn every_tool_serves_a_goal_that_exists() {
        for tool in &TOOLS {
            assert!(tool.goals.iter().all(|goal| GOALS.contains(goal)), "{}", tool.program);
        }
    }
}
