//! Whatever is written as a query is read or refused, and what is read has a value or fails in words.
#![no_main]

use evenkeel_promql::{Limits, Query};
use evenkeel_series::{Labels, Sample, Store};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(query) = Query::parse(text) else { return };
    let mut store = Store::default();
    for (status, n) in [("200", 1.0), ("503", f64::NAN)] {
        let labels = Labels::new([("__name__", "up"), ("status", status), ("le", "+Inf")]);
        for at in 0..20 {
            let _ = store.push(&labels, Sample { at: at * 15_000, value: n * at as f64 });
        }
    }
    let limits = Limits { work: 100_000, ..Limits::default() };
    let _ = query.at(&store, 300_000, &limits);
    let _ = query.over(&store, (0, 300_000), 60_000, &limits);
});
