//! An image of several architectures as an archive in the layout of OCI (image-spec 1.1). It knows no file of the image.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::tar::Archive;
use crate::cmd::Cmd;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A file of the image.
pub(super) struct Entry {
    /// From the root on, without a slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// The image on one architecture.
pub(super) struct Variant {
    /// As Go calls it.
    pub(super) architecture: &'static str,
    pub(super) entries: Vec<Entry>,
}

/// What all architectures have in common.
pub(super) struct Image {
    /// Its name in the archive.
    pub(super) tag: String,
    /// Seconds since 1970, and the same as RFC 3339 has it.
    pub(super) time: (u64, String),
    pub(super) entrypoint: String,
    pub(super) command: String,
    pub(super) environment: Vec<String>,
    /// The labels, which are annotations too.
    pub(super) labels: Value,
}

/// Blobs that are in a folder already.
struct Blobs<'a> {
    folder: &'a Path,
    /// Digest without its kind, and size.
    written: Vec<(String, usize)>,
}

impl Image {
    /// Writes the archive to `place`; `folder` is for what comes in between, and is made anew.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn write(&self, variants: &[Variant], folder: &Path, place: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut blobs = Blobs { folder, written: Vec::new() };
        let manifests = variants.iter().map(|variant| self.variant(variant, &mut blobs));
        let manifests = manifests.collect::<Result<Vec<_>>>()?;
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": self.labels,
        });
        let mut index = blobs.json(INDEX, &index)?;
        index["annotations"] = json!({"org.opencontainers.image.ref.name": self.tag});
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]});
        let new = place.with_extension("new");
        let file = File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
        let mut archive = Archive::new(file, self.time.0);
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", 0o644, &serde_json::to_vec(&top)?)?;
        for (digest, _) in &blobs.written {
            archive.file(&format!("blobs/sha256/{digest}"), 0o644, &fs::read(folder.join(digest))?)?;
        }
        archive.finish()?.flush()?;
        fs::rename(&new, place).with_context(|| format!("cannot write {}", place.display()))
    }

    /// The descriptor of the manifest of one architecture.
    fn variant(&self, variant: &Variant, blobs: &mut Blobs<'_>) -> Result<Value> {
        let mut layer = Archive::new(Vec::new(), self.time.0);
        for Entry { path, mode, content } in &variant.entries {
            layer.file(path, *mode, content)?;
        }
        let layer = layer.finish()?;
        let unpacked = digest_of(&layer, &blobs.folder.join("layer"))?;
        let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        packed.write_all(&layer)?;
        let layer = blobs.add(LAYER, &packed.finish()?)?;
        let config = json!({
            "created": self.time.1,
            "architecture": variant.architecture,
            "os": "linux",
            "config": {
                "User": "0:0",
                "Env": self.environment,
                "Entrypoint": [self.entrypoint],
                "Cmd": [self.command],
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{unpacked}")]},
            "history": [{"created": self.time.1, "created_by": "cargo xtask image"}],
        });
        let config = blobs.json(CONFIG, &config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "annotations": self.labels,
        });
        let mut manifest = blobs.json(MANIFEST, &manifest)?;
        manifest["platform"] = json!({"architecture": variant.architecture, "os": "linux"});
        Ok(manifest)
    }
}

impl Blobs<'_> {
    fn json(&mut self, kind: &str, content: &Value) -> Result<Value> {
        self.add(kind, &serde_json::to_vec(content)?)
    }

    /// Writes a blob; gives its descriptor.
    fn add(&mut self, kind: &str, content: &[u8]) -> Result<Value> {
        let new = self.folder.join("blob");
        let digest = digest_of(content, &new)?;
        fs::rename(&new, self.folder.join(&digest)).context("cannot name a blob")?;
        if self.written.iter().all(|(known, _)| *known != digest) {
            self.written.push((digest.clone(), content.len()));
        }
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()}))
    }
}

/// Writes `content` to `place`, and has coreutils sum it up.
fn digest_of(content: &[u8], place: &PathBuf) -> Result<String> {
    fs::write(place, content).with_context(|| format!("cannot write {}", place.display()))?;
    let said = Cmd::new("sha256sum").args([place]).ask().context("sha256sum, of coreutils, failed")?;
    let digest = said.split(' ').next().unwrap_or_default().trim_start_matches('\\');
    if digest.len() != 64 {
        bail!("sha256sum said: {said}");
    }
    Ok(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = std::env::temp_dir().join(format!("pod2pod-image-{}", std::process::id()));
        let image = Image {
            tag: "1".to_owned(),
            time: (1_700_000_000, "2023-11-14T22:13:20Z".to_owned()),
            entrypoint: "/usr/bin/a".to_owned(),
            command: "b".to_owned(),
            environment: vec!["PATH=/usr/bin".to_owned()],
            labels: json!({"org.opencontainers.image.title": "a"}),
        };
        let archive = |content: &[u8]| {
            let entry = Entry { path: "usr/bin/a".to_owned(), mode: 0o755, content: content.to_vec() };
            let variant = Variant { architecture: "amd64", entries: vec![entry] };
            let place = folder.with_extension("tar");
            image.write(&[variant], &folder, &place).expect("written");
            fs::read(&place).expect("there")
        };
        let first = archive(b"a");
        assert_eq!(first, archive(b"a"));
        assert_ne!(first, archive(b"b"));
        fs::remove_dir_all(&folder).expect("removed");
        fs::remove_file(folder.with_extension("tar")).expect("removed");
    }
}
