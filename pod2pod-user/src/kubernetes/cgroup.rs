//! Which pod and which container a cgroup belongs to, read off its path: kubelet and container runtimes write both into it.
//!
//! Layouts of containerd, CRI-O and Docker (cri-dockerd), with the drivers systemd and cgroupfs. Whether the pod exists, and
//! what it is called, is not known here.

use std::fmt;

/// Digits of a UUID, and of the hash that stands for it in the path of a static pod.
const UID_DIGITS: usize = 32;
/// Digits of a container's id (containerd, CRI-O, Docker).
const ID_DIGITS: usize = 64;
/// Places of the dashes of a UUID (RFC 9562 section 4), counted in characters.
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// `metadata.uid` of a pod, which is a UUID; of a static pod the hash of its manifest, which the API has as annotation
/// `kubernetes.io/config.hash`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(u128);

impl PodUid {
    /// Reads a UUID or 32 hexadecimal digits; absent if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        Self::with_dashes(text, b'-')
    }

    fn with_dashes(text: &str, dash: u8) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_dash = |at: usize| bytes.len() > UID_DIGITS && DASHES.contains(&at);
        if bytes.len() != UID_DIGITS && bytes.len() != UID_DIGITS + DASHES.len() {
            return None;
        }
        let mut value = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if is_dash(at) {
                if *byte != dash {
                    return None;
                }
            } else {
                value = value << 4 | u128::from(digit(*byte)?);
            }
        }
        Some(Self(value))
    }
}

impl fmt::Display for PodUid {
    /// As a UUID if it is one (RFC 9562 sections 4.1 and 4.2); the hash of a static pod has no dashes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, variant) = (self.0 >> 76 & 0xf, self.0 >> 62 & 0b11);
        if !(1..=8).contains(&version) || variant != 0b10 {
            return write!(formatter, "{:032x}", self.0);
        }
        let part = |from: u32, digits: u32| self.0 >> (128 - 4 * (from + digits)) & ((1 << (4 * digits)) - 1);
        let [a, b, c, d, e] =
            [(0, 8), (8, 4), (12, 4), (16, 4), (20, 12)].map(|(from, digits)| part(from, digits));
        write!(formatter, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Id of a container, without the runtime's name before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContainerId([u8; ID_DIGITS / 2]);

impl ContainerId {
    /// Reads 64 hexadecimal digits; absent if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != ID_DIGITS {
            return None;
        }
        let mut id = [0; ID_DIGITS / 2];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(id))
    }

    /// Reads what a pod's status has: `containerd://<id>`; absent if it is anything else.
    pub fn of_status(text: &str) -> Option<Self> {
        let (_runtime, id) = text.split_once("://")?;
        Self::parse(id)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Lower case only: nobody writes these otherwise.
const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// What a path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod.
    pub pod: PodUid,
    /// The container in it; absent of what is beside its containers, as the runtime's monitor is. A pod's sandbox is one too,
    /// which no status lists.
    pub container: Option<ContainerId>,
}

/// The pods that the cgroup at `path` is within, from the root on: more than one where a node runs in a pod of another cluster.
pub fn places(path: &str) -> impl Iterator<Item = Place> {
    let mut parts = path.split('/').peekable();
    std::iter::from_fn(move || {
        loop {
            let part = parts.next()?;
            // Where the runtime takes the one driver and kubelet the other, runc does not know what it is told:
            // `kubepods-pod<uid>.slice:cri-containerd:<id>`.
            if let Some((slice, container)) = part.split_once(':') {
                let Some(pod) = pod_of(slice) else { continue };
                let container = container.rsplit(':').next().and_then(ContainerId::parse);
                return Some(Place { pod, container });
            }
            let Some(pod) = pod_of(part) else { continue };
            let container = parts.peek().and_then(|below| container_of(below));
            return Some(Place { pod, container });
        }
    })
}

/// The pod that a part of a path stands for: `pod<uid>` with cgroupfs, `kubepods-burstable-pod<uid>.slice` with systemd, whose
/// names have another use for dashes.
fn pod_of(part: &str) -> Option<PodUid> {
    match part.strip_suffix(".slice") {
        None => PodUid::parse(part.strip_prefix("pod")?),
        Some(slice) => {
            let (above, uid) = slice.rsplit_once("-pod")?;
            // Whatever kubelet's `--cgroup-root` puts before it.
            above.contains("kubepods").then(|| PodUid::with_dashes(uid, b'_'))?
        }
    }
}

/// The container that a part of a path stands for: `<id>`, `cri-containerd-<id>.scope`, `crio-<id>`, `docker-<id>.scope`.
fn container_of(part: &str) -> Option<ContainerId> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    // CRI-O's monitor of the container has its id.
    (!runtime.ends_with("conmon")).then(|| ContainerId::parse(id))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa";
    const STATIC: &str = "7f3e5a1b9c8d7e6f5a4b3c2d1e0f9a8b";
    const ID: &str = "3f5c0e9d6f0bd7a1f2a4b6c8e0d1f3a5b7c9e1f3a5b7c9e1f3a5b7c9e1f3a5b7";
    const OTHER: &str = "4f5c0e9d6f0bd7a1f2a4b6c8e0d1f3a5b7c9e1f3a5b7c9e1f3a5b7c9e1f3a5b7";

    fn place(uid: &str, id: Option<&str>) -> Place {
        Place { pod: PodUid::parse(uid).unwrap(), container: id.map(|id| ContainerId::parse(id).unwrap()) }
    }

    #[test]
    fn each_layout_says_pod_and_container() {
        let slice = UID.replace('-', "_");
        let burstable =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice");
        let guaranteed = format!("/kubepods.slice/kubepods-pod{slice}.slice");
        for (path, uid, id) in [
            // systemd: containerd, CRI-O, cri-dockerd
            (format!("{burstable}/cri-containerd-{ID}.scope"), UID, Some(ID)),
            (format!("{guaranteed}/cri-containerd-{ID}.scope"), UID, Some(ID)),
            (format!("{burstable}/crio-{ID}.scope"), UID, Some(ID)),
            (format!("{burstable}/crio-{ID}.scope/container"), UID, Some(ID)),
            (format!("{burstable}/docker-{ID}.scope"), UID, Some(ID)),
            (format!("{burstable}/crio-conmon-{ID}.scope"), UID, None),
            (burstable.clone(), UID, None),
            // The container runs systemd itself.
            (format!("{guaranteed}/cri-containerd-{ID}.scope/system.slice/nginx.service"), UID, Some(ID)),
            // cgroupfs: containerd and cri-dockerd, CRI-O
            (format!("/kubepods/burstable/pod{UID}/{ID}"), UID, Some(ID)),
            (format!("/kubepods/pod{UID}/{ID}"), UID, Some(ID)),
            (format!("/kubepods/besteffort/pod{UID}/crio-{ID}"), UID, Some(ID)),
            (format!("/kubepods/besteffort/pod{UID}/crio-conmon-{ID}"), UID, None),
            (format!("/kubepods/besteffort/pod{UID}/crio-{ID}/init.scope"), UID, Some(ID)),
            // A static pod
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope"
                ),
                STATIC,
                Some(ID),
            ),
            (format!("/kubepods/burstable/pod{STATIC}/{ID}"), STATIC, Some(ID)),
            // The drivers differ.
            (
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{slice}.slice:cri-containerd:{ID}"
                ),
                UID,
                Some(ID),
            ),
            // kind, and a root of kubelet's own
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
                ),
                UID,
                Some(ID),
            ),
            (format!("/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}"), UID, Some(ID)),
        ] {
            assert_eq!(places(&path).collect::<Vec<_>>(), [place(uid, id)], "{path}");
        }
    }

    #[test]
    fn a_node_within_a_pod_has_pods_within() {
        let outer = "1b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa";
        let path =
            format!("/kubepods/burstable/pod{outer}/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}");
        assert_eq!(places(&path).collect::<Vec<_>>(), [place(outer, Some(OTHER)), place(UID, Some(ID))]);
    }

    #[test]
    fn what_is_no_pod_is_none() {
        let slice = UID.replace('-', "_");
        for path in [
            "/".to_owned(),
            String::new(),
            "/system.slice/nginx.service".to_owned(),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope"),
            "/kubepods.slice/kubepods-burstable.slice".to_owned(),
            // A digit short, one too many, no digit, a dash elsewhere, the other driver's dashes.
            format!("/kubepods/pod{}", &UID[1..]),
            format!("/kubepods/pod{UID}0"),
            format!("/kubepods/pod{}", UID.replace('e', "g")),
            "/kubepods/pod0b1c2d3e4-f50-6172-8394-a5b6c7d8e9fa".to_owned(),
            format!("/kubepods/pod{slice}"),
            format!("/kubepods.slice/kubepods-pod{UID}.slice"),
            // Of a slice that is not kubelet's.
            format!("/user.slice/user-pod{slice}.slice"),
            format!("/a:b/kubepods:{ID}"),
        ] {
            assert_eq!(places(&path).next(), None, "{path}");
        }
    }

    #[test]
    fn a_uid_is_written_as_the_api_has_it() {
        for uid in ["0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa", "ffffffff-ffff-4fff-bfff-ffffffffffff", STATIC] {
            assert_eq!(PodUid::parse(uid).unwrap().to_string(), uid);
        }
    }

    #[test]
    fn an_id_is_read_whole_or_not_at_all() {
        assert!(ContainerId::parse(ID).is_some());
        for id in [&ID[1..], &ID.to_uppercase(), &format!("{ID}0"), ""] {
            assert_eq!(ContainerId::parse(id), None, "{id}");
        }
        assert_eq!(ContainerId::of_status(&format!("containerd://{ID}")), ContainerId::parse(ID));
        assert_eq!(ContainerId::of_status(&format!("cri-o://{ID}")), ContainerId::parse(ID));
        assert_eq!(ContainerId::of_status(ID), None);
        assert_eq!(ContainerId::of_status(""), None, "not started yet");
    }
}
