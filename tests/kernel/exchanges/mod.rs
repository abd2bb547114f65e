//! Exchanges, from sockets to records: the real binary watches servers and clients of this process in namespaces and a
//! cgroup of their own. What it tells must be what they did: everything, once, from both ends, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]

pub(crate) mod agent;
pub(crate) mod cluster;
pub(crate) mod http;
mod place;
mod seen;
pub(crate) mod stage;

mod agent_itself;
mod behind;
mod bodies;
mod budget;
mod bulk;
mod connects;
mod conservation;
mod detach;
mod ends;
mod filter;
mod follow;
mod full_disk;
mod interfaces;
mod ipvs;
mod late;
mod load;
mod loss;
mod packet_file;
mod paths;
mod pods;
mod ready;
mod reload;
mod restraint;
mod rights;
mod root;
mod spool;
mod switch;
mod unreachable;
mod update;
mod views;
