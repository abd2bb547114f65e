//! Fuzz target: any bytes as the types of a kernel and of a module.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::btf::properties(data));
