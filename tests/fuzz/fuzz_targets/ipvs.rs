//! Fuzz target: any bytes as tables of IPVS.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::ipvs::tables(data));
