//! Where a connection was observed: the names of interfaces and cgroups, and the rules about them. Numbers are turned into
//! names by whoever knows this machine, through [`Places`].

use globset::{GlobBuilder, GlobMatcher};

/// Hexadecimal digits from which on a word may be the beginning of a container's id.
const SHORTEST_ID: usize = 6;
/// Digits of a container's id (OCI runtimes: docker, containerd, CRI-O, podman).
const ID_LENGTH: usize = 64;

/// What the numbers in a connection stand for.
pub trait Places {
    /// Name of an interface.
    fn interface(&mut self, index: u32) -> Option<String>;
    /// Path of a cgroup, from the root of cgroup v2 on: `/system.slice/nginx.service`.
    fn cgroup(&mut self, id: u64) -> Option<&str>;
}

/// A name or a glob: `*` stands for any characters but `/`, `**` for any at all, `?` for one, `[…]` for one of several,
/// `{a,b}` for either.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    glob: GlobMatcher,
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl NamePattern {
    /// Reads a pattern; absent if it is empty or no glob.
    pub fn parse(text: &str) -> Option<Self> {
        let glob = GlobBuilder::new(text).literal_separator(true).build().ok()?;
        (!text.is_empty()).then(|| Self { text: text.to_owned(), glob: glob.compile_matcher() })
    }

    /// The text, if it names one thing only.
    pub fn name(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '[', '{', '\\'])).then_some(self.text.as_str())
    }

    /// Whether it says `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.glob.is_match(name)
    }
}

/// A rule for cgroups. A cgroup fits if it or one above it does.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupRule {
    /// For the last part of a path; for all of it if there is a `/` in the rule.
    pattern: NamePattern,
    is_path: bool,
    /// The beginning of a container's id.
    id: Option<String>,
}

impl CgroupRule {
    /// A systemd unit or another name of a cgroup (`nginx.service`), a container's id or at least its first six digits, or
    /// a path from the root on; each may be a glob. Absent if it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_path = text.contains('/');
        let id = text.to_ascii_lowercase();
        let is_id = (SHORTEST_ID..=ID_LENGTH).contains(&id.len()) && is_hexadecimal(&id);
        let pattern = if is_path { format!("/{}", text.trim_matches('/')) } else { text.to_owned() };
        Some(Self { pattern: NamePattern::parse(&pattern)?, is_path, id: is_id.then_some(id) })
    }

    /// Whether the cgroup at `path`, from the root on, or one above it is meant.
    pub fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        let above = ends.filter_map(|end| path.get(..end));
        above.into_iter().any(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.pattern.matches(if self.is_path { path } else { name }) || self.is_container(name)
        })
    }

    fn is_container(&self, name: &str) -> bool {
        let Some(wanted) = &self.id else { return false };
        // `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`.
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let id = name.rsplit('-').next().unwrap_or(name);
        id.len() == ID_LENGTH && is_hexadecimal(id) && id.starts_with(wanted)
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f5c0e9d6f0bd7a1f2a4b6c8e0d1f3a5b7c9e1f3a5b7c9e1f3a5b7c9e1f3a5b7";

    #[test]
    fn names_and_globs() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(NamePattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        };
        check("eth0", "eth0", true);
        check("eth0", "eth01", false);
        check("eth*", "eth01", true);
        check("{eth,veth}*", "veth1", true);
        check("en?", "enp0", false);
        assert!(NamePattern::parse("").is_none() && NamePattern::parse("[").is_none());
        assert_eq!(NamePattern::parse("eth0").unwrap().name(), Some("eth0"));
        assert_eq!(NamePattern::parse("eth*").unwrap().name(), None);
    }

    #[test]
    fn cgroups_by_name_id_and_path() {
        let docker = format!("/system.slice/docker-{ID}.scope/init");
        let plain = format!("/docker/{ID}");
        let kubernetes = format!("/kubepods.slice/kubepods-burstable.slice/pod1/cri-containerd-{ID}.scope");
        let nginx = "/system.slice/nginx.service";
        let check = |rule: &str, path: &str, expected: bool| {
            assert_eq!(CgroupRule::parse(rule).unwrap().matches(path), expected, "{rule} {path}");
        };
        check("nginx.service", nginx, true);
        check("nginx.service", "/system.slice/nginx.service/worker", true);
        check("nginx", nginx, false);
        check("nginx*", nginx, true);
        check("*.service", nginx, true);
        check("system.slice", nginx, true);
        for path in [&docker, &plain, &kubernetes] {
            check(ID, path, true);
            check("3f5c0e9d6f0b", path, true);
            check("3F5C0E", path, true);
            check("3f5c0f", path, false);
        }
        check("/system.slice", nginx, true);
        check("system.slice/nginx.service/", nginx, true);
        check("/nginx.service", nginx, false);
        check("/kubepods.slice/*/pod1", &kubernetes, true);
        check("/kubepods.slice/**", &kubernetes, true);
        check("/*/pod1", &kubernetes, false);
        assert!(CgroupRule::parse("").is_none() && CgroupRule::parse("/a/[").is_none());
    }

    #[test]
    fn an_id_may_be_given_by_as_few_digits_as_people_do() {
        let path = format!("/docker/{ID}");
        let given = |digits: usize| CgroupRule::parse(&ID[..digits]).unwrap().matches(&path);
        assert!(given(SHORTEST_ID) && given(ID_LENGTH) && !given(SHORTEST_ID - 1));
        assert!(!CgroupRule::parse(&format!("{ID}0")).unwrap().matches(&path));
    }
}
