//! What was found of something that is needed, in words that the start and `pod2pod check` share. Looks at nothing itself.

use std::{borrow::Cow, fmt};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It is there, or is not needed.
    Ok,
    /// The configured job goes on without it, with a loss.
    Limited,
    /// The configured job cannot be done without it.
    Missing,
}

impl Status {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// One finding. Texts are parts of sentences, empty if there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what.
    pub name: Cow<'static, str>,
    /// How it stands.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What should be, and what for.
    pub needed: String,
    /// What is lost without it.
    pub lost: String,
    /// How to get it.
    pub cure: String,
}

impl Finding {
    /// All is well.
    pub fn ok(name: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        let nothing = String::new;
        let (name, found) = (name.into(), found.into());
        Self { name, status: Status::Ok, found, needed: nothing(), lost: nothing(), cure: nothing() }
    }

    /// Something lacks: the job cannot be done.
    pub fn missing(name: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::ok(name, found) }
    }

    /// With what should be there, what is lost without it, and how to get it.
    #[must_use]
    pub fn with(self, needed: impl Into<String>, lost: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { needed: needed.into(), lost: lost.into(), cure: cure.into(), ..self }
    }

    /// The job goes on without it.
    #[must_use]
    pub fn limits(self) -> Self {
        Self { status: self.status.min(Status::Limited), ..self }
    }
}

/// What is wrong, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, cure, .. } = self;
        if cure.is_empty() { formatter.write_str(found) } else { write!(formatter, "{found}: {cure}") }
    }
}
