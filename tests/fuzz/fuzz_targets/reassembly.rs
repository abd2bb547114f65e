//! Fuzzes [`support::reassembly::properties`]; the properties are there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::reassembly::properties(data));
