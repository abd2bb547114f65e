//! What a developer can do: `cargo xtask COMMAND`. The list of commands and nothing else.

use std::process::ExitCode;

mod bench;
mod build;
mod cmd;
mod demo;
mod image;
mod jars;
mod lint;
mod node;
mod pcap;
mod servers;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod unpacked;
mod vm;

/// Exit code of a command line that is wrong (sysexits.h, EX_USAGE).
const EXIT_USAGE: u8 = 64;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup [FOR…]       install what is missing: for run, demo or a tier; for all of them if none is named
  build-ebpf         build the kernel side to target/*.o
  build              build the kernel side and the release daemon
  run [-- ARG…]      set up, build, and run `pod2pod agent ARG…`
  demo [--tamper sent|observed]
                     two pods and a service behind NAT: what was sent beside what was observed
  demo ipvs          a rolling update behind IPVS, in a small machine: which requests failed, why, and what cures it
  demo k8s           a small shop with a real API server: records with both pods named, while a deployment is rolled
  demo sinks         one agent, five real servers, one of them killed and revived: for each what was sent, received, lost
  image              an image for x86-64 and arm64 as an OCI archive, into target/image
  bench [live|replay|memory|parts|ipvs|names|sinks]… [--quick] [--rounds N] [--seconds N] [--only WORD]
                     figures of the agent beside other tools, into target/bench
  test [TIER…]       set up and run the tiers, all if none is named
  vm [SUITE…] [-- ARG…]
                     the vm tier on some kernels only, with arguments for the test runner
  lint               rustfmt and clippy, for the host and for the kernel side
  tidy               lint, and our own rules about the code
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let result = match command {
        "setup" => setup::command(rest),
        "build-ebpf" => setup::ensure(&["run"]).and_then(|()| build::ebpf()).map(|()| ExitCode::SUCCESS),
        "build" => setup::ensure(&["run"]).and_then(|()| build::daemon()).map(|_| ExitCode::SUCCESS),
        "run" => build::run(rest),
        "bench" => bench::command(rest),
        "image" => image::command(),
        "demo" => demo::command(rest),
        "test" => test::command(rest),
        "vm" => vm::command(rest),
        "lint" => lint::command().map(|()| ExitCode::SUCCESS),
        "tidy" => tidy::command().map(|()| ExitCode::SUCCESS),
        "help" | "--help" | "-h" => {
            cmd::say(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        other => {
            cmd::say(&format!("xtask: there is no command `{other}`\n\n{USAGE}"));
            Ok(ExitCode::from(EXIT_USAGE))
        }
    };
    result.unwrap_or_else(|error| {
        cmd::say(&format!("xtask: {error:#}"));
        ExitCode::FAILURE
    })
}
