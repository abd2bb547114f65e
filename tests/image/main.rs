//! The image tier: the archive that `cargo xtask image` made, by the words of OCI's image-spec, by skopeo, and by running what is in
//! it: here, and for the other architecture through qemu. Needs root, for chroot(2).

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use support::process::{self, Finished};

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const PROGRAM: &str = "usr/bin/pod2pod";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn archive() -> PathBuf {
    workspace().join("target/image").join(format!("pod2pod-{}.tar", env!("CARGO_PKG_VERSION")))
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The archive, unpacked.
struct Layout {
    folder: tempfile::TempDir,
    seen: BTreeSet<String>,
}

impl Layout {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive();
        assert!(archive.exists(), "{} is not there; run: cargo xtask image", archive.display());
        said(Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("-C").arg(folder.path()));
        Self { folder, seen: BTreeSet::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// The content that a descriptor names: of its size, and of its digest by coreutils.
    fn blob(&mut self, descriptor: &Value, kind: &str) -> Vec<u8> {
        assert_eq!(descriptor["mediaType"], kind, "{descriptor}");
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = self.path("blobs/sha256").join(digest);
        assert_eq!(sum(&path), digest);
        let content = fs::read(&path).unwrap();
        assert_eq!(descriptor["size"].as_u64().unwrap(), content.len() as u64, "{descriptor}");
        self.seen.insert(digest.to_owned());
        content
    }

    fn manifests(&mut self) -> Vec<Value> {
        let top = self.json("index.json");
        let [index] = &top["manifests"].as_array().unwrap()[..] else { panic!("{top}") };
        assert_eq!(index["annotations"]["org.opencontainers.image.ref.name"], env!("CARGO_PKG_VERSION"));
        let index: Value = serde_json::from_slice(&self.blob(index, INDEX)).unwrap();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
        index["manifests"].as_array().unwrap().clone()
    }

    /// Configuration and unpacked layer of each architecture.
    fn variants(&mut self) -> Vec<(String, Value, Vec<u8>)> {
        let manifests = self.manifests();
        let one = |described: &Value| {
            let architecture = described["platform"]["architecture"].as_str().unwrap().to_owned();
            assert_eq!(described["platform"]["os"], "linux");
            let manifest = self.blob(described, "application/vnd.oci.image.manifest.v1+json");
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            let config = self.blob(&manifest["config"], "application/vnd.oci.image.config.v1+json");
            let config: Value = serde_json::from_slice(&config).unwrap();
            let [layer] = &manifest["layers"].as_array().unwrap()[..] else { panic!("{manifest}") };
            let packed = self.blob(layer, "application/vnd.oci.image.layer.v1.tar+gzip");
            let mut layer = Vec::new();
            GzDecoder::new(&packed[..]).read_to_end(&mut layer).unwrap();
            let place = self.path("layer.tar");
            fs::write(&place, &layer).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", sum(&place))]));
            (architecture, config, layer)
        };
        manifests.iter().map(one).collect()
    }
}

fn sum(path: &Path) -> String {
    said(Command::new("sha256sum").arg(path)).split(' ').next().unwrap().to_owned()
}

/// The file system of an architecture's image.
struct Root(tempfile::TempDir);

impl Root {
    fn of(architecture: &str) -> Self {
        let mut variants = Layout::open().variants().into_iter();
        let (_, _, layer) = variants.find(|(name, _, _)| name == architecture).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("layer.tar");
        fs::write(&packed, layer).unwrap();
        said(Command::new("tar").arg("--extract").arg("--file").arg(&packed).arg("-C").arg(folder.path()));
        fs::remove_file(packed).unwrap();
        Self(folder)
    }

    fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.0.path().join(path)).unwrap()
    }

    /// Runs the program: with nothing around it but the image, or through qemu.
    fn run(&self, architecture: &str, arguments: &[&str], input: &[u8]) -> Finished {
        let emulator = match (architecture, std::env::consts::ARCH) {
            ("amd64", "x86_64") | ("arm64", "aarch64") => None,
            ("amd64", _) => Some("qemu-x86_64-static"),
            _ => Some("qemu-aarch64-static"),
        };
        let mut command = Command::new(emulator.unwrap_or("chroot"));
        match emulator {
            Some(_) => command.arg(self.0.path().join(PROGRAM)),
            None => command.arg(self.0.path()).arg(format!("/{PROGRAM}")),
        };
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::run(command, input)
    }
}

#[test]
fn the_archive_is_a_layout_of_oci() {
    let mut layout = Layout::open();
    assert_eq!(layout.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    let variants = layout.variants();
    let names: Vec<&str> = variants.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ARCHITECTURES);
    for (name, config, _) in &variants {
        assert_eq!((&config["architecture"], &config["os"]), (&json!(name), &json!("linux")));
        assert_eq!(config["config"]["Entrypoint"], json!([format!("/{PROGRAM}")]));
        assert_eq!((&config["config"]["Cmd"], &config["config"]["User"]), (&json!(["agent"]), &json!("0:0")));
        let labels = config["config"]["Labels"].as_object().unwrap();
        for key in ["title", "version", "revision", "created", "source", "licenses", "description"] {
            assert!(labels[&format!("org.opencontainers.image.{key}")].is_string(), "{key}: {labels:?}");
        }
        assert_eq!(labels["org.opencontainers.image.created"], config["created"]);
    }
    // Nothing is in it that nobody names.
    let blobs = fs::read_dir(layout.path("blobs/sha256")).unwrap();
    let blobs: BTreeSet<String> =
        blobs.map(|blob| blob.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(blobs, layout.seen);
}

#[test]
fn skopeo_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let from = format!("oci-archive:{}:{}", archive().display(), env!("CARGO_PKG_VERSION"));
    let to = format!("dir:{}", folder.path().display());
    said(Command::new("skopeo").args(["copy", "--all", "--quiet", "--insecure-policy", &from, &to]));
    for architecture in ARCHITECTURES {
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "--override-arch",
            architecture,
            "--override-os",
            "linux",
            "inspect",
            "--config",
            &from,
        ]);
        let config: Value = serde_json::from_str(&said(&mut skopeo)).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
}

#[test]
fn there_is_nothing_else_in_the_image() {
    for (architecture, _, layer) in Layout::open().variants() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("layer.tar");
        fs::write(&place, layer).unwrap();
        let listed = said(Command::new("tar").args(["--list", "--file"]).arg(&place));
        let files: Vec<&str> = listed.lines().filter(|line| !line.ends_with('/')).collect();
        let expected = ["etc/ssl/certs/ca-certificates.crt", PROGRAM, "usr/share/sbom/pod2pod.cdx.json"];
        assert_eq!(files, expected, "{architecture}");
        let listed =
            said(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(place));
        assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "{listed}");
    }
    let certificates =
        String::from_utf8(Root::of("amd64").file("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(certificates.matches("-----BEGIN CERTIFICATE-----").count() > 100);
}

/// Number in an ELF file, in the byte order of both machines.
fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[test]
fn programs_need_nothing_and_name_no_place_of_this_machine() {
    for (architecture, machine) in [("amd64", 62), ("arm64", 183)] {
        let program = Root::of(architecture).file(PROGRAM);
        assert_eq!((&program[..4], number(&program, 18, 2)), (&b"\x7fELF"[..], machine));
        let (headers, size, count) =
            (number(&program, 32, 8), number(&program, 54, 2), number(&program, 56, 2));
        let kinds: Vec<usize> = (0..count).map(|at| number(&program, headers + at * size, 4)).collect();
        // PT_DYNAMIC, PT_INTERP
        assert!(!kinds.contains(&2) && !kinds.contains(&3), "{architecture}: {kinds:?}");
        let home = std::env::var("HOME").unwrap();
        let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
        let sysroot = said(Command::new("rustc").args(["--print", "sysroot"]));
        for place in [workspace().to_str().unwrap(), cargo.as_str(), sysroot.trim(), "/.cache/pod2pod"] {
            let found = memchr::memmem::find(&program, place.as_bytes());
            let around = found.map(|at| String::from_utf8_lossy(&program[at..at + 100]).into_owned());
            assert_eq!(around, None, "{architecture}: {place}");
        }
    }
}

#[test]
fn programs_do_what_the_one_of_the_tests_does() {
    let data = workspace().join("tests/data");
    let captures = ["nginx-curl-keepalive.pcap", "go-curl-refused.pcap", "crafted-gaps.pcap"];
    let native = |arguments: &[&str], input: &[u8]| process::run(process::command(arguments), input);
    for architecture in ARCHITECTURES {
        let root = Root::of(architecture);
        let check = |arguments: &[&str], input: &[u8]| {
            let (ours, its) = (native(arguments, input), root.run(architecture, arguments, input));
            assert_eq!(its.code, ours.code, "{architecture} {arguments:?}: {}", its.stderr);
            assert_eq!(its.stdout, ours.stdout, "{architecture} {arguments:?}");
            assert!(!its.stdout.is_empty(), "{architecture} {arguments:?}");
        };
        check(&["schema"], b"");
        for capture in captures {
            let input = fs::read(data.join(capture)).unwrap();
            check(&["replay", "-"], &input);
            // libpcap is in it.
            check(&["replay", "-", "--filter", "tcp port 80 or not port 80"], &input);
        }
        let wrong = root.run(architecture, &["replay", "-", "--filter", "tcp prt 80"], b"");
        assert_eq!(wrong.code, Some(64), "{}", wrong.stderr);
    }
}

#[test]
fn the_bill_names_what_is_linked() {
    for architecture in ARCHITECTURES {
        let inside = Root::of(architecture).file("usr/share/sbom/pod2pod.cdx.json");
        let name = format!("pod2pod-{}-{architecture}.cdx.json", env!("CARGO_PKG_VERSION"));
        assert_eq!(inside, fs::read(archive().with_file_name(name)).unwrap(), "beside it is the same");
        let bill: Value = serde_json::from_slice(&inside).unwrap();
        assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
        let components = bill["components"].as_array().unwrap();
        let names: BTreeSet<&str> = components.iter().map(|part| part["name"].as_str().unwrap()).collect();
        for name in
            ["aya", "kube", "rustls", "tikv-jemallocator", "aya-ebpf", "libpcap", "musl", "ca-certificates"]
        {
            assert!(names.contains(name), "{name}");
        }
        for name in ["proptest", "criterion", "cc", "serde_derive"] {
            assert!(!names.contains(name), "{name} is not linked");
        }
        for part in components {
            assert!(!part["version"].as_str().unwrap().is_empty(), "{part}");
            assert!(part["licenses"].is_array(), "{part}");
            let is_ours = part["name"].as_str().unwrap().starts_with("pod2pod-");
            let is_a_crate = part["purl"].is_string() && !is_ours;
            assert_eq!(part["hashes"].is_array(), is_a_crate, "{part}");
        }
    }
}
