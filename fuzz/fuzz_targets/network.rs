//! A network is what it says it is, however it is written.
#![no_main]

use evenkeel_core::edge::Network;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
});
