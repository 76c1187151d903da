//! Scenarios: what good ones mean, and what is told of the others.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::time::Duration;

use evenkeel_core::service::Verb;
use evenkeel_foresee::scenario::{Arm, Behaviour, Latency, Scenario, Trouble};
use evenkeel_manifest::{parse_rate, read_scenario};

fn read(text: &str) -> Scenario {
    read_scenario("s.yaml", text).unwrap_or_else(|problems| panic!("{}", problems.render(100, false)))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn one_line_is_a_scenario_in_which_nothing_happens() {
    let latency = Latency { p50: Duration::from_millis(20), p99: Duration::from_millis(100) };
    assert_eq!(read("rate: 90/m"), Scenario::calm(1.5, 0.0, latency));
}

#[test]
fn what_is_left_out_is_as_it_was_before() {
    let scenario = read(
        "rate: 1/s\nstable: { errors: 0.1%, latency: { p50: 5ms, p99: 9ms } }\n\
         candidate: [{ errors: 0% }, { from: 1m, latency: { p50: 6ms, p99: 60ms } }, { from: 2m, errors: 8% }]",
    );
    let latency = |p50, p99| Latency { p50: Duration::from_millis(p50), p99: Duration::from_millis(p99) };
    let behaviour = |from, errors, latency| Behaviour { from: seconds(from), errors, latency };
    assert_eq!(scenario.stable, Some(vec![behaviour(0, 0.001, latency(5, 9))]));
    let (fast, slow) = (latency(5, 9), latency(6, 60));
    assert_eq!(scenario.candidate, [behaviour(0, 0.0, fast), behaviour(60, 0.0, slow), behaviour(120, 0.08, slow)]);
    assert_eq!(read("rate: 1/s\nstable: none").stable, None);
}

#[test]
fn faults_and_commands_are_what_they_say() {
    let scenario = read(
        "rate: 1/s\nstartup: never\nsmoke: fails\nlasts: 1h\n\
         faults: [{ at: 1s, dies: stable, replicas: 2 }, { at: 2s, down: candidate, for: 3s }, { at: 9s, controller: crash }]\n\
         commands: [{ at: 5s, do: promote-full }]",
    );
    let troubles: Vec<Trouble> = scenario.faults.iter().map(|fault| fault.what).collect();
    let expected = [
        Trouble::Dies { arm: Arm::Stable, replicas: 2 },
        Trouble::Down { arm: Arm::Candidate, lasts: seconds(3) },
        Trouble::ControllerDies { lasts: seconds(1) },
    ];
    assert_eq!(troubles, expected);
    assert_eq!(scenario.commands, [(seconds(5), Verb::Promote { full: true })]);
    assert_eq!((scenario.startup, scenario.smoke_passes, scenario.lasts), (None, false, seconds(3_600)));
}

#[test]
fn each_mistake_is_told_with_what_would_be_right() {
    let cases = [
        ("", "this file describes no scenario", "rate: 200/s"),
        ("[1]", "a scenario takes a mapping, not a list", "rate: 200/s"),
        ("stable: none", "a scenario needs the key `rate`", "add `rate: 200/s`"),
        ("rate: -5/s", "`rate`: `-5/s` is no rate", "`200/s`"),
        ("rate: [{ from: 5m, rate: 1/s }, { from: 1m, rate: 2/s }]", "not in order of time", "sort them"),
        ("rate: 1/s\ncandidate: { errors: 101% }", "out of range", "100%"),
        ("rate: 1/s\ncandidate: { latency: { p50: 9ms, p99: 5ms } }", "`p99` is below `p50`", "at least as long"),
        ("rate: 1/s\nfaults: [{ at: 1s }]", "does not say what goes wrong", "`dies: candidate`"),
        ("rate: 1/s\nfaults: [{ at: 1s, down: stable }]", "`down` needs the key `for`", "add `for: 2m`"),
        ("rate: 1/s\nfaults: [{ at: 1s, dies: r2 }]", "`dies`: `r2` means nothing here", "`stable` or `candidate`"),
        ("rate: 1/s\nfaults: [{ at: 1s, dies: stable, down: stable }]", "exclude each other", "one fault an entry"),
        ("rate: 1/s\ncommands: [{ at: 1s, do: deploy }]", "`do`: `deploy` means nothing here", "`promote-full`"),
        ("rate: 1/s\n---\nrate: 2/s", "a file holds one scenario", "a file of its own"),
        ("rate: 1/s\ntraffic: 2/s", "a scenario has no key `traffic`", "write `rate: 200/s`"),
    ];
    for (text, message, help) in cases {
        let problems = read_scenario("s.yaml", text).unwrap_err();
        let told: Vec<String> = problems.iter().map(|problem| format!("{problem} / {}", problem.help())).collect();
        let found = told.iter().any(|told| told.contains(message) && told.contains(help));
        assert!(found, "{text}\n{told:#?}");
    }
}

#[test]
fn a_rate_has_its_time() {
    let cases = [("200/s", Some(200.0)), ("90/m", Some(1.5)), ("36/h", Some(0.01)), ("0/s", Some(0.0))];
    for (text, rate) in cases {
        assert_eq!(parse_rate(text), rate, "{text}");
    }
    for bad in ["", "5", "/s", "1e3/s", "-1/s", "NaN/s", "inf/s", "1/d", "99999999/s"] {
        assert_eq!(parse_rate(bad), None, "{bad}");
    }
}
