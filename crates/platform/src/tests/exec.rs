use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use evenkeel_core::ids::{Revision, ServiceName};
use evenkeel_core::ports::{Answered, CheckedFor};
use evenkeel_core::spec::ProbeCheck;
use tempfile::TempDir;
use tokio::time::timeout;

use super::PATIENCE;
use crate::check::{Ran, ran};
use crate::probe::{Home, probe};

/// Runs a script as a probe of port 2345 in `directory`.
async fn run(directory: &Path, script: &str, limit: Duration) -> Answered {
    let env = BTreeMap::from([("URL".to_owned(), "http://a:{{port}}/".to_owned())]);
    let home = Home { directory: directory.to_path_buf(), env };
    let check = ProbeCheck::Exec { command: ["sh", "-c", script, "probe", "{{port}}"].map(String::from).to_vec() };
    timeout(PATIENCE, probe(2_345, &check, limit, Some(&home))).await.unwrap()
}

/// What is said behind the command.
fn how(answer: &Answered) -> &str {
    answer.detail.rsplit_once("{{port}}: ").unwrap().1
}

#[tokio::test]
async fn a_command_is_good_when_it_ends_with_0_and_is_told_by_its_last_line_otherwise() {
    let home = TempDir::new().unwrap();
    let well = run(home.path(), "echo fine", PATIENCE).await;
    assert_eq!((well.good, how(&well)), (true, "exit status 0"));
    let ill = run(home.path(), "echo first; printf '\\033[31mqueue is full\\033[0m\\n\\n' >&2; exit 3", PATIENCE).await;
    assert_eq!((ill.good, how(&ill)), (false, "exit status 3: queue is full"));
    let dead = run(home.path(), "kill -9 $$", PATIENCE).await;
    assert_eq!((dead.good, how(&dead)), (false, "signal: 9 (SIGKILL)"));
}

#[tokio::test]
async fn it_runs_where_the_replica_runs_with_its_environment_and_nothing_of_the_controllers() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("here"), "").unwrap();
    let script = "test -e here || exit 1; echo \"$1|$PORT|$URL|${PATH:+path}|$CARGO_MANIFEST_DIR\"; exit 2";
    let answer = run(home.path(), script, PATIENCE).await;
    assert_eq!(how(&answer), "exit status 2: 2345|2345|http://a:2345/|path|");
}

#[tokio::test]
async fn at_its_time_out_it_is_killed_with_everything_it_started() {
    let home = TempDir::new().unwrap();
    let script = "sleep 1000 & echo $! > child; wait";
    let limit = Duration::from_millis(300);
    let answer = run(home.path(), script, limit).await;
    assert_eq!((answer.good, how(&answer)), (false, "did not end within 300 ms; it was killed"));
    let child = fs::read_to_string(home.path().join("child")).unwrap();
    let ended = async {
        // A zombie has ended, whoever reaps it.
        while fs::read_to_string(format!("/proc/{}/stat", child.trim())).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the child of the probe ends with it");
}

#[tokio::test]
async fn output_without_end_is_not_kept() {
    let home = TempDir::new().unwrap();
    let answer = run(home.path(), "yes word | head -c 5000000; echo; echo the last; exit 1", PATIENCE).await;
    assert_eq!(how(&answer), "exit status 1: the last");
    let long = run(home.path(), "head -c 100000 /dev/zero | tr '\\0' x; exit 1", PATIENCE).await;
    assert_eq!(how(&long), format!("exit status 1: {}", "x".repeat(120)));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let home = Home { directory: "/".into(), env: BTreeMap::new() };
    let check = ProbeCheck::Exec { command: vec!["bin/no-such-check".into()] };
    let answer = probe(1, &check, PATIENCE, Some(&home)).await;
    let detail = "bin/no-such-check: could not be started: No such file or directory (os error 2)";
    assert_eq!((answer.good, answer.detail.as_str()), (false, detail));
}

#[tokio::test]
async fn there_are_never_more_commands_at_once_than_places() {
    let home = TempDir::new().unwrap();
    // Each counts those that run beside it, itself included.
    let script = "mkdir running/$$ && ls running | wc -l >> counts; rmdir running/$$";
    fs::create_dir(home.path().join("running")).unwrap();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let directory = home.path().to_path_buf();
        all.spawn(async move { run(&directory, script, PATIENCE).await.good });
    }
    assert!(all.join_all().await.into_iter().all(|good| good));
    let counts = fs::read_to_string(home.path().join("counts")).unwrap();
    let counts: Vec<u32> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), 100);
    assert!(counts.iter().all(|count| *count <= 32), "{counts:?}");
}

/// Runs a script for what it writes.
async fn run_for_output(script: &str, limit: Duration) -> Ran {
    let service = ServiceName::new("web").unwrap().in_environment("staging").unwrap();
    let about = CheckedFor { service, revision: Revision(3), version: "v3".into(), directory: "/".into() };
    let words = ["sh", "-c", script].map(String::from);
    let env = BTreeMap::from([("TABLE".to_owned(), "users".to_owned())]);
    timeout(PATIENCE, ran(&words, &env, &about, limit)).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_program_measures_is_its_standard_output_alone_and_whole() {
    let marks = "echo \"$PWD $TABLE $EVENKEEL_SERVICE $EVENKEEL_ENVIRONMENT $EVENKEEL_VERSION $EVENKEEL_REVISION\"";
    let well = run_for_output(&format!("echo noise >&2; {marks}"), PATIENCE).await;
    let output = well.output.map(|output| String::from_utf8(output).unwrap());
    assert_eq!(output.as_deref(), Some("/ users web staging v3 r3\n"));
    assert_eq!((well.is_good, well.how.as_str(), well.said.as_str()), (true, "exit status 0", "noise"));
    let large = run_for_output("head -c 1000000 /dev/zero", PATIENCE).await;
    assert_eq!(large.output.map(|output| output.len()), Some(1_000_000));
    let ill = run_for_output("echo 1; echo no table >&2; exit 3", PATIENCE).await;
    assert_eq!((ill.is_good, ill.how.as_str(), ill.said.as_str()), (false, "exit status 3", "no table"));
}

#[tokio::test]
async fn a_program_that_writes_without_end_is_not_kept_in_memory_and_is_killed_in_time() {
    let flood = run_for_output("exec cat /dev/zero", Duration::from_millis(300)).await;
    assert_eq!((flood.output, flood.how.as_str()), (None, "did not end within 300 ms; it was killed"));
    let long = run_for_output("head -c 2000000 /dev/zero", PATIENCE).await;
    assert_eq!((long.output, long.is_good), (None, true));
}
