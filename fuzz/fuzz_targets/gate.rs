//! `evenkeel_proxy::fuzzing::gate` on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_proxy::fuzzing::gate(bytes));
