//! IPVS tables: real ones of three kernels, and what two of them prove.

mod polls;
mod recorded;
mod reuse;
mod simulation;
