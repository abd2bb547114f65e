//! The test vocabulary, shared by all tiers.

pub mod capture_file;
pub mod conversation;
pub mod netns;
pub mod process;
pub mod reassembly;
pub mod rng;
