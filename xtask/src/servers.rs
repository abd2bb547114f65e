//! Servers that tests talk to, built from source once a machine and kept outside the clone. Versions and sums stand in
//! `tests/servers`: nothing is resolved here, only fetched, and Go checks each sum. Who needs which server is not known here.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, Cmd, say},
    toolchain,
};

/// A program of a Go module.
pub(crate) struct Server {
    /// Name of the program.
    name: &'static str,
    /// Folder in `tests/servers` with its go.mod and go.sum.
    module: &'static str,
    /// The package that is the program.
    package: &'static str,
    /// For the linker: no symbols, and what the program says its version is.
    linked: &'static str,
    why: &'static str,
}

/// The package of the folder itself, which has a main function of ours.
const OWN: &str = ".";
/// What such a folder has beside its versions.
const OWN_SOURCES: [&str; 2] = ["main.go", "file.go"];

/// No symbols, and the version that Kubernetes' own build writes in.
const KUBERNETES: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.8 \
                          -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35";

const SERVERS: [Server; 5] = [
    Server {
        name: "etcd",
        module: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        linked: "-s -w",
        why: "keeps what kube-apiserver knows",
    },
    Server {
        name: "kube-apiserver",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        linked: KUBERNETES,
        why: "the API that pods and services come from",
    },
    Server {
        name: "kubectl",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kubectl",
        linked: KUBERNETES,
        why: "checks the manifests as a user would",
    },
    Server {
        name: "otelcol",
        module: "otelcol",
        package: OWN,
        linked: "-s -w",
        why: "takes what the sink otlp sends",
    },
    Server {
        name: "helm",
        module: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        linked: "-s -w",
        why: "renders the chart as a user would",
    },
];

/// Minor release of Go that builds them.
const GO: u32 = 26;
/// What an older Go fetches by itself, and checks, as it does with modules.
const GO_TOOLCHAIN: &str = "go1.26.8";
/// From this minor release on it can.
const GO_FETCHES: u32 = 21;

/// Builds what is not there.
///
/// # Errors
/// A server cannot be fetched or built; the error is the command.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<&Server> = SERVERS.iter().filter(|server| !is_there(server)).collect();
    if !missing.is_empty() {
        let version = Cmd::new("go").args(["version"]).ask().context("there is no go on PATH")?;
        let toolchain = toolchain_for(&version)?;
        let work = home().join(format!("build.{}", std::process::id()));
        let built = missing.iter().try_for_each(|server| build(server, toolchain, &work));
        // Gigabytes, and of no use once the programs are there.
        let removed = remove(&work);
        built.and(removed)?;
    }
    link()
}

/// Puts a link to where servers are where tests look.
pub(crate) fn link() -> Result<()> {
    let link = cmd::workspace().join("target/servers");
    if fs::read_link(&link).is_ok_and(|place| place == home()) {
        return Ok(());
    }
    remove(&link)?;
    fs::create_dir_all(cmd::workspace().join("target")).context("cannot make target")?;
    symlink(home(), &link).with_context(|| format!("cannot make {}", link.display()))
}

/// Where they are.
pub(crate) fn home() -> PathBuf {
    toolchain::cache().join("servers")
}

/// `GOTOOLCHAIN` for the Go that says this of itself: `go version go1.26.8 linux/amd64`.
fn toolchain_for(version: &str) -> Result<&'static str> {
    let release = version.split(' ').find_map(|word| word.strip_prefix("go1.")).unwrap_or_default();
    let minor = release.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    match minor {
        Some(GO..) => Ok("local"),
        Some(GO_FETCHES..GO) => Ok(GO_TOOLCHAIN),
        Some(..GO_FETCHES) | None => bail!(
            "this is {}; the servers of tests need Go 1.{GO}, which Go 1.{GO_FETCHES} or later fetches by itself: \
             install one from https://go.dev/dl and put it on PATH",
            version.trim()
        ),
    }
}

fn is_there(server: &Server) -> bool {
    home().join(server.name).is_file()
        && fs::read_to_string(stamp_file(server)).is_ok_and(|text| text == stamp(server))
}

fn build(server: &Server, toolchain: &str, work: &Path) -> Result<()> {
    let Server { name, package, linked, why, .. } = *server;
    let place = home().join(name);
    say(&format!("setup: {name} into {} ({why}); minutes, once", place.display()));
    for folder in ["modules", "objects"] {
        let folder = work.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let built = work.join(name);
    Cmd::new("go")
        .env("GOMODCACHE", work.join("modules"))
        .env("GOCACHE", work.join("objects"))
        .env("GOFLAGS", "-buildvcs=false -modcacherw")
        .env("GOTOOLCHAIN", toolchain)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", &format!("-ldflags={linked}"), "-o"])
        .args([&built])
        .args([package])
        .inside(&folder(server))
        .run_aside()?;
    fs::rename(&built, &place).with_context(|| format!("cannot put {} in its place", place.display()))?;
    let stamp_file = stamp_file(server);
    fs::write(&stamp_file, stamp(server)).with_context(|| format!("cannot write {}", stamp_file.display()))
}

fn folder(server: &Server) -> PathBuf {
    cmd::workspace().join("tests/servers").join(server.module)
}

fn stamp_file(server: &Server) -> PathBuf {
    home().join(format!("{}.stamp", server.name))
}

/// All that decides what is built, but for the release of Go: any that will do makes servers that will do.
fn stamp(server: &Server) -> String {
    let read = |name: &str| fs::read_to_string(folder(server).join(name)).unwrap_or_default();
    let own = if server.package == OWN { OWN_SOURCES.map(read).concat() } else { String::new() };
    format!("{}\n{}\n{}{}{own}", server.package, server.linked, read("go.mod"), read("go.sum"))
}

/// Removes a folder, a file or a link, if it is there.
pub(crate) fn remove(place: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(place),
        Ok(_) => fs::remove_file(place),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("cannot remove {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_go_fetches_a_new_one_if_it_can() {
        for (version, toolchain) in [
            ("go version go1.26.8 linux/amd64", Some("local")),
            ("go version go1.26rc1 linux/amd64", Some("local")),
            ("go version go1.30 linux/arm64", Some("local")),
            ("go version go1.25.9 linux/amd64", Some(GO_TOOLCHAIN)),
            ("go version go1.21.0 linux/amd64", Some(GO_TOOLCHAIN)),
            ("go version go1.20.14 linux/amd64", None),
            ("go version go1.19.8 linux/amd64", None),
            ("go version devel linux/amd64", None),
            ("", None),
        ] {
            assert_eq!(toolchain_for(version).ok(), toolchain, "{version}");
        }
    }

    #[test]
    fn every_server_has_versions_and_sums() {
        for server in &SERVERS {
            let module = fs::read_to_string(folder(server).join("go.mod")).expect("there is a go.mod");
            assert!(module.contains(&format!("\ngo 1.{GO}")), "{}", server.name);
            let is_tool = module.contains(&format!("tool {}\n", server.package));
            assert_ne!(is_tool, server.package == OWN, "{}", server.name);
            assert!(folder(server).join("go.sum").is_file(), "{}", server.name);
        }
    }
}
