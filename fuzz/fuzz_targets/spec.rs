//! Any text is answered, and what is wrong with it has a place in it. Run with `cargo +nightly fuzz run spec`;
//! `crates/manifest/tests/whole.yaml` is a good seed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let problems = match evenkeel_manifest::read("evenkeel.yaml", text) {
        Ok(read) => read.warnings,
        Err(problems) => {
            assert!(problems.errors() > 0, "refused without a reason");
            problems
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for problem in problems.iter() {
        assert!(text.get(problem.at()).is_some(), "{problem} lies outside of the text");
    }
    let _ = (problems.render(80, true), problems.to_json());
});
