//! Boots a kernel with a file system, hands on what the command in it says, line by line, and gives its exit status.
//!
//! The machine dies with the thread that runs it, and has no file with a name: however this process ends, nothing is
//! left. Output and kernel log are pipes.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::fetch::Kernel;

/// Time in an emulated machine goes by instructions, 2 ns each, and not by the clock of a host that does other things too: to
/// a test it is the same machine, however busy the host. Where all wait, time jumps to the end of the first wait. It has one
/// processor: Linux does not start a second one under this clock of QEMU 7.2.
const TIME: &str = "shift=1,sleep=off";
/// An emulated processor. As the old one that "max" calls itself it has a defect that makes Linux wait in a loop when
/// there is nothing to do (`amd_e400_idle`, arch/x86/kernel/process.c), a fifth of all time; and it says that strings of bytes
/// are fast (`erms`), which are emulated byte by byte.
const PROCESSOR: &str = "max,family=23,model=49,-erms,-fsrm";
/// What an emulated machine can do without: mitigations of a processor that it has not; doubts about its clock, which all its
/// processors share, and the slow one that Linux would take instead; and fast strings again, which are also assumed of that
/// family (`X86_FEATURE_REP_GOOD` and `X86_FEATURE_ERMS` by their numbers, as Linux 5.10 wants them).
const EMULATED: &str = "mitigations=off tsc=reliable clocksource=tsc nohpet clearcpuid=112,297";
/// Memory of a machine in MiB: several rings of the largest size that tests ask for, and the file system.
const MEMORY: &str = "3072";
/// Begins the last line, which has the command's exit status.
const STATUS: &str = "pod2pod-status ";
/// Last lines of the kernel's log that are shown if a machine dies.
const MAX_LOG_LINES: usize = 40;
/// Lines that wait to be handed on.
const MAX_LINES_WAITING: usize = 1024;

/// Runs a machine to its end, at most for `limit`. `said` gets each line of the command.
///
/// # Errors
/// The machine cannot be started, or died without an exit status, or the time is over.
pub(super) fn run(
    kernel: &Kernel,
    file_system: File,
    limit: Duration,
    said: &mut impl FnMut(&str),
) -> Result<i32> {
    let mut machine = start(kernel, file_system)?;
    let (say, hear) = sync_channel(MAX_LINES_WAITING);
    let talking = machine.stdout.take().map(|output| thread::spawn(move || hand_on(output, &say)));
    let log = machine.stderr.take().map(|log| thread::spawn(move || last_lines(log)));
    let ended = listen(&hear, Instant::now() + limit, said);
    // It has ended by itself, or must.
    let _ = machine.kill();
    machine.wait().context("cannot wait for the machine")?;
    drop(hear);
    let log = log.and_then(|log| log.join().ok()).unwrap_or_default();
    talking.map(thread::JoinHandle::join);
    match ended {
        Ended::Status(status) => Ok(status),
        Ended::Late => bail!("still running after {} s; the kernel's log ends:\n{log}", limit.as_secs()),
        Ended::Died => bail!("the machine died; the kernel's log ends:\n{log}"),
    }
}

fn start(kernel: &Kernel, file_system: File) -> Result<Child> {
    let machine: &[&str] = if has_hardware() {
        &["-accel", "kvm", "-cpu", "host", "-smp", "2"]
    } else {
        &["-accel", "tcg", "-icount", TIME, "-cpu", PROCESSOR]
    };
    let mut command = Command::new("setpriv");
    // The signal is sent when this thread ends, and with it this process.
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    command.args(machine).args(["-m", MEMORY]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel.image()).args(["-initrd", "/proc/self/fd/0"]);
    let emulated = if has_hardware() { "" } else { EMULATED };
    let options = format!("console=ttyS0 quiet panic=-1 oops=panic net.ifnames=0 {emulated}");
    command.args(["-append", &options]);
    // Files, not QEMU's own standard streams: with those, an end of input counts as hanging up.
    command.args(["-chardev", "file,id=log,path=/proc/self/fd/2", "-serial", "chardev:log"]);
    command.args(["-device", "virtio-serial-pci", "-chardev", "file,id=out,path=/proc/self/fd/1"]);
    command.args(["-device", "virtserialport,chardev=out,name=out"]);
    command.stdin(file_system).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start {command:?}"))
}

/// Whether the processor runs machines. That `/dev/kvm` can be opened says little: there are kinds behind it that run
/// stock kernels slower than emulation, or not at all.
fn has_hardware() -> bool {
    ["/sys/module/kvm_intel", "/sys/module/kvm_amd"].iter().any(|module| Path::new(module).exists())
        && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The command's exit status.
    Status(i32),
    /// Without one.
    Died,
    /// It has not.
    Late,
}

fn listen(lines: &Receiver<String>, deadline: Instant, said: &mut impl FnMut(&str)) -> Ended {
    let mut status = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                status = line.strip_prefix(STATUS).and_then(|status| status.parse().ok());
                if status.is_none() {
                    said(&line);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Ended::Late,
            Err(RecvTimeoutError::Disconnected) => return status.map_or(Ended::Died, Ended::Status),
        }
    }
}

fn hand_on(output: impl Read, say: &SyncSender<String>) {
    for line in lines(output) {
        if say.send(line).is_err() {
            return;
        }
    }
}

fn last_lines(log: impl Read) -> String {
    let mut last = VecDeque::new();
    for line in lines(log) {
        if last.len() == MAX_LOG_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join("\n")
}

/// Lines of what may be no UTF-8; an error is an end.
fn lines(source: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(source).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Ended, Vec<String>) {
        let (say, hear) = sync_channel(10);
        lines.iter().for_each(|line| say.send((*line).to_owned()).expect("room"));
        drop(say);
        let mut said = Vec::new();
        let ended =
            listen(&hear, Instant::now() + Duration::from_secs(10), &mut |line| said.push(line.to_owned()));
        (ended, said)
    }

    #[test]
    fn the_status_is_the_last_line_or_the_machine_died() {
        assert_eq!(heard(&["a", "pod2pod-status 3"]), (Ended::Status(3), vec!["a".to_owned()]));
        assert_eq!(heard(&["pod2pod-status 0", "a"]), (Ended::Died, vec!["a".to_owned()]));
        assert_eq!(heard(&[]), (Ended::Died, vec![]));
    }

    #[test]
    fn a_machine_that_says_nothing_is_late() {
        let (_say, hear) = sync_channel(1);
        assert_eq!(listen(&hear, Instant::now(), &mut |_| {}), Ended::Late);
    }

    #[test]
    fn of_a_log_the_end_is_kept() {
        let text: String = (0..100).map(|number| format!("{number}\r\n")).collect();
        let last = last_lines(text.as_bytes());
        assert!(last.starts_with("60\n61") && last.ends_with("\n99"), "{last}");
    }
}
