//! The demo, as a user runs it; its summary is worked out once more from the raw records.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
/// The demo takes half a minute on an idle machine.
const LIMIT: Duration = Duration::from_secs(240);

/// What one run of the demo left to look at.
struct Demo {
    exit: Option<i32>,
    lines: Vec<Value>,
    err: String,
    /// Where users and the API were reached, as seen meanwhile.
    addresses: BTreeSet<SocketAddr>,
}

/// Runs it to its end with a folder of its own for everything temporary.
fn run(temporary: &Path, arguments: &[&str]) -> Demo {
    let mut command = Command::new(EVENKEEL);
    command.arg("demo").args(arguments).env("TMPDIR", temporary).env_remove("EVENKEEL_STATE");
    let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    let pid = child.id();
    let ending = std::thread::spawn(move || child.wait_with_output().unwrap());
    let (began, mut addresses) = (Instant::now(), BTreeSet::new());
    while !ending.is_finished() {
        assert!(began.elapsed() < LIMIT, "the demo ({pid}) does not end");
        addresses.extend(addresses_in(temporary));
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = ending.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Demo {
        exit: output.status.code(),
        lines: text.lines().map(parse).collect(),
        err: String::from_utf8(output.stderr).unwrap(),
        addresses,
    }
}

/// The addresses that the demo's spec and its controller name.
fn addresses_in(temporary: &Path) -> Vec<SocketAddr> {
    let folder = fs::read_dir(temporary).unwrap().flatten().next().map(|entry| entry.path());
    let Some(folder) = folder else { return Vec::new() };
    let spec = fs::read_to_string(folder.join("evenkeel.yaml")).unwrap_or_default();
    let named =
        spec.lines().filter_map(|line| line.strip_prefix("listen: ").or_else(|| line.strip_prefix("preview: ")));
    let api = fs::read_to_string(folder.join(".evenkeel/api")).unwrap_or_default();
    named.chain([api.as_str()]).filter_map(|address| address.parse().ok()).collect()
}

/// Processes that were started with a folder in their environment or on their command line.
fn processes_of(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.to_str().unwrap().as_bytes();
    let holds = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(folder.len()).any(|part| part == folder)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let processes = processes.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok());
    processes.filter(|path| holds(&path.join("environ")) || holds(&path.join("cmdline"))).collect()
}

/// The numbers and words of each line of a file.
fn table(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", path.display());
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// A request as its release wrote it down.
#[derive(Debug, Clone, Copy)]
struct Served {
    arrived_us: u64,
    answered_us: u64,
    is_bad: bool,
}

fn served_by(records: &Path, version: &str) -> Vec<Served> {
    let files = fs::read_dir(records.join("releases")).unwrap().flatten().map(|entry| entry.path());
    let own = files.filter(|path| path.file_name().unwrap().to_str().unwrap().split('.').next() == Some(version));
    let rows = own.flat_map(|path| table(&path));
    let served = rows.map(|row| {
        let [arrived, answered, status] = &row[..] else { panic!("{row:?}") };
        let status: u16 = status.parse().unwrap();
        Served { arrived_us: arrived.parse().unwrap(), answered_us: answered.parse().unwrap(), is_bad: status >= 500 }
    });
    served.collect()
}

/// Microseconds to milliseconds, begun ones counted whole.
fn millis(us: u64) -> u64 {
    us / 1_000 + u64::from(!us.is_multiple_of(1_000))
}

#[test]
fn the_demo_promotes_the_good_release_takes_back_the_bad_one_and_no_user_meets_a_failure() {
    let summary = told(&[]);
    assert_eq!(summary["failed"], 0, "{summary}");
    assert_eq!(summary["shielded"], summary["bad_requests"], "{summary}");
}

#[test]
fn without_a_shield_users_meet_what_the_bad_release_answers() {
    let summary = told(&["--no-shield"]);
    assert_eq!(summary["failed"], summary["bad_requests"], "{summary}");
    assert_eq!(summary["shielded"], 0, "{summary}");
}

/// The summary of a demo that went as it should, worked out once more from what its records say.
fn told(arguments: &[&str]) -> Value {
    let (temporary, records) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let demo = run(temporary.path(), &[&["--json", "--records", records.path().to_str().unwrap()], arguments].concat());
    let (lines, last) = (&demo.lines, demo.lines.last());
    assert_eq!(demo.exit, Some(0), "{}\n{lines:#?}", demo.err);
    assert!(lines.iter().all(|line| line.is_object() && line["event"].is_string()), "{lines:#?}");
    let summary = last.unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(lines.iter().filter(|line| line["event"] == "summary").count(), 1);
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"));

    let users: Vec<(u16, String)> = table(&records.path().join("load.csv"))
        .into_iter()
        .map(|row| {
            let [_, status, _, version] = &row[..] else { panic!("{row:?}") };
            (status.parse().unwrap(), version.clone())
        })
        .collect();
    let failed: Vec<&(u16, String)> = users.iter().filter(|(status, _)| *status == 0 || *status >= 500).collect();
    let by_version = failed.iter().fold(BTreeMap::<&str, usize>::new(), |mut counts, (_, version)| {
        *counts.entry(version).or_default() += 1;
        counts
    });
    assert!(by_version.keys().all(|version| *version == "v3"), "lost by evenkeel: {by_version:?}");
    assert!(users.iter().all(|(status, _)| [200, 500].contains(status)), "answers nobody gave");
    assert_eq!((count("requests"), count("failed")), (users.len() as u64, failed.len() as u64));

    let served = served_by(records.path(), "v3");
    let bad = served.iter().filter(|request| request.is_bad);
    let spared = bad.clone().count() - failed.len();
    assert_eq!((count("bad_requests"), count("shielded")), (bad.clone().count() as u64, spared as u64));
    assert_eq!(count("bad_release_requests"), served.len() as u64);
    assert!(count("bad_requests") > 0);

    let decided = lines.iter().filter(|line| line["event"] == "decided");
    let text = |line: &Value| line["text"].as_str().unwrap().to_owned();
    let back: Vec<&Value> = decided.filter(|line| text(line).starts_with("rolling back")).collect();
    assert_eq!(back.iter().map(|line| &line["version"]).collect::<Vec<_>>(), ["v3"]);
    assert_eq!(back[0]["evidence"]["verdict"], "harmful");
    let decision_us = back[0]["at_us"].as_u64().unwrap();
    let first_bad = bad.map(|request| request.answered_us).min().unwrap();
    let last_arrival = served.iter().map(|request| request.arrived_us).max().unwrap();
    assert_eq!(count("detect_ms"), millis(decision_us.saturating_sub(first_bad)));
    assert_eq!(count("traffic_back_ms"), millis(last_arrival.saturating_sub(decision_us)));
    assert!(count("traffic_back_ms") <= 1_000, "{summary}");

    let ended = lines.iter().filter(|line| line["event"] == "ended");
    let outcomes: Vec<(&Value, &Value)> = ended.map(|line| (&line["version"], &line["outcome"]["outcome"])).collect();
    let told = [("v1", "promoted"), ("v2", "promoted"), ("v3", "rolled_back")];
    assert_eq!(outcomes.len(), told.len());
    for ((version, outcome), (expected_version, expected)) in outcomes.into_iter().zip(told) {
        assert_eq!((version.as_str(), outcome.as_str()), (Some(expected_version), Some(expected)));
    }
    assert_eq!((&summary["promoted"], &summary["rolled_back"]), (&Value::from(vec!["v2"]), &Value::from(vec!["v3"])));
    assert!(summary["reason"].as_str().unwrap().starts_with("v3 was rolled back: v3 failed "), "{summary}");
    assert!(!served_by(records.path(), "v1").is_empty() && !served_by(records.path(), "v2").is_empty());

    assert_nothing_left(temporary.path(), &demo.addresses);
    summary.clone()
}

/// Nothing of the demo runs, lies in the temporary folder, or holds one of its addresses.
fn assert_nothing_left(temporary: &Path, addresses: &BTreeSet<SocketAddr>) {
    assert_eq!(processes_of(temporary), Vec::<PathBuf>::new());
    let left: Vec<PathBuf> = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert_eq!(addresses.len(), 3, "users, previews and the API: {addresses:?}");
    for address in addresses {
        assert!(TcpListener::bind(address).is_ok(), "{address} is still in use");
    }
}
