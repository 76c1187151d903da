//! What users and releases do while a rollout is simulated.

use std::time::Duration;

use evenkeel_core::service::Verb;
use evenkeel_core::span::span;

/// Traffic, how both releases answer it, and what goes wrong. Times count from the deploy.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Requests per second, from each moment on; the first entry counts from the beginning. Never empty.
    pub rate: Vec<(Duration, f64)>,
    /// Share of the requests that may be repeated, so that the stable release may answer them instead; 0 to 1.
    pub repeatable: f64,
    /// Share of the requests that match the `match` of steps that have one; 0 to 1.
    pub matching: f64,
    /// How the stable release answers, from each moment on; `None`: there is none, it is the first deployment.
    pub stable: Option<Vec<Behaviour>>,
    /// How the new release answers, from each moment on. Never empty.
    pub candidate: Vec<Behaviour>,
    /// How long a replica of the new release takes to become ready; `None`: it never does.
    pub startup: Option<Duration>,
    /// Whether smoke checks pass.
    pub smoke_passes: bool,
    /// Whether what checks measure is good.
    pub checks_pass: bool,
    /// What goes wrong, in order of time.
    pub faults: Vec<Fault>,
    /// What people do, in order of time.
    pub commands: Vec<(Duration, Verb)>,
    /// The simulation ends after this long at the latest.
    pub lasts: Duration,
}

/// How a release answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// From when on.
    pub from: Duration,
    /// Share of the requests that it answers with 500; 0 to 1.
    pub errors: f64,
    /// How long its answers take.
    pub latency: Latency,
}

/// How long answers take: a log-normal distribution with these quantiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half of the answers take at most this long.
    pub p50: Duration,
    /// 99 % of them take at most this long; not less than `p50`.
    pub p99: Duration,
}

/// One of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The release that has the traffic.
    Stable,
    /// The one that is to take over.
    Candidate,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// What.
    pub what: Trouble,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Replicas of a release end by themselves.
    Dies {
        /// Of which release.
        arm: Arm,
        /// How many.
        replicas: u32,
    },
    /// No replica of a release answers anything for a while.
    Down {
        /// Of which release.
        arm: Arm,
        /// For how long.
        lasts: Duration,
    },
    /// The controller is killed, and is there again after a while.
    ControllerDies {
        /// For how long it is gone.
        lasts: Duration,
    },
}

impl Scenario {
    /// Steady traffic, and two releases that answer alike.
    #[must_use]
    pub fn calm(rate: f64, errors: f64, latency: Latency) -> Self {
        let alike = vec![Behaviour { from: Duration::ZERO, errors, latency }];
        Self {
            rate: vec![(Duration::ZERO, rate)],
            repeatable: 1.0,
            matching: 0.0,
            stable: Some(alike.clone()),
            candidate: alike,
            startup: Some(Duration::from_secs(2)),
            smoke_passes: true,
            checks_pass: true,
            faults: Vec::new(),
            commands: Vec::new(),
            lasts: Duration::from_secs(30 * 86_400),
        }
    }

    /// Requests per second at a moment.
    #[must_use]
    pub fn rate_at(&self, at: Duration) -> f64 {
        self.rate.iter().rev().find(|(from, _)| *from <= at).or(self.rate.first()).map_or(0.0, |(_, rate)| *rate)
    }

    /// How a release answers at a moment; `None`: there is no such release.
    #[must_use]
    pub fn behaviour(&self, arm: Arm, at: Duration) -> Option<Behaviour> {
        let behaviours = self.behaviours(arm);
        behaviours.iter().rev().find(|behaviour| behaviour.from <= at).or(behaviours.first()).copied()
    }

    fn behaviours(&self, arm: Arm) -> &[Behaviour] {
        match arm {
            Arm::Stable => self.stable.as_deref().unwrap_or_default(),
            Arm::Candidate => &self.candidate,
        }
    }

    /// Every moment at which something is other than before, rising.
    #[must_use]
    pub fn changes(&self) -> Vec<Duration> {
        let down_until = |fault: &Fault| match fault.what {
            Trouble::Down { lasts, .. } | Trouble::ControllerDies { lasts } => Some(fault.at + lasts),
            Trouble::Dies { .. } => None,
        };
        let behaviours = self.behaviours(Arm::Stable).iter().chain(self.behaviours(Arm::Candidate));
        let mut changes: Vec<Duration> = behaviours.map(|behaviour| behaviour.from).collect();
        changes.extend(self.rate.iter().map(|(from, _)| *from));
        changes.extend(self.faults.iter().map(|fault| fault.at));
        changes.extend(self.faults.iter().filter_map(down_until));
        changes.extend(self.commands.iter().map(|(at, _)| *at));
        changes.push(self.lasts);
        changes.sort_unstable();
        changes.dedup();
        changes
    }

    /// Whether no replica of a release answers anything at a moment.
    #[must_use]
    pub fn is_down(&self, arm: Arm, at: Duration) -> bool {
        self.faults.iter().any(|fault| match fault.what {
            Trouble::Down { arm: down, lasts } => down == arm && fault.at <= at && at < fault.at + lasts,
            Trouble::Dies { .. } | Trouble::ControllerDies { .. } => false,
        })
    }

    /// The newest moment up to `at` from which on the candidate was another one than before, or broken.
    #[must_use]
    pub fn candidate_changed(&self, at: Duration) -> Duration {
        let of_candidate = |fault: &&Fault| match fault.what {
            Trouble::Dies { arm, .. } | Trouble::Down { arm, .. } => arm == Arm::Candidate,
            Trouble::ControllerDies { .. } => false,
        };
        let faults = self.faults.iter().filter(of_candidate).map(|fault| fault.at);
        let behaviours = self.candidate.iter().map(|behaviour| behaviour.from);
        faults.chain(behaviours).filter(|from| *from <= at).max().unwrap_or_default()
    }
}

/// What changes at a moment, in words for people.
#[must_use]
pub(crate) fn told(scenario: &Scenario, at: Duration) -> Vec<String> {
    let mut told = Vec::new();
    if let Some((_, rate)) = scenario.rate.iter().find(|(from, _)| *from == at) {
        told.push(format!("{} requests/s", short(*rate)));
    }
    for (arm, name) in [(Arm::Stable, "stable"), (Arm::Candidate, "candidate")] {
        if let Some(Behaviour { errors, latency, .. }) = scenario.behaviours(arm).iter().find(|b| b.from == at) {
            let (p50, p99) = (span(latency.p50), span(latency.p99));
            told.push(format!("{name}: errors {} %, latency p50 {p50}, p99 {p99}", short(errors * 100.0)));
        }
    }
    told.extend(scenario.faults.iter().filter(|fault| fault.at == at).map(|fault| fault.what.told()));
    told
}

impl Trouble {
    fn told(self) -> String {
        let name = |arm| if arm == Arm::Stable { "stable" } else { "candidate" };
        match self {
            Self::Dies { arm, replicas } => format!("{replicas} replica(s) of {} end by themselves", name(arm)),
            Self::Down { arm, lasts } => format!("{} answers nothing for {}", name(arm), span(lasts)),
            Self::ControllerDies { lasts } => {
                format!("the controller is killed, and is there again after {}", span(lasts))
            }
        }
    }
}

/// At most two decimals, without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
