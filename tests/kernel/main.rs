//! The kernel tier: the real object in the running kernel. Needs root and the eBPF object; it fails when it cannot run.
//!
//! Each test attaches to a cgroup of its own and counts exactly: what is sent, and that nothing else arrives.

mod credit;
mod exact;
mod exchanges;
mod gate;
mod headers;
mod ipvs;
mod lend;
mod loss;
mod machine;
mod object;
mod own;
mod table;
mod talk;
mod tc;
mod verdict;
mod watch;
