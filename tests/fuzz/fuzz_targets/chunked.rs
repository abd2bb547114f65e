//! Fuzz target: any chunked body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::http::check_chunked(data));
