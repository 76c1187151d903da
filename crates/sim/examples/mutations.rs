//! Plants one bug at a time in a copy of the tree, each of them one line, and tells after how many worlds the simulator
//! finds it: `mutations [--worlds 20000] [--only TEXT]`. Exit code 1 when one is never found.
//!
//! Then it plants some in what decides and judges, and tells whether `evenkeel simulate`, and `evenkeel replay` of rollouts
//! that the tree as it is has recorded, come out otherwise: that they run the shipped code, and none of their own.
//!
//! The copy and everything built of it are in a folder of their own, which is removed at the end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// One bug: which invariant of ARCHITECTURE.md it breaks, in words, and the line.
struct Bug {
    invariant: u8,
    what: &'static str,
    file: &'static str,
    line: &'static str,
    instead: &'static str,
}

impl Bug {
    /// Its file in a tree, where its line occurs once.
    fn read(&self, tree: &Path) -> Result<String, String> {
        let text = std::fs::read_to_string(tree.join(self.file)).map_err(|error| format!("{}: {error}", self.file))?;
        if text.matches(self.line).count() != 1 {
            return Err(format!("{}: {}: not exactly one `{}`", self.what, self.file, self.line.trim()));
        }
        Ok(text)
    }
}

const FLEET: &str = "crates/core/src/fleet.rs";
const TABLE: &str = "crates/core/src/table.rs";
const MOVES: &str = "crates/core/src/rollout/moves.rs";
const SERVICE: &str = "crates/core/src/service.rs";
const RUN: &str = "crates/controller/src/run.rs";
const KEEPER_LOG: &str = "crates/controller/src/keeper/log.rs";
const REQUESTS: &str = "crates/controller/src/run/requests.rs";
const TRAFFIC: &str = "crates/controller/src/run/traffic.rs";

const BUGS: &[Bug] = &[
    Bug {
        invariant: 1,
        what: "who is routed to is stopped",
        file: FLEET,
        line: "                    if table.has_backend(id) {",
        instead: "                    if false && table.has_backend(id) {",
    },
    Bug {
        invariant: 1,
        what: "requests in flight are not waited for",
        file: FLEET,
        line: "                    let idle = world.in_flight.is_some_and(|in_flight| !in_flight.contains_key(id));",
        instead: "                    let idle = true;",
    },
    Bug {
        invariant: 1,
        what: "a share is raised whoever is ready",
        file: FLEET,
        line: "            *weight <= had || self.ready_count(*revision) >= needed(world, *revision, *weight)",
        instead: "            *weight <= had || self.ready_count(*revision) < 1_000",
    },
    Bug {
        invariant: 1,
        what: "SIGKILL before the time of grace is over",
        file: "crates/controller/src/hands.rs",
        line: "asked_to_end.get(replica).is_some_and(|at| at.elapsed() < grace);",
        instead: "asked_to_end.get(replica).is_some_and(|at| at.elapsed() > 100 * grace);",
    },
    Bug {
        invariant: 2,
        what: "stable keeps everything beside the candidate's share",
        file: FLEET,
        line: "    let rest = candidate.map_or(BasisPoints::ALL, |(_, weight)| weight.rest());",
        instead: "    let rest = candidate.map_or(BasisPoints::ALL, |_| BasisPoints::ALL);",
    },
    Bug {
        invariant: 2,
        what: "a table as old as the one in force is taken",
        file: TABLE,
        line: "        if self.generation <= in_force {",
        instead: "        if self.generation < in_force {",
    },
    Bug {
        invariant: 3,
        what: "what could not be recorded is acted on",
        file: KEEPER_LOG,
        line: "            if !is_way_back(&event, &step.next) || may_not_write {",
        instead: "            if may_not_write {",
    },
    Bug {
        invariant: 3,
        what: "the way back waits for the store",
        file: KEEPER_LOG,
        line: "    matches!(event, Event::Seen(_)) && goes_back\n",
        instead: "    matches!(event, Event::Seen(_)) && goes_back && next.name.as_str().is_empty()\n",
    },
    Bug {
        invariant: 3,
        what: "a release that was cut off may have a share again",
        file: "crates/core/src/guard.rs",
        line: "    if is_another || !routes.gives_anything_to(cut.revision) {",
        instead: "    if !is_another || !routes.gives_anything_to(cut.revision) {",
    },
    Bug {
        invariant: 4,
        what: "a table of an older controller is taken",
        file: TABLE,
        line: "        if self.token < highest {",
        instead: "        if self.token.0 + 1_000 < highest.0 {",
    },
    Bug {
        invariant: 4,
        what: "a late table may come into force after its controller looked",
        file: TRAFFIC,
        line: "            Ok(table) if self.is_settled => {",
        instead: "            Ok(table) if self.is_settled || table.generation.0 > 0 => {",
    },
    Bug {
        invariant: 5,
        what: "no requests are enough to judge by",
        file: "crates/analysis/src/judge.rs",
        line: "    if have < need {",
        instead: "    if have > need && have < need {",
    },
    Bug {
        invariant: 5,
        what: "a step passes when too few requests came",
        file: MOVES,
        line: "            Verdict::NotEnough { .. } if on_time || then != Then::Advance => Some(self.follows(step, now)),",
        instead: "            Verdict::NotEnough { .. } => Some(self.follows(step, now)),\n            #[allow(unreachable_patterns)]",
    },
    Bug {
        invariant: 6,
        what: "a new controller does not trust who has traffic",
        file: FLEET,
        line: "                member.book.trust();",
        instead: "                let _ = &member.book;",
    },
    Bug {
        invariant: 6,
        what: "replicas are started without knowing which run",
        file: FLEET,
        line: "        if world.replicas.is_none() {\n            return;\n        }\n        for (revision, count)",
        instead: "        for (revision, count)",
    },
    Bug {
        invariant: 7,
        what: "a rollout begins while another one is in flight",
        file: SERVICE,
        line: "        let free = self.rollout.as_ref().is_none_or(|r| matches!(r.phase, Phase::Done { .. } | Phase::Stopping { .. }));",
        instead: "        let free = self.rollout.as_ref().is_none_or(|r| !matches!(r.phase, Phase::Stuck { .. }));",
    },
    Bug {
        invariant: 7,
        what: "a release that was rolled back is tried again unasked",
        file: SERVICE,
        line: "            Standing::Bad { why } if !again => {",
        instead: "            Standing::Bad { why } if !again && why.is_empty() => {",
    },
    Bug {
        invariant: 7,
        what: "a way back that there is none of blocks the fix",
        file: SERVICE,
        line: "        if let Ok(Some(ended)) = rollout.step(&away, now) {\n            self.rollout = Some(ended);\n            self.take_note(now);",
        instead: "        if let Ok(Some(ended)) = rollout.step(&away, now) {\n            let _ = ended;",
    },
    Bug {
        invariant: 7,
        what: "a service of a group is promoted before all of them are through",
        file: MOVES,
        line: "fellows.lost.is_empty() && fellows.waiting.is_empty() && fellows.on_the_way.is_empty();",
        instead: "fellows.lost.is_empty() && fellows.waiting.is_empty();",
    },
    Bug {
        invariant: 7,
        what: "a service of a group begins before those that it comes after",
        file: MOVES,
        line: "            && fellows.ahead.is_empty();",
        instead: "            && fellows.ahead.len() < 1_000;",
    },
    Bug {
        invariant: 7,
        what: "two deploys of a group share an id",
        file: REQUESTS,
        line: "        self.groups_begun += 1;",
        instead: "        self.groups_begun += 0;",
    },
    Bug {
        invariant: 7,
        what: "a rollout begins before the time that was set for it",
        file: "crates/core/src/gate.rs",
        line: "        let is_time = self.start_at.is_none_or(|start| now >= start);",
        instead: "        let is_time = self.start_at.is_none_or(|start| now.0 > 0 || now >= start);",
    },
    Bug {
        invariant: 8,
        what: "too few requests are waited for without end",
        file: MOVES,
        line: "        (now >= over.after(at_most)).then(|| self.in_phase(Phase::Paused { step, weight, left, why }))",
        instead: "        (now >= over.after(at_most * 1_000)).then(|| self.in_phase(Phase::Paused { step, weight, left, why }))",
    },
    Bug {
        invariant: 8,
        what: "replicas that never get ready are waited for without end",
        file: MOVES,
        line: "            let why = Why::NotReady { ready: *ready, needed, detail: detail.clone() };\n            return (now >= until).then(|| self.going_back(why, now));",
        instead: "            let why = Why::NotReady { ready: *ready, needed, detail: detail.clone() };\n            return (now >= until && now.0 == 0).then(|| self.going_back(why, now));",
    },
    Bug {
        invariant: 9,
        what: "a log is replayed at other times",
        file: KEEPER_LOG,
        line: "        match self.service.step(&recorded.event, recorded.at) {",
        instead: "        match self.service.step(&recorded.event, recorded.at.after(std::time::Duration::from_millis(1))) {",
    },
    Bug {
        invariant: 9,
        what: "a snapshot is of the state before the event",
        file: KEEPER_LOG,
        line: "self.write(store, at, event, due.then_some(next), ticks).await",
        instead: "self.write(store, at, event, due.then_some(&self.service.clone()), ticks).await",
    },
    Bug {
        invariant: 10,
        what: "a share is waited for without end",
        file: MOVES,
        line: "const TRAFFIC_LIMIT: Duration = Duration::from_secs(30);",
        instead: "const TRAFFIC_LIMIT: Duration = Duration::from_secs(30_000);",
    },
    Bug {
        invariant: 10,
        what: "releases are kept without end",
        file: SERVICE,
        line: "const RELEASES_KEPT: usize = 10;",
        instead: "const RELEASES_KEPT: usize = 10_000;",
    },
    Bug {
        invariant: 11,
        what: "a controller decides although its lease may be another's",
        file: RUN,
        line: "        self.held.holds(self.clock.now())",
        instead: "        self.held.holds(self.clock.now()) || self.held.holds(Timestamp(0))",
    },
    Bug {
        invariant: 12,
        what: "a database that fails for everybody is the candidate's fault",
        file: "crates/core/src/outage.rs",
        line: "    if !is_closed(stable) {\n        return Fault::Dependency;",
        instead: "    if !is_closed(stable) {\n        return Fault::Candidate;",
    },
    Bug {
        invariant: 12,
        what: "a step passes while its database does not answer",
        file: MOVES,
        line: "        let outage = seen.outages.first().filter(|_| self.on_outage() != OnOutage::Tell);",
        instead: "        let outage = seen.outages.first().filter(|_| false && self.on_outage() != OnOutage::Tell);",
    },
    Bug {
        invariant: 11,
        what: "a controller that another one took over from goes on",
        file: RUN,
        line: "            Found::Superseded(gone) => return Err(gone),",
        instead: "            Found::Superseded(_) => {}",
    },
];

/// What `simulate` and `replay` must show.
const SHOWN: &[Bug] = &[
    Bug {
        invariant: 5,
        what: "a step whose requests pass does not end",
        file: MOVES,
        line: "            Verdict::Pass { .. } => Some(self.follows(step, now)),",
        instead: "            Verdict::Pass { .. } => None,",
    },
    Bug {
        invariant: 5,
        what: "harm that is proven counts for nothing",
        file: "crates/core/src/evidence.rs",
        line: "            Decision::Rollback => Some(Verdict::Harmful { case: case(trial)? }),",
        instead: "            Decision::Rollback => None,",
    },
    Bug {
        invariant: 5,
        what: "a bet wins twice what it should",
        file: "crates/analysis/src/evidence/pot.rs",
        line: "        self.accounts[expert] += by;",
        instead: "        self.accounts[expert] += 2.0 * by;",
    },
];

/// Worlds in which a bug must be found.
const WORLDS: &str = "20000";
/// Worlds without a bug, first of all: what is wrong in every tenth of them would be taken for each bug.
const WORLDS_UNBROKEN: &str = "1000";

fn main() -> ExitCode {
    let copy = std::env::temp_dir().join(format!("evenkeel-mutations-{}", std::process::id()));
    let found = copy_tree(&copy).and_then(|()| Ok(table(&copy)? & shown(&copy)?));
    let _ = std::fs::remove_dir_all(&copy);
    match found {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            say(&format!("error: {what}"));
            ExitCode::from(2)
        }
    }
}

fn table(copy: &Path) -> Result<bool, String> {
    build(copy, SOAK)?;
    if let Some(found) = first_violation(copy, WORLDS_UNBROKEN)? {
        return Err(format!("the tree as it is breaks a rule: {found}"));
    }
    say("| invariant | planted bug | found after worlds | by |");
    say("| --- | --- | --- | --- |");
    let worlds = option("--worlds").unwrap_or_else(|| WORLDS.to_owned());
    let mut all = true;
    for bug in asked_for(BUGS) {
        let found = planted(copy, bug, || build(copy, SOAK).and_then(|()| first_violation(copy, &worlds)))?;
        all &= found.is_some();
        let found = found.unwrap_or_else(|| "never | nothing".to_owned());
        say(&format!("| {} | {} | {found} |", bug.invariant, bug.what));
    }
    Ok(all)
}

/// Whether each bug changes what users are shown of a simulated and of a recorded rollout.
fn shown(copy: &Path) -> Result<bool, String> {
    if asked_for(SHOWN).next().is_none() {
        return Ok(true);
    }
    build(copy, PROGRAM)?;
    for arguments in [["demo", "--keep"].as_slice(), &["down"]] {
        evenkeel(copy, arguments)?;
    }
    let unbroken = all_shown(copy)?;
    if unbroken.iter().any(String::is_empty) {
        return Err("`simulate` or `replay` shows nothing".to_owned());
    }
    say("");
    say(&format!("| planted bug | {} |", SHOWINGS.map(|(what, _)| what).join(" | ")));
    say("| --- | --- | --- | --- | --- |");
    let (mut by_simulate, mut by_replay) = (true, true);
    for bug in asked_for(SHOWN) {
        let broken = planted(copy, bug, || build(copy, PROGRAM).and_then(|()| all_shown(copy)))?;
        let differs: Vec<bool> = broken.iter().zip(&unbroken).map(|(broken, unbroken)| broken != unbroken).collect();
        by_simulate &= differs[..2].contains(&true);
        by_replay &= differs[2..].contains(&true);
        let told: Vec<&str> = differs.iter().map(|differs| if *differs { "differs" } else { "the same" }).collect();
        say(&format!("| {} | {} |", bug.what, told.join(" | ")));
    }
    Ok(by_simulate && by_replay)
}

/// What is looked at: two simulated rollouts, and the two that the demo has recorded.
const SHOWINGS: [(&str, &[&str]); 4] = [
    ("`simulate` of a bad release", &["simulate", SCENE, "--scenario", "examples/scenarios/bad-after-a-while.yaml"]),
    ("of a good one", &["simulate", SCENE, "--scenario", "examples/scenarios/good.yaml"]),
    ("`replay` of a bad one", &["replay", "3"]),
    ("of a good one", &["replay", "2"]),
];
const SCENE: &str = "examples/scenarios/shop.yaml";

fn all_shown(copy: &Path) -> Result<Vec<String>, String> {
    SHOWINGS.iter().map(|(_, arguments)| evenkeel(copy, &[*arguments, &["--json"]].concat())).collect()
}

/// What the program prints: how it ends says what became of a rollout, and is no failure here.
fn evenkeel(copy: &Path, arguments: &[&str]) -> Result<String, String> {
    let program = copy.join("target/test-release/evenkeel");
    let mut command = Command::new(program);
    command.args(arguments).arg("--state").arg(copy.join("recorded")).current_dir(copy).stdin(Stdio::null());
    let told = command.output().map_err(|error| format!("evenkeel: {error}"))?;
    Ok(String::from_utf8_lossy(&told.stdout).into_owned())
}

fn asked_for(bugs: &'static [Bug]) -> impl Iterator<Item = &'static Bug> {
    let only = option("--only");
    bugs.iter().filter(move |bug| only.as_ref().is_none_or(|only| bug.what.contains(only)))
}

/// Plants a bug, lets it be looked for, and takes it out again.
fn planted<T>(copy: &Path, bug: &Bug, look: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let path = copy.join(bug.file);
    let text = bug.read(copy)?;
    std::fs::write(&path, text.replace(bug.line, bug.instead)).map_err(|error| error.to_string())?;
    let found = look();
    std::fs::write(&path, text).map_err(|error| error.to_string())?;
    found.map_err(|error| format!("{}: {error}", bug.what))
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What git knows of the tree, as it is right now.
fn copy_tree(copy: &Path) -> Result<(), String> {
    let root = root();
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = Command::new("git").args(list).current_dir(&root).output().map_err(|error| format!("git: {error}"))?;
    for file in String::from_utf8_lossy(&files.stdout).split_terminator('\0') {
        let (from, to) = (root.join(file), copy.join(file));
        let folder = to.parent().ok_or("a file without a folder")?;
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        // A file that git knows may have been removed.
        if from.is_file() {
            std::fs::copy(&from, &to).map_err(|error| format!("{file}: {error}"))?;
        }
    }
    Ok(())
}

/// What is built of a copy: the simulator, and the program.
const SOAK: &[&str] = &["-p", "evenkeel-sim", "--example", "soak"];
const PROGRAM: &[&str] = &["-p", "evenkeel"];

fn build(copy: &Path, what: &[&str]) -> Result<(), String> {
    let arguments = ["build", "--quiet", "--locked", "--profile", "test-release"];
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo
        .args(arguments)
        .args(what)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env("CARGO_INCREMENTAL", "0");
    let built = cargo.stdout(Stdio::null()).output().map_err(|error| format!("cargo: {error}"))?;
    if built.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
}

/// `12 | web r1 is raised to 20 % …`: after how many worlds which rule broke; `None`: no rule did.
fn first_violation(copy: &Path, worlds: &str) -> Result<Option<String>, String> {
    let soak = copy.join("target/test-release/examples/soak");
    let told = Command::new(soak).args(["--first", "--worlds", worlds]).stderr(Stdio::null()).output();
    let told = told.map_err(|error| format!("soak: {error}"))?;
    let text = String::from_utf8_lossy(&told.stdout);
    let of_seed = |line: &str| {
        let (seed, what) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse::<u64>().ok()?, what.to_owned()))
    };
    let first = text.lines().filter_map(of_seed).min();
    let short = |what: &str| what.chars().take(110).collect::<String>().replace('|', "/");
    Ok(first.map(|(seed, what)| format!("{} | {}", seed + 1, short(&what))))
}

fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn say(line: &str) {
    // Whoever closed our output does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_one_place_in_the_tree_where_it_can_be_planted() {
        let bugs = || BUGS.iter().chain(SHOWN);
        let without: Vec<String> = bugs().filter_map(|bug| bug.read(&root()).err()).collect();
        assert!(without.is_empty(), "{}", without.join("\n"));
        assert!(bugs().all(|bug| bug.line != bug.instead));
    }
}
