//! IPVS tables: real ones of three kernels, and what two of them prove.

mod recorded;
mod reuse;
