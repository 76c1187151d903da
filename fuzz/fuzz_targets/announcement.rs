//! `evenkeel_proxy::fuzzing::announcement` on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_proxy::fuzzing::announcement(bytes));
