use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range as Span;
use std::process::{Child, Command, Stdio};

use fastrand::Rng;

use super::*;

/// Where the child of a test appends, until it is killed.
const PATH: &str = "EVENKEEL_TEST_APPEND_TO";
/// Before the version in each line the child writes once an append has returned.
const DURABLE: &str = "durable ";

/// No test of its own: what [`Writer`] runs in a child process. Without its variable it does nothing.
#[tokio::test]
async fn writer_process() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let log = open(Path::new(&path)).await;
    let start = whole_events(&log).await;
    for after in start.. {
        assert_eq!(append(&log, after).await, Appended::Durably);
        println!("{DURABLE}{}", after + 1);
    }
}

/// A process that appends as fast as it can.
struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Writer {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::writer_process", "--nocapture"])
            .env(PATH, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Kills it with SIGKILL after a number of appends, wherever it is by then; returns the last version it was sure of.
    fn kill_after(mut self, appends: usize) -> u64 {
        let mut durable = durable_versions(&mut self.lines);
        let seen = durable.by_ref().take(appends).last().unwrap();
        self.child.kill().unwrap();
        let last = durable.last().unwrap_or(seen);
        self.child.wait().unwrap();
        last
    }
}

fn durable_versions(lines: impl Iterator<Item = std::io::Result<String>>) -> impl Iterator<Item = u64> {
    // The test harness writes its own words before the first version into the same line.
    lines.filter_map(|line| line.unwrap().split_once(DURABLE).map(|(_, version)| version.parse().unwrap()))
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_its_appends_returned_for() {
    let (_folder, path) = place();
    let mut random = Rng::with_seed(1);
    for kill in 0..20 {
        let durable = Writer::start(&path).kill_after(random.usize(1..40));
        let log = open(&path).await;
        let found = whole_events(&log).await;
        // One more may have been written whose append had not returned.
        assert!((durable..=durable + 1).contains(&found), "kill {kill}: {found} of {durable}");
        log.close().await;
    }
}

/// What lies in the folder of a killed writer: the file, with `in_file` events moved into it, and the log beside it.
struct Wreck {
    file: Vec<u8>,
    wal: Vec<u8>,
    in_file: u64,
}

impl Wreck {
    async fn make(appends: usize) -> Self {
        let (_folder, path) = place();
        let in_file = 30;
        let log = open(&path).await;
        append_many(&log, in_file).await;
        log.close().await;
        Writer::start(&path).kill_after(appends);
        let wal = fs::read(wal_of(&path)).unwrap();
        Self { file: fs::read(&path).unwrap(), wal, in_file }
    }

    /// Opens it with another log beside it, and counts the events.
    async fn events_with(&self, wal: &[u8]) -> u64 {
        let (_folder, path) = place();
        fs::write(&path, &self.file).unwrap();
        fs::write(wal_of(&path), wal).unwrap();
        let log = open(&path).await;
        let found = whole_events(&log).await;
        assert_eq!(append(&log, found).await, Appended::Durably);
        found
    }

    /// The events that must be there when the log is good only up to a byte.
    fn events_up_to(&self, good: usize) -> u64 {
        self.in_file + self.frames().filter(|frame| self.commits(frame) && frame.end <= good).count() as u64
    }

    /// A write-ahead log is a header of 32 bytes and frames of 24 bytes and a page (SQLite file format, section 4.1).
    fn frames(&self) -> impl Iterator<Item = Span<usize>> + '_ {
        let page = u32::from_be_bytes(self.wal[8..12].try_into().unwrap()) as usize;
        let ends = (32..=self.wal.len()).step_by(24 + page);
        ends.clone().zip(ends.skip(1)).map(|(start, end)| start..end)
    }

    /// A frame that ends a transaction says how long the file is after it; the others say 0.
    fn commits(&self, frame: &Span<usize>) -> bool {
        self.wal[frame.start + 4..frame.start + 8] != [0; 4]
    }
}

fn wal_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[tokio::test]
async fn a_log_cut_short_gives_back_every_event_before_the_cut_and_no_half_one() {
    let wreck = Wreck::make(60).await;
    let mut random = Rng::with_seed(2);
    for _ in 0..40 {
        let cut = random.usize(..=wreck.wal.len());
        assert_eq!(wreck.events_with(&wreck.wal[..cut]).await, wreck.events_up_to(cut), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_log_with_a_broken_byte_gives_back_every_event_before_it_and_no_half_one() {
    let wreck = Wreck::make(60).await;
    let last = wreck.frames().last().unwrap();
    let mut random = Rng::with_seed(3);
    for round in 0..40 {
        let broken = if round % 2 == 0 { random.usize(last.clone()) } else { random.usize(32..wreck.wal.len()) };
        let mut wal = wreck.wal.clone();
        wal[broken] ^= 1 << random.u8(..8);
        assert_eq!(wreck.events_with(&wal).await, wreck.events_up_to(broken), "byte {broken}");
    }
}
