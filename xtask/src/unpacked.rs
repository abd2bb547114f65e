//! Servers of Debian's that cannot be installed beside others: their packages are fetched by apt, which checks each sum, and unpacked outside
//! the clone, with the libraries that they need. Nothing of this machine is changed. Who needs which server is not known here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{Cmd, say},
    servers::{home, link, remove},
};

/// A server, by its package.
struct Server {
    /// Its folder.
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

const SERVERS: [Server; 1] =
    [Server { name: "syslog-ng", package: "syslog-ng-core", why: "takes what the sink syslog sends, too" }];

/// Which version of the package was unpacked; it comes with what was.
const STAMP: &str = "version";
/// Where the packages are unpacked, in a server's folder.
const ROOT: &str = "root";

/// Fetches what is not there.
///
/// # Errors
/// A package cannot be fetched or unpacked; the error is the command.
pub(crate) fn ensure() -> Result<()> {
    SERVERS.iter().filter(|server| !home().join(server.name).join(STAMP).exists()).try_for_each(make)?;
    link()
}

fn make(server: &Server) -> Result<()> {
    let place = home().join(server.name);
    say(&format!("setup: {} into {} ({})", server.package, place.display(), server.why));
    let work = home().join(format!("{}.{}", server.name, std::process::id()));
    let made = fetch(server, &work);
    if made.is_err() {
        remove(&work)?;
        return made;
    }
    remove(&place)?;
    fs::rename(&work, &place).with_context(|| format!("cannot put {} in its place", place.display()))
}

fn fetch(server: &Server, work: &Path) -> Result<()> {
    let packages = work.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    let depends = Cmd::new("apt-cache").args(["depends", "--important", server.package]);
    let said = depends.ask().with_context(|| format!("this command failed:\n  {depends}"))?;
    let names: Vec<_> = libraries(&said).chain([server.package]).collect();
    let root_reads = ["-o", "APT::Sandbox::User=root"];
    Cmd::new("apt-get")
        .args(["-qq", "download"])
        .args(root_reads)
        .args(names)
        .inside(&packages)
        .run_aside()?;
    let mut files: Vec<PathBuf> = Vec::new();
    for package in fs::read_dir(&packages)? {
        files.push(package?.path());
    }
    for file in &files {
        let root = work.join(ROOT);
        Cmd::new("dpkg-deb").args(["-x".as_ref(), file.as_os_str(), root.as_os_str()]).run()?;
    }
    let of_server = files.iter().filter_map(|file| file.file_name()?.to_str());
    let own = of_server.filter(|file| file.starts_with(server.package)).collect::<Vec<_>>().join("\n");
    fs::remove_dir_all(&packages)?;
    fs::write(work.join(STAMP), own)?;
    Ok(())
}

/// Names of libraries in what `apt-cache depends` says, but for the one that every program has.
fn libraries(said: &str) -> impl Iterator<Item = &str> {
    let names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.filter(|name| name.starts_with("lib") && *name != "libc6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_needed_and_no_alternative() {
        let said = "syslog-ng-core\n  Depends: libc6\n  Depends: libnet1\n |Depends: sysvinit-utils\n  \
                    Depends: lsb-base\n    libelogind0\n  Conflicts: libother\n";
        assert_eq!(libraries(said).collect::<Vec<_>>(), ["libnet1"]);
    }
}
