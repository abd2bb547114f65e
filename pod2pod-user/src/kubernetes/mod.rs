//! Kubernetes: which pod an end of a connection is, at the time of the exchange. Pure: news of the API and paths of cgroups go in.
//!
//! What asks the API server is not here.

pub mod addresses;
pub mod cgroup;
pub mod cluster;
pub mod identity;
pub mod objects;
