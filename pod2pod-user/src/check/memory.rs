//! What the agent may take of memory, against what its cgroup lets it have.

use std::{fs, path::Path};

use crate::{config::Config, finding::Finding};

/// Where cgroups are mounted as a rule; v1 has a folder of its own for memory.
const MOUNTS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
/// A limit from here on is none: cgroup v1 writes the largest number of whole pages. Bytes.
const NO_LIMIT: u64 = 1 << 60;
const MIB: u64 = 1 << 20;

/// The budget against the limit.
pub(super) fn check(config: &Config) -> Finding {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    compare(config.limits.memory, limit(&cgroups, Path::new("/")))
}

fn compare(budget: u64, limit: Option<u64>) -> Finding {
    const NAME: &str = "memory";
    let budget_mib = budget / MIB;
    match limit {
        Some(limit) if limit < budget => {
            let found = format!("limits.memory is {budget_mib} MiB, its cgroup may have {} MiB", limit / MIB);
            Finding::missing(NAME, found)
                .with(
                    "a limit of the cgroup above limits.memory",
                    "under load the kernel ends the agent before it sheds work",
                    "raise the container's limit (resources.limits.memory), or lower limits.memory",
                )
                .limits()
        }
        Some(limit) => Finding::ok(NAME, format!("limits.memory is {budget_mib} MiB of {} MiB", limit / MIB)),
        None => Finding::ok(
            NAME,
            format!("limits.memory is {budget_mib} MiB; its cgroup has no limit that is seen here"),
        ),
    }
}

/// The lowest limit of the process's cgroup and those above it, by `/proc/self/cgroup`; absent if there is none to be seen.
fn limit(cgroups: &str, root: &Path) -> Option<u64> {
    let of = |controller: &str| {
        cgroups.lines().find_map(|line| {
            // number:controllers:path (cgroups(7)); v2 has no controllers there
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == controller).then_some(path)
        })
    };
    let paths = [of(""), of("memory")];
    let mut limits = Vec::new();
    for ((mount, file), path) in MOUNTS.into_iter().zip(paths) {
        let Some(path) = path else { continue };
        let mount = root.join(mount.trim_start_matches('/'));
        let inside = Path::new(path.trim_start_matches('/'));
        limits.extend(inside.ancestors().filter_map(|part| {
            let text = fs::read_to_string(mount.join(part).join(file)).ok()?;
            text.trim().parse::<u64>().ok().filter(|bytes| *bytes < NO_LIMIT)
        }));
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn the_lowest_limit_above_counts() {
        let root = std::env::temp_dir().join(format!("pod2pod-check-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join("sys/fs/cgroup").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "100000000\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "50000000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (cgroups, expected) in [
            ("0::/a/b\n", Some(100_000_000)),
            ("0::/\n", None),
            ("", None),
            ("nonsense\n:::", None),
            ("5:cpu,memory:/c\n0::/\n", Some(50_000_000)),
            ("5:memory:/\n", None),
        ] {
            assert_eq!(limit(cgroups, &root), expected, "{cgroups:?}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_limit_at_the_budget_and_one_below() {
        assert_eq!(compare(64 * MIB, Some(64 * MIB)).status, Status::Ok);
        assert_eq!(compare(64 * MIB, Some(64 * MIB - 1)).status, Status::Limited);
        assert_eq!(compare(64 * MIB, None).status, Status::Ok);
    }
}
