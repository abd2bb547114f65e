//! Servers in Java that tests talk to: what their `pom.xml` names, fetched once a machine by Maven and kept outside the clone, and a main
//! class of ours compiled against it. Who needs which server is not known here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{self, Cmd, say},
    servers::{home, link, remove},
};

/// A server of jars.
struct Server {
    /// Its folder, there and in `tests/servers`.
    name: &'static str,
    /// A main class of ours, if its own is not enough.
    main: Option<&'static str>,
    why: &'static str,
}

const SERVERS: [Server; 2] = [
    Server { name: "kafka", main: None, why: "keeps records in topics as a user's does" },
    Server { name: "opensearch", main: Some("Node.java"), why: "stores documents as a user's does" },
];

/// What copies jars; its short name is not found.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Fetches and compiles what is not there.
///
/// # Errors
/// A jar cannot be fetched, or a class compiled; the error is the command.
pub(crate) fn ensure() -> Result<()> {
    SERVERS.iter().filter(|server| !is_there(server)).try_for_each(make)?;
    link()
}

fn make(server: &Server) -> Result<()> {
    let place = home().join(server.name);
    say(&format!("setup: {} into {} ({})", server.name, place.display(), server.why));
    let work = home().join(format!("{}.{}", server.name, std::process::id()));
    let made = fetch(server, &work);
    if made.is_err() {
        remove(&work)?;
        return made;
    }
    // An old one would leave jars of another version beside the new ones.
    remove(&place)?;
    fs::rename(&work, &place).with_context(|| format!("cannot put {} in its place", place.display()))?;
    let stamp_file = stamp_file(server);
    fs::write(&stamp_file, stamp(server)).with_context(|| format!("cannot write {}", stamp_file.display()))
}

fn fetch(server: &Server, work: &Path) -> Result<()> {
    let (lib, classes) = (work.join("lib"), work.join("classes"));
    fs::create_dir_all(&classes).with_context(|| format!("cannot make {}", classes.display()))?;
    Cmd::new("mvn")
        .args(["-B", "-ntp", "-q", "-f", "pom.xml", COPY, "-DincludeScope=runtime"])
        .args([format!("-DoutputDirectory={}", lib.display())])
        .inside(&folder(server))
        .run_aside()?;
    let Some(main) = server.main else { return Ok(()) };
    Cmd::new("javac")
        .args(["-cp", &format!("{}/*", lib.display()), "-d"])
        .args([&classes])
        .args([main])
        .inside(&folder(server))
        .run_aside()
}

fn folder(server: &Server) -> PathBuf {
    cmd::workspace().join("tests/servers").join(server.name)
}

fn stamp_file(server: &Server) -> PathBuf {
    home().join(format!("{}.stamp", server.name))
}

/// All that decides what is there.
fn stamp(server: &Server) -> String {
    let read = |name: &str| fs::read_to_string(folder(server).join(name)).unwrap_or_default();
    format!("{COPY}\n{}{}", read("pom.xml"), server.main.map(read).unwrap_or_default())
}

fn is_there(server: &Server) -> bool {
    home().join(server.name).join("lib").is_dir()
        && fs::read_to_string(stamp_file(server)).is_ok_and(|text| text == stamp(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_its_files_and_one_version_of_each() {
        for server in &SERVERS {
            let pom = fs::read_to_string(folder(server).join("pom.xml")).expect("there is a pom.xml");
            // A range would be another server each time.
            assert!(!pom.contains(['[', '(', ',']), "{}", server.name);
            assert!(server.main.is_none_or(|main| folder(server).join(main).is_file()), "{}", server.name);
        }
    }
}
