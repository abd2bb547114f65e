//! Starts and stops the real programs of a scenario. Knows no HTTP and no particular program.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest wait for anything a program should do; far above what a busy two-core machine needs (the slowest is the
/// first build of a Go program).
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A program that runs beside the test and is killed with it.
pub(crate) struct Program {
    name: String,
    child: Child,
    stderr: PathBuf,
}

impl Program {
    /// Starts `name` with `arguments`; its standard error goes to a file below `directory`.
    pub(crate) fn start<A: AsRef<OsStr>>(name: &str, arguments: &[A], directory: &Path) -> Result<Self> {
        let short =
            Path::new(name).file_name().map_or_else(|| name.into(), OsStr::to_string_lossy).into_owned();
        let stderr = directory.join(format!("{short}.stderr"));
        let log = File::create(&stderr).with_context(|| format!("cannot create {}", stderr.display()))?;
        // setpriv: the kernel ends the program when this thread ends, also when the test is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", name])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir(directory)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, stderr })
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `condition` holds; fails when the program ends before.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !condition(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before: {what}\n{}", self.name, self.stderr());
            }
            if start.elapsed() > DEADLINE {
                bail!("{}: waited {DEADLINE:?} in vain for: {what}\n{}", self.name, self.stderr());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Sends `signal` and waits for the end.
    pub(crate) fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {}", self.name))?;
        wait(&mut self.child, &self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended programs give an error that says nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `name` to its end and gives its standard output; any exit status in `accepted` is fine.
pub(crate) fn run<A: AsRef<OsStr>>(
    name: &str,
    arguments: &[A],
    directory: &Path,
    accepted: &[i32],
) -> Result<Vec<u8>> {
    let output = File::create(directory.join("run.stdout"))?;
    let errors = File::create(directory.join("run.stderr"))?;
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", name])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .current_dir(directory)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let status = wait(&mut child, name)?;
    if !status.code().is_some_and(|code| accepted.contains(&code)) {
        let errors = fs::read(directory.join("run.stderr"))?;
        bail!("{name} ended with {status}\n{}", String::from_utf8_lossy(&errors));
    }
    Ok(fs::read(directory.join("run.stdout"))?)
}

/// Waits for `child` no longer than [`DEADLINE`].
fn wait(child: &mut Child, name: &str) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > DEADLINE {
            child.kill()?;
            bail!("{name} did not end within {DEADLINE:?}");
        }
        thread::sleep(LOOK_AGAIN);
    }
}
