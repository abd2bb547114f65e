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

    /// Whether nobody wants to see `record`.
    pub fn matches(&self, record: &Record) -> bool {
        any(&self.paths, record.path.iter())
            || any(&self.hosts, record.host.iter())
            || any(&self.methods, record.method.iter())
            || any(&self.user_agents, record.user_agent.iter())
    }
}

fn any<'a>(set: &GlobSet, mut values: impl Iterator<Item = &'a bytes::Bytes>) -> bool {
    !set.is_empty() && values.any(|value| set.is_match(Path::new(OsStr::from_bytes(value))))
}
