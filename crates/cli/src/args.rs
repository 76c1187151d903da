//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::choice::StoreArgs;

/// Ships new versions of services without anyone noticing, and takes them back by itself when they are bad.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where evenkeel keeps its state; default: `.evenkeel` here or in the nearest parent that has one
    #[arg(long, global = true, env = "EVENKEEL_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Short for `-o json`: one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Cli {
    /// How to print: `--json` is short for `-o json`.
    #[must_use]
    pub(crate) fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }

    /// Whether programs read the output.
    #[must_use]
    pub(crate) fn is_json(&self) -> bool {
        self.output() == Output::Json
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// As a page; only `report` has one.
    Html,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story on this machine, in about a minute
    Demo(DemoArgs),
    /// Check specs; points at every mistake at once
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print each service in each of its environments as it is understood, as YAML
        #[arg(long)]
        resolved: bool,
    },
    /// Show what a deploy would do, step by step, and whether the traffic is enough for it
    Plan(PlanArgs),
    /// Show what a rollout would do in a scenario, in virtual time
    Simulate(SimulateArgs),
    /// Evaluate PromQL over the series that evenkeel keeps
    Query(QueryArgs),
    /// Judge counts from elsewhere: a table, or a single test line by line on standard input
    Judge(JudgeArgs),
    /// Start evenkeel: controller, API, agent and proxy
    Up(UpArgs),
    /// Make this program of what runs: controller, agent and proxy, one after the other, without losing a request
    Upgrade(UpgradeArgs),
    /// Stop everything: services, proxy, agent and controller
    Down,
    /// Roll out a version and follow it
    Deploy(DeployArgs),
    /// Show services, releases and the rollout
    Status {
        /// Only this service
        service: Option<String>,
        /// Keep showing it
        #[arg(short, long)]
        watch: bool,
    },
    /// Show services and releases as a table that is drawn anew: requests, errors, times, shares, evidence
    Top(TopArgs),
    /// Show the rollouts of a service
    History {
        /// The service; needed where there are several
        service: Option<String>,
        /// Show every decision of this rollout with its evidence
        #[arg(long, value_name = "N")]
        rollout: Option<u32>,
    },
    /// Say why a rollout did what it did: the answer first, then every decision with its evidence
    Explain {
        /// The service and the number of the rollout; default: the last one
        #[arg(value_name = "SERVICE|ROLLOUT", num_args = 0..=2)]
        which: Vec<String>,
    },
    /// Report a rollout: phases, both releases in numbers, decisions; `-o html` gives a page
    Report {
        /// The service and the number of the rollout; default: the last one
        #[arg(value_name = "SERVICE|ROLLOUT", num_args = 0..=2)]
        which: Vec<String>,
    },
    /// Run a recorded rollout once more: compares every decision with what was recorded
    Replay {
        /// The service and the number of the rollout; the service is needed where there are several
        #[arg(value_name = "SERVICE|ROLLOUT", num_args = 0..=2)]
        which: Vec<String>,
        /// By this spec's strategy and objectives: shows what it would have decided
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
    },
    /// Show what the newest replica of a release wrote
    Logs {
        /// The service; needed where there are several
        service: Option<String>,
        /// The release, such as r3; default: the candidate, or else the stable one
        #[arg(long, value_name = "REV")]
        release: Option<String>,
        /// How many lines
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Keep showing new lines
        #[arg(short, long)]
        follow: bool,
    },
    /// Hold a rollout still where it is
    Pause(ServiceArgs),
    /// Go on after a pause
    Resume(ServiceArgs),
    /// End this step as passed, and go on with the next one
    #[command(visible_alias = "skip")]
    Promote {
        /// The service; needed where there are several
        service: Option<String>,
        /// Give all traffic to the new release as soon as it can carry it, and judge no more
        #[arg(long)]
        full: bool,
    },
    /// Give a service another number of replicas, also while a release is on its way
    #[command(allow_missing_positional = true)]
    Scale {
        /// The service; needed where there are several
        service: Option<String>,
        /// How many replicas; 1 to 1000
        replicas: u32,
    },
    /// Have users' requests wait for a while, at most so many and each for a bounded time; or let them go
    Maintenance {
        /// The service; needed where there are several
        service: Option<String>,
        /// For how long, if nobody ends it: 30s, 10m, at most 24h
        #[arg(long = "for", value_name = "DURATION", required_unless_present = "end")]
        lasts: Option<String>,
        /// How long each request waits before it is answered with 503; at most 5m
        #[arg(long, value_name = "DURATION", default_value = "30s")]
        wait: String,
        /// Let the requests go that wait
        #[arg(long, conflicts_with = "lasts")]
        end: bool,
    },
    /// Show who has which share of the traffic; set it by hand while a rollout is paused
    Weights {
        /// The service, where there are several; then shares such as `1.0=90 1.1=10`, in percent, together 100
        #[arg(value_name = "SERVICE | RELEASE=SHARE")]
        words: Vec<String>,
        /// Refuse when the routing table is not of this generation any more
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Show what releases depend on; hold a breaker open or closed, take it out of the way, let it decide again
    Breaker {
        /// The dependency, default all of them; then `open`, `close`, `disable` or `reset`
        #[arg(value_name = "NAME | DEED")]
        words: Vec<String>,
        /// The service; needed where there are several
        #[arg(long)]
        service: Option<String>,
    },
    /// Say yes to a deploy that waits for its gates
    Approve {
        /// The service; needed where there are several
        service: Option<String>,
        /// As what; default: everything that you may sign
        #[arg(long)]
        role: Option<String>,
        /// A few words that are kept with it
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// Say no to a deploy that waits for its gates
    Reject {
        /// The service; needed where there are several
        service: Option<String>,
        /// A few words that are kept with it
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// Take the new release back
    Abort(ServiceArgs),
    /// Try the release again that was taken back, and follow it
    Retry(ServiceArgs),
    /// Go back to the release before, and follow it
    Rollback {
        /// The service; needed where there are several
        service: Option<String>,
        /// Every service of this group, the last one first
        #[arg(short, long, conflicts_with_all = ["service", "to"])]
        group: Option<String>,
        /// To this release, such as r3
        #[arg(long, value_name = "REV")]
        to: Option<String>,
    },
    /// Copy everything that was decided into a file, while evenkeel runs, and verify it
    Backup {
        /// The file; an earlier backup of that name is replaced once the new one is whole
        file: PathBuf,
    },
    /// Fill an empty store from a backup
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Say what a check would say of the value on standard input (YAML): one line of JSON
    Condition(ConditionArgs),
    /// The controller itself, in the foreground
    #[command(hide = true)]
    Controller(ControllerArgs),
    /// The agent
    #[command(hide = true)]
    Agent,
    /// The proxy
    #[command(hide = true)]
    Proxy,
    /// What replicas reach their dependencies through
    #[command(hide = true)]
    Egress,
    /// The demo's service
    #[command(hide = true)]
    DemoService,
    /// The demo's load generator
    #[command(hide = true)]
    DemoLoad(LoadArgs),
}

/// What to plan.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The spec; default: evenkeel.yaml
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The service; needed where the file has several
    pub(crate) service: Option<String>,
    /// What the release is called; fills in `{{version}}`
    #[arg(short, long, default_value = "new")]
    pub(crate) version: String,
    /// The traffic to compute with, such as 200/s; default: that of the last ten seconds
    #[arg(long, value_name = "N/s")]
    pub(crate) rate: Option<String>,
}

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The spec; default: evenkeel.yaml
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The service; needed where the file has several
    pub(crate) service: Option<String>,
    /// What users and releases do meanwhile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) scenario: PathBuf,
    /// What the new release is called
    #[arg(short, long)]
    pub(crate) version: Option<String>,
    /// So many runs, as probabilities
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) runs: Option<u32>,
    /// The same seed gives the same story
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw the run
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// What to evaluate, and when.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The query, such as `sum by (release) (rate(http_requests_total[5m]))`
    #[arg(value_name = "PROMQL")]
    pub(crate) query: String,
    /// When: seconds since 1970, or RFC 3339; default: now
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Over so long before that, such as 1h
    #[arg(long, value_name = "DURATION")]
    pub(crate) range: Option<String>,
    /// Step of a range; default: a sixtieth of it
    #[arg(long, value_name = "DURATION", requires = "range")]
    pub(crate) step: Option<String>,
}

/// What to judge.
#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// A table (CSV) with the columns time, arm, requests, errors and perhaps le_0.1, le_0.5, le_inf: latencies up to so many
    /// seconds; default: lines of JSON on standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Of lines: answer with the accounts and stable's rate as well
    #[arg(short, long, conflicts_with = "file")]
    pub(crate) verbose: bool,
    /// The share of the requests that an independent coin sent to the candidate, such as 10%; default: whatever was observed
    #[arg(long, value_name = "SHARE")]
    pub(crate) weight: Option<String>,
    /// At most this share of harmless candidates is called harmful, such as 1%
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub(crate) false_alarms: String,
    /// Draw the evidence
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// A service.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The service; needed where there are several
    pub(crate) service: Option<String>,
}

/// How to start evenkeel.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The spec; it is checked, and its folder holds the state
    #[arg(short, long, default_value = "evenkeel.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Stay in the foreground, as a unit of systemd or a container wants it
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Where the HTTP API listens; default 127.0.0.1:7717, or a free port when that is taken
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Option<SocketAddr>,
    /// Start one more controller, which takes over when the one that leads dies or hangs
    #[arg(long)]
    pub(crate) standby: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// How to show the table.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// What stands first
    #[arg(long, value_enum, default_value_t = SortBy::Service)]
    pub(crate) sort: SortBy,
    /// Show it once
    #[arg(long)]
    pub(crate) once: bool,
}

/// What a table is sorted by: the most first, services by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// The service's name
    Service,
    /// Requests per second
    Requests,
    /// Share of failed requests
    Errors,
    /// 99 % are answered in this time
    P99,
    /// Requests whose answer is not complete yet
    InFlight,
}

/// What to replace, and how.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// How long the earlier proxy may finish what it has; tunnels are closed with a word before that
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) drain: u32,
    /// Leave controller and agent alone
    #[arg(long)]
    pub(crate) proxy_only: bool,
}

/// How the controller itself is started.
#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Where the HTTP API listens
    #[arg(long)]
    pub(crate) api: Option<SocketAddr>,
    /// Wait for the one that leads to die or hang
    #[arg(long)]
    pub(crate) standby: bool,
}

/// What to roll out.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The service; needed where there are several
    pub(crate) service: Option<String>,
    /// Every service of this group instead: promoted and rolled back together
    #[arg(short, long, conflicts_with_all = ["service", "from"])]
    pub(crate) group: Option<String>,
    /// What the release is called; fills in `{{version}}`
    #[arg(short, long, required_unless_present = "from")]
    pub(crate) version: Option<String>,
    /// The environment to deploy to; default: production, or the only one of the service
    #[arg(long, visible_alias = "to", value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// Deploy the very release that is stable in this environment: its version, command and files
    #[arg(long, value_name = "ENV")]
    pub(crate) from: Option<String>,
    /// Do not begin before this time: 22:00, 2026-11-22T22:00, or with a zone 2026-11-22T22:00[Europe/Berlin]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Pass the gates by; the reason is recorded and shown
    #[arg(long, value_name = "REASON")]
    pub(crate) skip_gates: Option<String>,
    /// The spec
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Do not wait for the end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Try a release again that was rolled back
    #[arg(long)]
    pub(crate) again: bool,
    /// Stop following after this many seconds (exit code 5); the rollout goes on
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// How the demo runs.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Let users meet what the bad release answers
    #[arg(long)]
    pub(crate) no_shield: bool,
    /// Requests per second
    #[arg(long, default_value_t = 500)]
    pub(crate) rate: u32,
    /// Keep the raw records of every request in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) records: Option<PathBuf>,
}

/// What load the demo makes.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where to
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Requests per second
    #[arg(long, default_value_t = 500)]
    pub(crate) rate: u32,
    /// Where the raw records go
    #[arg(long)]
    pub(crate) records: PathBuf,
}

/// What `condition` takes.
#[derive(Debug, Args)]
pub(crate) struct ConditionArgs {
    /// When the value is good: `result[0] >= 0.95`; without `--failure`, everything else is bad
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub(crate) success: Option<String>,
    /// When the value is bad: counts before `--success`; without that, everything else is good
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub(crate) failure: Option<String>,
    /// By whose rules; default: evenkeel's, by which what is missing (NaN, nothing, an empty list) is never a pass
    #[arg(long, value_enum)]
    pub(crate) compat: Option<Compat>,
}

/// Whose rules a check can follow instead of evenkeel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// Argo Rollouts', to the letter.
    Argo,
    /// Flagger's: what cannot be measured is bad.
    Flagger,
}
