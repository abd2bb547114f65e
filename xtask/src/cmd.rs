//! Runs a command; when it fails, the error is the whole command, ready to be pasted. It knows no particular command.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Tells the developer something. On standard error: standard output belongs to the program that is run.
pub(crate) fn say(text: &str) {
    // A developer who closed the terminal does not want to hear about it.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}

/// The root of the work tree.
pub(crate) fn workspace() -> PathBuf {
    // Cargo says at run time where the package is; the place at compile time serves a binary that is run by hand.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// A command in the work tree that can be shown as it would be typed.
#[derive(Clone)]
pub(crate) struct Cmd {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
}

impl Cmd {
    /// A command by name or path.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
        }
    }

    /// The cargo that started this xtask.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable for the command.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().into()));
        self
    }

    /// Runs the command in `directory` instead of the work tree's root.
    pub(crate) fn inside(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// The same command by way of `sudo`, with its environment. `options` are sudo's own.
    pub(crate) fn through_sudo(self, options: &[&str]) -> Self {
        let mut sudo = Self::new("sudo").args(options);
        for (name, value) in self.environment {
            let mut assignment = OsString::from(name);
            assignment.push("=");
            assignment.push(value);
            sudo.arguments.push(assignment);
        }
        sudo.arguments.push(self.program);
        sudo.arguments.extend(self.arguments);
        sudo
    }

    /// Runs the command on our own standard streams.
    ///
    /// # Errors
    /// The command cannot be started or fails.
    pub(crate) fn run(&self) -> Result<()> {
        self.finish(&mut self.command())
    }

    /// Runs the command with its standard output on our standard error, for steps before a program whose output
    /// may be piped.
    ///
    /// # Errors
    /// As for [`Cmd::run`].
    pub(crate) fn run_aside(&self) -> Result<()> {
        self.finish(self.command().stdin(Stdio::null()).stdout(io::stderr()))
    }

    /// Runs the command silently and returns its standard output; `None` if it cannot be started or fails.
    pub(crate) fn ask(&self) -> Option<String> {
        let output = self.command().stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Becomes the command: signals, standard streams and exit code are its own.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn become_it(&self) -> Result<std::convert::Infallible> {
        let error = self.command().exec();
        Err(error).with_context(|| format!("cannot start:\n  {self}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(self.directory.clone().unwrap_or_else(workspace));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn finish(&self, command: &mut Command) -> Result<()> {
        let status = command.status().with_context(|| format!("cannot start:\n  {self}"))?;
        if !status.success() {
            bail!("this command failed ({status}):\n  {self}");
        }
        Ok(())
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.directory {
            write!(formatter, "cd {} && ", quoted(directory.as_os_str()))?;
        }
        for (name, value) in &self.environment {
            write!(formatter, "{name}={} ", quoted(value))?;
        }
        write!(formatter, "{}", quoted(&self.program))?;
        for argument in &self.arguments {
            write!(formatter, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

/// A word as a POSIX shell needs it; control characters as bash's `$'…'` writes them.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    if word.chars().any(char::is_control) {
        return format!("$'{}'", control_escaped(&word));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn control_escaped(word: &str) -> String {
    let mut escaped = String::new();
    for c in word.chars() {
        match c {
            '\'' | '\\' => escaped.extend(['\\', c]),
            c if c.is_ascii_control() => escaped.push_str(&format!("\\{:03o}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Where a program is, on `PATH` or in the directories that only root has on it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The command, by way of sudo if we are not root and there is one. Without sudo the command itself says what it lacks.
pub(crate) fn as_root(command: Cmd) -> Cmd {
    if is_root() || find("sudo").is_none() { command } else { command.through_sudo(&[]) }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    Cmd::new("id").args(["-u"]).ask().is_some_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let cmd = Cmd::new("cargo").args(["build", "a b", "it's"]).env("FLAGS", "x y");
        assert_eq!(cmd.to_string(), r"FLAGS='x y' cargo build 'a b' 'it'\''s'");
    }

    #[test]
    fn control_characters_are_shown_so_that_bash_reads_them_back() {
        assert_eq!(quoted(OsStr::new("a\u{1f}b")), r"$'a\037b'");
    }

    #[test]
    fn a_failure_names_the_whole_command() {
        let error = Cmd::new("false").args(["--option"]).run().expect_err("false fails");
        assert!(format!("{error:#}").contains("false --option"), "{error:#}");
    }

    #[test]
    fn sudo_gets_the_environment_as_assignments() {
        let cmd = Cmd::new("apt-get").args(["update"]).env("DEBIAN_FRONTEND", "noninteractive");
        assert_eq!(
            cmd.through_sudo(&["-n"]).to_string(),
            "sudo -n DEBIAN_FRONTEND=noninteractive apt-get update"
        );
    }
}
