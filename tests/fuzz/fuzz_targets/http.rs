//! Fuzz target: any conversation through the HTTP stage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::http::check_http(data));
