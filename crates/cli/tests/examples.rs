//! The strategies as they are documented: each example on real processes under load, by the program that people run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The program under test.
const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
/// So many strategies at a time: most of what they do is to wait.
const AT_ONCE: usize = 3;
/// Enough requests in a second for every example to be judged by.
const RATE: &str = "40";

/// Every example by its name.
fn examples(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    // The last one is taken first; what comes first by name takes longest.
    names.sort_by(|one, other| other.cmp(one));
    names
}

#[test]
fn every_example_ships_a_good_release_takes_a_bad_one_back_and_loses_no_request() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/strategies");
    let waiting = Mutex::new(examples(&folder));
    assert_eq!(waiting.lock().unwrap().len(), 7);
    let tried = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(strategy) = waiting.lock().unwrap().pop() else { return };
                    let mut command = Command::new("python3");
                    command.arg(folder.join("try")).args(["--evenkeel", EVENKEEL, "--rate", RATE, &strategy]);
                    let done = command.env_remove("EVENKEEL_STATE").output().unwrap();
                    let [out, err] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
                    tried.lock().unwrap().push((strategy, done.status.success(), out, err));
                }
            });
        }
    });
    for (strategy, is_good, out, err) in tried.into_inner().unwrap() {
        assert!(is_good, "{strategy}\n{out}{err}");
        // strategy, requests, lost…
        let row: Vec<&str> = out.lines().last().unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[2]), (strategy.as_str(), "0"), "{out}");
        let has_users = strategy != "worker";
        assert!(!has_users || row[1].parse::<u32>().unwrap() > 100, "{out}");
        println!("{}", out.lines().last().unwrap());
    }
}
