//! Users: the demo's load generator, its records, and somebody who only ever connects.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{EVENKEEL, World, until};

/// Requests at a steady rate until [`Load::end`].
pub struct Load {
    child: Child,
    records: PathBuf,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was due, in µs since 1970.
    pub due_us: u64,
    /// What came back; 0 is a connection error.
    pub status: u16,
    /// From when it was due to the end of its answer.
    pub latency_us: u64,
    /// The version that answered; empty when none said so.
    pub version: String,
}

impl Record {
    /// Whether its user met a failure.
    pub fn has_failed(&self) -> bool {
        self.status == 0 || self.status >= 400
    }

    /// When it was over.
    pub fn over_us(&self) -> u64 {
        self.due_us + self.latency_us
    }
}

impl Load {
    /// Starts it and waits until it is under way.
    pub fn start(world: &World, rate: u32) -> Self {
        Self::at(world, world.listen, rate)
    }

    /// The same for the users of another address.
    pub fn at(world: &World, address: SocketAddr, rate: u32) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let records = world.folder().join(format!("load-{}.csv", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new(EVENKEEL);
        command.args(["demo-load", "--target", &address.to_string(), "--rate", &rate.to_string(), "--records"]);
        command.arg(&records).stdin(Stdio::piped()).stdout(Stdio::null()).env_remove("EVENKEEL_STATE");
        let load = Self { child: command.spawn().unwrap(), records };
        // Its records come in blocks of some kilobytes.
        let under_way = || std::fs::metadata(&load.records).is_ok_and(|file| file.len() > 0);
        world.wait_for("the load to be under way", under_way);
        load
    }

    /// Sends no more, waits for the answers that are due, and tells what became of every request.
    pub fn end(mut self) -> Records {
        drop(self.child.stdin.take());
        let mut ended = false;
        until(Duration::from_secs(30), || {
            ended = self.child.try_wait().unwrap().is_some();
            ended
        });
        assert!(ended, "the load generator does not end");
        let text = std::fs::read_to_string(&self.records).unwrap();
        let mut all: Vec<Record> = text.lines().map(parse).collect();
        all.sort_by_key(|record| record.due_us);
        Records(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of all requests, by the time they were due.
#[derive(Debug, Clone)]
pub struct Records(pub Vec<Record>);

impl Records {
    /// The requests whose users met a failure.
    pub fn failed(&self) -> Vec<&Record> {
        self.0.iter().filter(|record| record.has_failed()).collect()
    }

    /// Asserts that requests were sent and that no user met a failure.
    pub fn assert_none_failed(&self, world: &World) {
        let failed = self.failed();
        assert!(
            failed.is_empty(),
            "{} of {} failed: {:?}\n{}",
            failed.len(),
            self.0.len(),
            &failed[..failed.len().min(20)],
            world.logs()
        );
        assert!(!self.0.is_empty(), "nothing was sent");
    }

    /// Asserts that the only failures users met are answers of a bad version itself.
    pub fn assert_only_failed_by(&self, version: &str, world: &World) {
        let others: Vec<&Record> = self.failed().into_iter().filter(|record| record.version != version).collect();
        assert!(
            others.is_empty(),
            "{} of {} failed: {:?}\n{}",
            others.len(),
            self.0.len(),
            &others[..others.len().min(20)],
            world.logs()
        );
    }

    /// The longest time without a good answer, in µs, and when it began.
    pub fn longest_silence(&self) -> (u64, u64) {
        let mut ends: Vec<u64> = self.0.iter().filter(|record| !record.has_failed()).map(Record::over_us).collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max().unwrap_or_default()
    }
}

fn parse(line: &str) -> Record {
    let parts: Vec<&str> = line.split(',').collect();
    let [due, status, latency, version] = parts[..] else { panic!("no record: {line}") };
    let number = |text: &str| text.parse().unwrap();
    Record {
        due_us: number(due),
        status: status.parse().unwrap(),
        latency_us: number(latency),
        version: version.to_owned(),
    }
}

/// Opens a connection every 5 ms and counts those that are refused.
pub struct Connector {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Connector {
    /// Starts it.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut tried, mut refused) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                tried += 1;
                if let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
                    refused.push(error.to_string());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (tried, refused)
        });
        Self { stop, thread }
    }

    /// Stops it; answers how many connections were tried, and why some were refused.
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
