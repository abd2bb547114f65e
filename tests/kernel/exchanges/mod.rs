//! Exchanges, from sockets to records: the real binary watches servers and clients of this process in namespaces and a
//! cgroup of their own. What it tells must be what they did: everything, once, from both ends, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]

mod agent;
mod http;
mod seen;
mod stage;

mod agent_itself;
mod bodies;
mod budget;
mod bulk;
mod detach;
mod ends;
mod filter;
mod follow;
mod interfaces;
mod late;
mod load;
mod loss;
mod packet_file;
mod paths;
mod restraint;
mod root;
mod switch;
