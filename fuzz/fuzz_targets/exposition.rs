//! Any text that an application tells of itself is read or refused by its line. Run with
//! `cargo +nightly fuzz run exposition`; what `curl 127.0.0.1:7717/metrics` answers is a good seed.
#![no_main]

use evenkeel_series::exposition::{Format, LABELS_MAX, SERIES_MAX, VALUE_BYTES_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Text, Format::OpenMetrics] {
        match parse(text, format) {
            Ok(scraped) => {
                assert!(scraped.series.len() <= SERIES_MAX);
                assert_eq!(scraped.left_out > 0, scraped.why.is_some());
                for (labels, _) in &scraped.series {
                    assert!(!labels.name().is_empty() && labels.len() <= LABELS_MAX);
                    assert!(labels.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
                }
            }
            Err(bad) => assert!(bad.line <= text.lines().count(), "{bad}"),
        }
    }
});
