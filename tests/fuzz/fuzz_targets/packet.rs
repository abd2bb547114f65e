//! Fuzzes [`support::capture_properties::packet`]; the property is there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::capture_properties::packet(data));
