//! `evenkeel condition`, as people and programs call it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What the command says of a value.
fn condition(args: &[&str], value: impl AsRef<[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let spawned =
        command.arg("condition").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawned.spawn().expect("the binary was built");
    // A bad condition is told before the value is read.
    let _ = child.stdin.take().expect("it is piped").write_all(value.as_ref());
    child.wait_with_output().expect("it ends")
}

fn phase(args: &[&str], value: &str) -> String {
    let output = condition(args, value);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert!(said["message"].is_string(), "{said}");
    said["phase"].as_str().expect("a phase").to_owned()
}

#[test]
fn a_value_is_judged_as_a_check_would_by_each_set_of_rules() {
    let cases: [(&[&str], &str, &str, &str); 10] = [
        (&["--failure", "result.bad / result.all > 0.05"], "{bad: 0, all: 0}", "Error", "Successful"),
        (&["--success", "result.good / result.all > 0.9"], "{good: 1, all: 0}", "Error", "Successful"),
        (
            &["--success", "result.all == 0 || result.bad / result.all < 1"],
            "{bad: 0, all: 0}",
            "Successful",
            "Successful",
        ),
        (&["--success", "result[0] >= 0.95"], "[0.96]", "Successful", "Successful"),
        (&["--success", "result[0] >= 0.95"], "- 0.94\n- 1", "Failed", "Failed"),
        (&["--success", "result > 1", "--failure", "result < 0"], "0.5", "Inconclusive", "Inconclusive"),
        (&["--failure", "result > 0.05"], ".nan", "Error", "Successful"),
        (&["--success", "all(result, # < 1)"], "[]", "Error", "Successful"),
        (&["--success", "", "--failure", " "], "a: 1", "Successful", "Successful"),
        (&["--success", "result.ok && result.rate >= 0.9"], "{ok: true, rate: 0.95}", "Successful", "Successful"),
    ];
    for (args, value, ours, argos) in cases {
        assert_eq!(phase(args, value), ours, "{args:?} {value}");
        let compat: Vec<&str> = args.iter().copied().chain(["--compat", "argo"]).collect();
        assert_eq!(phase(&compat, value), argos, "Argo: {args:?} {value}");
        let compat: Vec<&str> = args.iter().copied().chain(["--compat", "flagger"]).collect();
        let flaggers = if ours == "Error" { "Failed" } else { ours };
        assert_eq!(phase(&compat, value), flaggers, "Flagger: {args:?} {value}");
    }
}

#[test]
fn a_value_that_is_no_text_is_said_to_be_an_error() {
    let output = condition(&["--success", "result > 1"], b"\xff\xfe");
    assert_eq!(output.status.code(), Some(2));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["phase"], "Error");
}

#[test]
fn a_bad_condition_or_value_is_pointed_at_and_said_to_be_an_error() {
    for (args, value, place) in [
        (vec!["--success", "results[0] >= 0.95"], "[1]", "--success:1:1"),
        (vec!["--failure", "result[0] 0.95"], "[1]", "--failure:1:11"),
        (vec!["--success", "result > 1"], "[1", "standard input:1:"),
    ] {
        let output = condition(&args, value);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["phase"], "Error");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(place) && told.contains("help:"), "{told}");
    }
}
