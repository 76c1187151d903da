//! Documents of Argo Rollouts, Flagger, Kubernetes and Alertmanager: any text is answered, and what is wrong with it has a
//! place in it. Run with `cargo +nightly fuzz run theirs`; `crates/manifest/tests/theirs.yaml` is a good seed.
#![no_main]

use evenkeel_manifest::{Problems, manifests, read, read_alertmanager, read_theirs};
use libfuzzer_sys::fuzz_target;

fn places_lie_within(problems: &Problems, text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for problem in problems.iter() {
        assert!(text.get(problem.at()).is_some(), "{problem} lies outside of the text");
    }
    let _ = (problems.render(80, true), problems.to_json());
}

fuzz_target!(|text: &str| {
    let _ = manifests(text);
    match read_theirs(&[("theirs.yaml".to_owned(), text.to_owned())]) {
        Ok(read) => places_lie_within(&read.warnings, text),
        Err(problems) => {
            assert!(problems.errors() > 0, "refused without a reason");
            places_lie_within(&problems, text);
        }
    }
    // Beside a service that names a template and has the name of a workload.
    let own = format!("service: web\ncommand: [bin/web]\nlisten: 8080\nchecks: [{{ template: quality }}]\n---\n{text}");
    match read("evenkeel.yaml", &own) {
        Ok(read) => places_lie_within(&read.warnings, &own),
        Err(problems) => places_lie_within(&problems, &own),
    }
    match read_alertmanager("alertmanager.yml", text) {
        Ok((_, problems)) | Err(problems) => places_lie_within(&problems, text),
    }
});
