//! What people and programs see of `evenkeel judge`.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `evenkeel judge` in a folder with something on standard input.
fn judge(folder: &Path, words: &[&str], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("judge").args(words).current_dir(folder).env_remove("EVENKEEL_STATE");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // Whoever refuses a line reads no more.
        let _ = stdin.write_all(input.as_bytes());
    });
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("evenkeel-test.").tempdir().unwrap()
}

#[test]
fn every_tick_is_answered_with_all_digits_of_the_evidence() {
    let folder = folder();
    let lines = "{\"test\":\"two_arm\",\"hist_bad\":6,\"hist_n\":6000}\n\n\
        {\"groups\":[[0.1,3,3,27,0]],\"dt\":0.1}\n\
        {\"groups\":[[null,0,0,27,0],[0.25,5,0,15.0,1]]}\n\
        {\"test\":\"one_arm\",\"s\":0.01}\n\
        {\"n\":100,\"k\":3,\"rho\":0.0}\n";
    let ran = judge(folder.path(), &[], lines);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let answers: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3, "{}", ran.out);
    assert!(answers.iter().all(|answer| answer["ln_e"].is_f64() && answer.as_object().unwrap().len() == 1));
    let verbose = judge(folder.path(), &["--verbose"], lines);
    let first: serde_json::Value = serde_json::from_str(verbose.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["ln_e"], answers[0]["ln_e"]);
    assert_eq!(first["accounts"].as_array().unwrap().len(), 9);
    assert!(first["p_hat"].as_f64().unwrap() < 0.002 && first["cash"].as_f64().unwrap() < -1.3, "{first}");
}

#[test]
fn the_answers_before_a_wrong_line_are_given() {
    let tick = "{\"n\":100,\"k\":3}\n";
    let ran =
        judge(folder().path(), &[], &format!("\u{feff}{{\"test\":\"one_arm\",\"s\":0.01}}\r\n{tick}oops\n{tick}"));
    assert_eq!((ran.code, ran.out.lines().count()), (Some(2), 1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("line 3, column 1: "), "{}", ran.err);
}

#[test]
fn a_lost_wealth_is_told_as_text() {
    let lines = "{\"test\":\"combine\",\"weights\":[0.5,0.5]}\n{\"ln_e\":[\"-inf\",null]}\n";
    assert_eq!(judge(folder().path(), &[], lines).out, "{\"ln_e\":\"-inf\"}\n");
}

#[test]
fn a_wrong_line_is_told_with_its_place_and_what_would_be_right() {
    let test = "{\"test\":\"two_arm\"}\n";
    let cases = [
        ("{\"groups\":[]}", "line 1, column 1: no test has begun"),
        ("{\"test\":\"two\"}", "line 1, column 10: unknown test `two`, expected one of `two_arm`"),
        ("{\"test\":\"two_arm\",\"q\":1}", "line 1, column 21: unknown field `q`, expected one of `test`, `r`"),
        (
            "{\"test\":\"two_arm\",\"r\":-1}",
            "line 1, column 25: invalid value: floating point `-1.0`, expected more than 0",
        ),
        ("{\"test\":\"one_arm\"}", "line 1, column 18: missing field `s`"),
        ("nonsense", "line 1, column 1: not one JSON object"),
        ("[1, 2]", "line 1, column 1: not one JSON object"),
        ("{\"test\":5}", "line 1, column 9: invalid type: integer `5`, expected a string"),
        ("{\"test\":\"two_arm\",\"r\":\"1.2\"}", "line 1, column 27: invalid type: string \"1.2\", expected a number"),
        ("{\"test\":\"two_arm\",\"r\":NaN}", "line 1, column 23: not one JSON object: expected value"),
        ("{\"test\":\"two_arm\",\"hist_bad\":7,\"hist_n\":6}", "of `hist_n` 6 requests `hist_bad` 7 cannot be bad"),
        (&format!("{test}{{\"groups\":[[0.1,3"), ": not one JSON object: EOF while parsing a list"),
        (&format!("{test}{{\"dt\":1}}"), "line 2, column 8: missing field `groups`"),
        (&format!("{test}{{\"groups\":[],\"dt\":-1}}"), "expected 0 or more"),
        (
            &format!("{test}{{\"groups\":[],\"dt\":1e400}}"),
            "line 2, column 23: not one JSON object: number out of range",
        ),
        (&format!("{test}{{\"groups\":[],\"rho\":2}}"), "expected a share from 0 to 1"),
        (&format!("{test}{{\"groups\":[[0.1,1e300,0,5,0]]}}"), "expected a count: a whole number, 0 or more"),
        (&format!("{test}{{\"groups\":[[0.1,-3,0,5,0]]}}"), "expected a count: a whole number, 0 or more"),
        (&format!("{test}{{\"groups\":[[-0.1,3,0,5,0]]}}"), "expected a weight from 0 to 1, or null"),
        ("{\"test\":\"one_arm\",\"s\":0.01}\n{\"n\":1,\"k\":3}", "line 2, column 1: of 1 requests 3 cannot be bad"),
        (&format!("{test}{{\"groups\":[[0.1,3,4,5,6]]}}"), "line 2, column 25: of 3 requests 4 cannot be bad"),
        (
            &format!("{test}{{\"groups\":[[0.1,3,4,5]]}}"),
            "line 2, column 22: invalid length 4, expected a group is [w, nc, kc, nb, kb]",
        ),
        (&format!("{test}{{\"groups\":[[7,3,0,5,0]]}}"), "expected a weight from 0 to 1, or null"),
        (&format!("{test}{{\"groups\":[[0.1,3.5,0,5,0]]}}"), "expected a count: a whole number, 0 or more"),
    ];
    let folder = folder();
    for (lines, said) in cases {
        let ran = judge(folder.path(), &[], &format!("{lines}\n"));
        assert_eq!((ran.code, ran.err.contains(said)), (Some(2), true), "{lines}: {} is not {said}", ran.err);
    }
}

/// A table of 100 seconds in which the candidate fails as often as it is told to.
fn table(candidate_fails_every: u64) -> String {
    let mut rows = String::from("time,arm,requests,errors,le_0.1,le_1,le_inf\n");
    for second in 0..100_u64 {
        let failed = u64::from((second * 10 + 10) / candidate_fails_every > second * 10 / candidate_fails_every);
        rows += &format!(
            "{second},canary,10,{failed},8,10,10\n{second},stable,90,{},72,90,90\n",
            u64::from(second % 10 == 0)
        );
    }
    rows
}

#[test]
fn a_table_gets_a_verdict_a_sentence_and_a_picture() {
    let folder = folder();
    let path = folder.path().join("data.csv");
    std::fs::write(&path, table(20)).unwrap();
    let bad = judge(folder.path(), &["data.csv", "--svg", "data.svg"], "");
    assert_eq!(bad.code, Some(3), "{}{}", bad.out, bad.err);
    assert!(bad.out.starts_with("harmful: the candidate failed "), "{}", bad.out);
    assert!(bad.out.contains("harmless rollouts (limit 1 of 100)"), "{}", bad.out);
    assert!(std::fs::read_to_string(folder.path().join("data.svg")).unwrap().contains("harmful"));
    let told: serde_json::Value =
        serde_json::from_str(&judge(folder.path(), &["data.csv", "-o", "json"], "").out).unwrap();
    assert_eq!((&told["verdict"], told["one_in"].as_f64().unwrap() >= 100.0), (&"harmful".into(), true), "{told}");
    std::fs::write(&path, table(1_000_000)).unwrap();
    let good = judge(folder.path(), &["data.csv"], "");
    assert_eq!((good.code, good.out.starts_with("not harmful: ")), (Some(0), true), "{}", good.out);
    std::fs::write(&path, table(1_000_000).lines().take(21).collect::<Vec<_>>().join("\n")).unwrap();
    let open = judge(folder.path(), &["data.csv"], "");
    assert_eq!((open.code, open.out.starts_with("undecided: ")), (Some(5), true), "{}", open.out);
}

#[test]
fn all_mistakes_of_a_table_are_told_at_once() {
    let folder = folder();
    let rows = "time,arm,requests,errors,p99\n1,foo,3,x\n2,canary,3,4\nsoon,stable,3,0\n";
    std::fs::write(folder.path().join("data.csv"), rows).unwrap();
    let ran = judge(folder.path(), &["data.csv"], "");
    assert_eq!(ran.code, Some(2));
    let said: Vec<&str> = ran.err.lines().map(|line| line.trim_start_matches("evenkeel: ")).collect();
    assert_eq!(
        said,
        [
            "data.csv:1:26: unknown column `p99`; latencies up to so many seconds are called `le_0.25` or `le_inf`",
            "data.csv:2:3: arm is `foo`; write one of candidate, canary, new, treatment, or one of stable, baseline, old, control, primary",
            "data.csv:2:9: errors is `x`; write a whole number, 0 or more",
            "data.csv:3:12: errors is `4`; no more than the 3 requests can fail",
            "data.csv:4:1: time is `soon`; write seconds, or a time such as 2026-11-21T10:00:00Z",
        ]
    );
    for (rows, said) in [
        (
            "",
            "data.csv:1:1: no column is known; the first line names time,arm,requests,errors with commas between them",
        ),
        ("time;arm;requests;errors\n1;canary;3;0\n", "data.csv:1:1: no column is known; "),
        ("time,arm,requests,errors\n", "data.csv:2:1: no row of counts; "),
        ("time,arm,requests,errors,errors\n", "data.csv:1:26: the column `errors` is there twice"),
        ("time,arm,requests,errors\n1,canary,3,0,9\n", "data.csv:2:14: 5 fields, and the first line names 4"),
        ("time,arm,requests,errors\n1,canary,3\n", "data.csv:2:12: errors is nothing; "),
        (
            "time,arm,requests,errors\n1e300,canary,3,0\n",
            "data.csv:2:1: time is `1e300`; write seconds, or a time such as ",
        ),
        ("time,arm,requests,errors\nNaN,canary,3,0\n", "data.csv:2:1: time is `NaN`; "),
        ("time,arm,requests,errors\n1,canary,-3,0\n", "data.csv:2:10: requests is `-3`; "),
        (
            "time,arm,requests,errors\n1,canary,3,0\n2026-11-21T10:00:00Z,stable,3,0\n",
            "data.csv:3:1: some times are in seconds and some are dates; write all of them in one way",
        ),
        (
            "time,arm,requests,errors,le_0.1,le_inf\n1,canary,10,0,5,12\n",
            "data.csv:2:17: le_inf is `12`; no more than the 10 requests can have an answer",
        ),
    ] {
        std::fs::write(folder.path().join("data.csv"), rows).unwrap();
        let ran = judge(folder.path(), &["data.csv"], "");
        assert_eq!(
            (ran.code, ran.err.contains(said), ran.err.lines().count()),
            (Some(2), true, 1),
            "{said}: {}",
            ran.err
        );
    }
    for (words, said) in
        [(&["none.csv"][..], "none.csv: "), (&["data.csv", "--weight", "7"], "--weight is `7`; write a share")]
    {
        let ran = judge(folder.path(), words, "");
        assert_eq!((ran.code, ran.err.contains(said)), (Some(2), true), "{}", ran.err);
    }
}

#[test]
fn counts_that_cannot_be_compared_are_undecided_and_it_is_said_why() {
    let folder = folder();
    let one = |at: f64, arm: &str, requests: u64, errors: u64| format!("{at},{arm},{requests},{errors}\n");
    let of = |arm: &'static str| (0..50).map(|at| one(f64::from(at), arm, 100, 0)).collect::<String>();
    for (rows, said) in [
        (of("stable"), "undecided: no row has requests of the candidate"),
        (of("canary"), "undecided: no row from the candidate's first request on has requests of stable"),
        (one(1.0, "canary", 0, 0) + &one(1.0, "stable", 0, 0), "undecided: no row has requests of the candidate"),
        (
            one(1.0, "canary", 10, 5) + &one(1.0, "stable", 90, 0),
            "undecided: the candidate failed 5 of 10 requests while stable failed 0 of 90 at the same times; evidence of 1 of",
        ),
        // Whatever the order of the rows, and however far apart they are.
        (
            one(253_402_300_799.0, "canary", 10, 0)
                + &one(3.0, "canary", 10, 0)
                + &one(-3.0, "stable", 90, 0)
                + &one(3.0, "stable", 9, 0),
            "undecided: the candidate failed 0 of 20 requests while stable failed 0 of 9 at the same times; nothing speaks against it",
        ),
    ] {
        std::fs::write(folder.path().join("data.csv"), format!("time,arm,requests,errors\n{rows}")).unwrap();
        let ran = judge(folder.path(), &["data.csv", "--svg", "data.svg"], "");
        assert_eq!((ran.code, ran.out.starts_with(said)), (Some(5), true), "{}{} is not {said}", ran.out, ran.err);
    }
}

/// The documentation shows what the program does.
#[test]
fn the_documentation_shows_what_comes_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = folder();
    let svg = folder.path().join("evidence.svg");
    let ran = judge(&root, &["examples/judge/checkout.csv", "--svg", svg.to_str().unwrap()], "");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    assert!(read("docs/evidence.md").contains(ran.out.trim_end()), "{}", ran.out);
    assert!(read("docs/evidence.svg") == std::fs::read_to_string(svg).unwrap(), "draw docs/evidence.svg anew");
    let lines = "{\"test\":\"two_arm\",\"hist_bad\":6,\"hist_n\":6000}\n{\"groups\":[[0.1,3,3,27,0]],\"dt\":0.1}\n";
    let ran = judge(&root, &[], lines);
    assert!(read("docs/statistics.md").contains(ran.out.trim_end()), "{}", ran.out);
}
