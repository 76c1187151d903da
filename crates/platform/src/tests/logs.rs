use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};

use crate::logs::{earlier_part, log_path, prune_logs, tail};

fn replica(launch: u32) -> ReplicaId {
    ReplicaId { service: ServiceName::new("web").unwrap(), revision: Revision(3), launch }
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn a_log_lies_by_service_release_and_launch() {
    assert_eq!(log_path(Path::new("/state"), &replica(7)), Path::new("/state/logs/web/r3/7.log"));
}

#[test]
fn the_last_lines_come_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("7.log");
    assert!(tail(&log, 3).is_empty());
    fs::write(&log, lines(0..9)).unwrap();
    assert_eq!(tail(&log, 2), ["line 7", "line 8"]);
    assert_eq!(tail(&log, 99).len(), 9);
    assert!(tail(&log, 0).is_empty());
    fs::write(&log, "\x1b[31mpanic\x1b[0m: \u{7}no\r\nunfinished \u{fe}").unwrap();
    assert_eq!(tail(&log, 9), ["panic: no", "unfinished \u{fe}"]);
}

#[test]
fn lines_missing_in_a_log_that_was_cut_over_come_from_the_part_before() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("7.log");
    fs::write(earlier_part(&log), lines(0..50_000)).unwrap();
    fs::write(&log, lines(50_000..50_002)).unwrap();
    assert_eq!(tail(&log, 3), ["line 49999", "line 50000", "line 50001"]);
    let all = tail(&log, 100_000);
    assert!(all.len() > 4_000 && all.iter().map(|line| line.len() + 1).sum::<usize>() <= 64 << 10);
    assert!(all[0].starts_with("line "), "begins within a line: {}", all[0]);
}

#[test]
fn a_line_longer_than_what_is_read_is_shown_by_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("7.log");
    fs::write(&log, format!("{}end", "x".repeat(200_000))).unwrap();
    let shown = tail(&log, 5);
    assert_eq!(shown.len(), 1);
    assert!(shown[0].len() == 64 << 10 && shown[0].ends_with("xend"));
}

#[test]
fn the_logs_of_running_launches_and_the_newest_ended_ones_stay() {
    let state = tempfile::tempdir().unwrap();
    prune(state.path(), &[]);
    fs::create_dir_all(log_path(state.path(), &replica(1)).parent().unwrap()).unwrap();
    for launch in 1..=30 {
        let log = log_path(state.path(), &replica(launch));
        fs::write(&log, "x").unwrap();
        fs::write(earlier_part(&log), "x").unwrap();
    }
    prune(state.path(), &[2, 30]);
    let stays = |launch: &u32| {
        let log = log_path(state.path(), &replica(*launch));
        assert_eq!(log.exists(), earlier_part(&log).exists());
        log.exists()
    };
    let left: Vec<u32> = (1..=30).filter(stays).collect();
    assert_eq!(left, [vec![2], (10..=30).collect()].concat());
}

fn prune(state: &Path, running: &[u32]) {
    let ReplicaId { service, revision, .. } = replica(1);
    prune_logs(state, &service, revision, &BTreeSet::from_iter(running.iter().copied())).unwrap();
}
