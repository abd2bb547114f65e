//! Which of its fields a record is given with.

use std::collections::HashSet;

use globset::{Glob, GlobMatcher};

use super::fields;

/// Some of the record's fields, by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(HashSet<&'static str, foldhash::fast::FixedState>);

/// What fits no field of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no field is called {0}")]
pub struct NoField(pub String);

impl Fields {
    /// Those that one of `only` fits, or all if it is empty, without those that one of `without` fits: keys and globs of such.
    ///
    /// # Errors
    /// One of them fits no field.
    pub fn parse(only: &[impl AsRef<str>], without: &[impl AsRef<str>]) -> Result<Self, NoField> {
        let (only, without) = (patterns(only)?, patterns(without)?);
        let fits = |patterns: &[GlobMatcher], key: &str| patterns.iter().any(|pattern| pattern.is_match(key));
        let keys = fields::all().map(|field| field.key);
        let keys = keys.filter(|key| (only.is_empty() || fits(&only, key)) && !fits(&without, key));
        Ok(Self(keys.collect()))
    }

    /// Whether `key` is one of them.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}

fn patterns(texts: &[impl AsRef<str>]) -> Result<Vec<GlobMatcher>, NoField> {
    texts.iter().map(|text| pattern(text.as_ref())).collect()
}

fn pattern(text: &str) -> Result<GlobMatcher, NoField> {
    let unknown = || NoField(text.to_owned());
    let glob = Glob::new(text).map_err(|_| unknown())?.compile_matcher();
    if fields::all().any(|field| glob.is_match(field.key)) { Ok(glob) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_no_field_is_a_mistake() {
        for text in ["statuscode", "", "http.x*", "{a"] {
            assert_eq!(Fields::parse(&[text], &[] as &[&str]), Err(NoField(text.to_owned())));
            assert_eq!(Fields::parse(&[] as &[&str], &[text]), Err(NoField(text.to_owned())));
        }
    }

    #[test]
    fn groups_are_wanted_by_what_stands_before_their_names() {
        let fields = Fields::parse(&["http.request.header.*"], &[] as &[&str]).unwrap();
        assert!(fields.has("http.request.header.") && fields.has("http.request.header.host"));
        assert!(!fields.has("http.response.header."));
    }
}
