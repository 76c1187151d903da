//! Any file of rules is read, or refused with places that are in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let text_read = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Err(problems) = evenkeel_manifest::read_rules("rules.yaml", text) {
        for problem in problems.iter() {
            assert!(text_read.get(problem.at()).is_some(), "a place in the middle of a character");
        }
    }
});
