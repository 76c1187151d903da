//! A PostgreSQL server of a test's own: real, private, on a socket in a folder of its own; gone when the test program is.

#![allow(dead_code, unreachable_pub, reason = "the tests of other crates include this file and use all of it")]
#![allow(clippy::print_stderr, reason = "a skipped test is told loudly")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes this long, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ends the server and removes its folder once nobody holds the other end of its input any more.
const WATCHER: &str = r#"cat >/dev/null
kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done"#;

/// A server and its folder.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    running: Option<Child>,
    /// Holds the input of the one who clears up, whatever becomes of this program.
    _watcher: Child,
}

impl Server {
    /// Starts a new, empty server; `None`, said loudly and counted, where its programs are not installed.
    pub fn start(test: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped(test, "PostgreSQL's programs are not installed");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("evenkeel-pg.").tempdir().unwrap().keep();
        let watcher =
            Command::new("sh").args(["-c", WATCHER, "sh"]).arg(&folder).stdin(Stdio::piped()).spawn().unwrap();
        let mut server = Self { programs, folder, running: None, _watcher: watcher };
        if let Some((user, group)) = other_user() {
            chown(&server.folder, Some(user), Some(group)).unwrap();
        }
        let data = server.folder.join("data");
        let arguments = ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"];
        let made = server.command("initdb").args(arguments).arg(data).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.run();
        Some(server)
    }

    /// Starts it where it was left.
    pub fn run(&mut self) {
        let began = Instant::now();
        loop {
            let log = fs::File::create(self.folder.join("log")).unwrap();
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
            command.args(["-c", "listen_addresses=", "-c", "max_connections=200"]);
            command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
            let mut child = command.spawn().unwrap();
            while child.try_wait().unwrap().is_none() {
                if self.command("pg_isready").arg("-q").arg("-h").arg(&self.folder).status().unwrap().success() {
                    self.running = Some(child);
                    return;
                }
                assert!(began.elapsed() < PATIENCE, "{}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            // What is left of a killed one is not gone yet.
            assert!(began.elapsed() < PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills all of it at once, as a crash would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let group = format!("-{}", child.id());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        child.wait().unwrap();
    }

    /// A new, empty database.
    pub fn database(&self, name: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@localhost/{name}?host={}", self.folder.display())
    }

    /// Has the server carry out statements; answers what they gave.
    pub fn psql(&self, database: &str, text: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]).arg(&self.folder);
        let done = command.arg("-c").arg(text).output().unwrap();
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// One of PostgreSQL's programs, as somebody else than root, which it refuses to be run by.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        command.current_dir(&self.folder).stdin(Stdio::null()).env_remove("PGPASSWORD");
        command
    }
}

/// Where Debian puts the programs: of the newest version there is.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    let mut whole: Vec<PathBuf> = versions.filter(|folder| folder.join("initdb").exists()).collect();
    whole.sort();
    whole.pop()
}

/// For root: the user and group to be instead.
fn other_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let numbers = |name: &str| {
        let mut fields = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    numbers("postgres").or_else(|| numbers("nobody"))
}

/// Says loudly that a test is skipped, and counts it.
fn skipped(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{test}: {why}, and CI is set");
    eprintln!("\n*** SKIPPED: {test}: {why} ***\n");
    if let Some(list) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(Path::new(&list)).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}
