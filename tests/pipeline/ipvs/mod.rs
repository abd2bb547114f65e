//! IPVS tables: real ones of three kernels, and what two of them prove.

mod btf;
mod decisions;
mod join;
mod netlink;
mod polls;
mod reasons;
mod recorded;
mod reuse;
mod settle;
mod simulation;
