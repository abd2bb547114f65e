//! How the agent watches IPVS, as it is configured.

use std::{path::PathBuf, time::Duration};

use super::{options::DEFAULT_INTERVAL, source::Source};
use crate::{ipvs::selection::Pattern, mode::Mode, restraint::budget::Ipvs};

/// How connections that met an old entry are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detector {
    /// By the kernel's decisions where they can be followed, and by polling.
    #[default]
    Auto,
    /// By polling alone.
    Polling,
}

/// The watch inside the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether there is one; auto: where there is IPVS.
    pub mode: Mode,
    /// The table; the host's own if absent.
    pub path: Option<PathBuf>,
    /// From one poll to the next.
    pub interval: Duration,
    /// Which services; all, if there are none.
    pub services: Vec<Pattern>,
    /// Whether the kernel's decisions are followed too, if polling is not all that is wanted.
    pub detector: Detector,
    /// Bytes of memory that it may take.
    pub memory: u64,
    /// There is memory for the kernel's decisions.
    pub exact: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            path: None,
            interval: DEFAULT_INTERVAL,
            services: Vec::new(),
            detector: Detector::Auto,
            memory: 0,
            exact: false,
        }
    }
}

impl Config {
    /// The table as it is to be found now.
    pub fn source(&self) -> Source {
        self.path.clone().map_or_else(Source::of_host, Source::new)
    }

    /// Whether the kernel's decisions would be followed, were there memory.
    pub fn has_no_room(&self) -> bool {
        self.detector == Detector::Auto && !self.exact
    }

    /// Whether the kernel's decisions are to be followed.
    pub fn follows(&self) -> bool {
        self.detector == Detector::Auto && self.exact
    }

    /// How much memory it wants.
    pub fn wants(&self) -> Ipvs {
        match self.mode {
            Mode::Off => Ipvs::Never,
            Mode::On => Ipvs::Present,
            Mode::Auto if self.source().path().exists() => Ipvs::Present,
            Mode::Auto => Ipvs::Later,
        }
    }
}
