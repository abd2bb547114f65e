//! Servers in JavaScript that tests talk to: what their `package-lock.json` names, fetched once a machine by npm, which checks each sum, and
//! kept outside the clone with a program of ours. Who needs which server is not known here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{self, Cmd, say},
    servers::{home, link, remove},
};

/// A server of packages.
struct Server {
    /// Its folder, there and in `tests/servers`.
    name: &'static str,
    why: &'static str,
}

const SERVERS: [Server; 1] = [Server { name: "fluentd", why: "takes what the sink fluentd sends" }];

/// All that decides what is there: packages, their versions and sums, and the program.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// Fetches what is not there.
///
/// # Errors
/// A package cannot be fetched; the error is the command.
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
    remove(&place)?;
    fs::rename(&work, &place).with_context(|| format!("cannot put {} in its place", place.display()))
}

fn fetch(server: &Server, work: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    for name in FILES {
        let from = folder(server).join(name);
        fs::copy(&from, work.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // Packages may have programs that run when they come: none of these needs that.
    Cmd::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).inside(work).run_aside()
}

fn folder(server: &Server) -> PathBuf {
    cmd::workspace().join("tests/servers").join(server.name)
}

/// The copies are the stamp: they come to their place together with what was fetched.
fn is_there(server: &Server) -> bool {
    let place = home().join(server.name);
    FILES.iter().all(|name| {
        let wanted = fs::read(folder(server).join(name));
        wanted.is_ok_and(|wanted| fs::read(place.join(name)).is_ok_and(|there| there == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_its_files_and_a_sum_of_each_package() {
        for server in &SERVERS {
            let read = |name: &str| fs::read_to_string(folder(server).join(name)).expect("it is there");
            FILES.iter().for_each(|name| assert!(!read(name).is_empty(), "{name} of {}", server.name));
            // A range would be another server each time.
            assert!(!read("package.json").contains(['^', '~', '*', '>', '<']), "{}", server.name);
            let lock = read("package-lock.json");
            let packages = lock.matches("\"node_modules/").count();
            assert!(packages > 0 && packages == lock.matches("\"integrity\": \"sha512-").count(), "{lock}");
            // Whose registry it was is the machine's affair.
            assert!(!lock.contains("\"resolved\""), "{lock}");
        }
    }
}
