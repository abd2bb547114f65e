//! The ignore list: globs on path, host, method and user agent. A match of any one is enough.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use globset::{Error, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::record::Record;

/// What a glob is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `url.path`, letter case counts.
    Path,
    /// `Host`, letter case does not count.
    Host,
    /// Method, letter case counts (RFC 9110 9.1).
    Method,
    /// `User-Agent`, letter case does not count.
    UserAgent,
}

/// Compiled globs. `*` stands for any characters, also `/`; `?` for one; `[…]` for one of several; `{a,b}` for either.
#[derive(Clone, Debug, Default)]
pub struct IgnoreList {
    paths: GlobSet,
    hosts: GlobSet,
    methods: GlobSet,
    user_agents: GlobSet,
    /// Whole request targets.
    targets: Vec<String>,
}

impl IgnoreList {
    /// Puts `globs` in the place of those for `subject`.
    ///
    /// # Errors
    /// The first glob that is not one.
    pub fn set(&mut self, subject: Subject, globs: &[String]) -> Result<(), Error> {
        let any_case = matches!(subject, Subject::Host | Subject::UserAgent);
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            builder.add(GlobBuilder::new(glob).literal_separator(false).case_insensitive(any_case).build()?);
        }
        let set = builder.build()?;
        match subject {
            Subject::Path => self.paths = set,
            Subject::Host => self.hosts = set,
            Subject::Method => self.methods = set,
            Subject::UserAgent => self.user_agents = set,
        }
        Ok(())
    }

    /// Puts `targets` in the place of the request targets that are left out, as they are.
    pub fn set_targets(&mut self, targets: Vec<String>) {
        self.targets = targets;
    }

    /// Whether nobody wants to see `record`.
    pub fn matches(&self, record: &Record) -> bool {
        self.targets.iter().any(|target| is_target(record, target.as_bytes()))
            || any(&self.paths, record.path.iter())
            || any(&self.hosts, record.host.iter())
            || any(&self.methods, record.method.iter())
            || any(&self.user_agents, record.user_agent.iter())
    }
}

/// Whether that is the request's whole target, as it was sent.
fn is_target(record: &Record, target: &[u8]) -> bool {
    if let Some(original) = &record.original {
        return original[..] == *target;
    }
    let path = record.path.as_deref().unwrap_or_default();
    match (&record.query, target.strip_prefix(path)) {
        (Some(query), Some([b'?', rest @ ..])) => query[..] == *rest,
        (None, Some([])) => !path.is_empty(),
        (_, Some(_) | None) => false,
    }
}

fn any<'a>(set: &GlobSet, mut values: impl Iterator<Item = &'a bytes::Bytes>) -> bool {
    !set.is_empty() && values.any(|value| set.is_match(Path::new(OsStr::from_bytes(value))))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_target_is_left_out_as_it_is() {
        let mut list = IgnoreList::default();
        list.set_targets(["/info", "/health?full=1", "*"].map(str::to_owned).to_vec());
        for (path, query, original, expected) in [
            ("/info", None, None, true),
            ("/info/", None, None, false),
            ("/inf", None, None, false),
            ("/info", Some("x=1"), None, false),
            ("/health", Some("full=1"), None, true),
            ("/health", Some("full=12"), None, false),
            ("/health", None, None, false),
            ("", None, Some("*"), true),
            ("/info", None, Some("http://a/info"), false),
            ("", None, None, false),
        ] {
            let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
            let path_of = Some(bytes(path)).filter(|path| !path.is_empty());
            let (query_of, original_of) = (query.map(bytes), original.map(bytes));
            let record = Record { path: path_of, query: query_of, original: original_of, ..Record::blank() };
            assert_eq!(list.matches(&record), expected, "{path} {query:?} {original:?}");
        }
    }
}
