//! Whatever a source answers is a value or an error in words. Run with `cargo +nightly fuzz run sources`.
#![no_main]

use evenkeel_sources::client::Got;
use evenkeel_sources::{json, prometheus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &str, Vec<u8>)| {
    let (status, path, body) = input;
    if let Ok(path) = json::Path::new(path) {
        let _ = path.pick(&body).map_err(|error| assert!(!error.to_string().is_empty()));
    }
    let Ok(status) = http::StatusCode::from_u16(status) else { return };
    let got = Got { status, content_type: String::new(), body };
    if let Err(error) = prometheus::read(&got) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
});
