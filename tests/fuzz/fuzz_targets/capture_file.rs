//! Fuzzes [`support::capture_properties::capture_file`]; the property is there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::capture_properties::capture_file(data));
