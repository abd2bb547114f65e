//! The test vocabulary, shared by all tiers.

pub mod btf;
pub mod capture_file;
pub mod capture_properties;
pub mod conversation;
pub mod director;
pub mod ending;
pub mod fact;
pub mod http;
pub mod ipvs;
pub mod keeper;
pub mod kubernetes;
pub mod metrics;
pub mod msgpack;
pub mod netns;
pub mod process;
pub mod processes;
pub mod reassembly;
pub mod rng;
pub mod scale;
pub mod server;
pub mod simulation;
pub mod stand_in;
pub mod steered;
pub mod wire;
pub mod world;
