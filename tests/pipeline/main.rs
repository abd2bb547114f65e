//! The pipeline tier: bytes in, records out; no root, no kernel, no network.

mod allocations;
mod capture_file;
mod corpora;
mod http;
mod ipvs;
mod kubernetes;
mod named;
mod packet_file;
mod reassembly;
mod records;
mod steering;
mod views;
