//! Is a replica started, alive, ready? Kubernetes' meaning of probes, without a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::ports::Answered;
use crate::spec::{Probe, ProbeCheck, Probes};

/// Until a replica has been ready for the first time it is asked this often, whatever its probe's period: a failure
/// then changes nothing, and a success is known at once.
const EAGER_PERIOD: Duration = Duration::from_millis(100);
/// After this long without a success the eagerness ends.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Has it started?
    Startup,
    /// Must it be restarted?
    Liveness,
    /// May it have traffic?
    Readiness,
}

/// What the probes of one replica have said so far.
#[derive(Debug, Clone)]
pub struct ProbeBook {
    started: Timestamp,
    startup: Option<Tracker>,
    liveness: Option<Tracker>,
    readiness: Tracker,
    /// How long it must run to count as ready, and since when it does, where nothing can be asked.
    running: Option<(Duration, Timestamp)>,
}

/// What one probe of one replica has said so far.
#[derive(Debug, Clone)]
struct Tracker {
    probe: Probe,
    due: Timestamp,
    asking: bool,
    in_a_row: u32,
    last_good: Option<bool>,
    good: Option<bool>,
    /// When it was answered badly last.
    bad_at: Option<Timestamp>,
    detail: String,
}

impl ProbeBook {
    /// Nothing was asked yet. A release without a readiness probe is ready when its port accepts connections; without
    /// a port, when it has run long enough.
    #[must_use]
    pub fn new(probes: &Probes, started: Timestamp) -> Self {
        let tracker = |probe: &Probe| Tracker::new(probe.clone(), started);
        let port_open = Probe { period: Duration::from_secs(1), ..Probe::new(ProbeCheck::Tcp { port: None }) };
        Self {
            started,
            startup: probes.startup.as_ref().map(tracker),
            liveness: probes.liveness.as_ref().map(tracker),
            readiness: Tracker::new(probes.readiness.clone().unwrap_or(port_open), started),
            running: probes.running.filter(|_| probes.readiness.is_none()).map(|time| (time, started)),
        }
    }

    /// It runs longer than this book has been kept.
    pub fn runs_since(&mut self, earlier: Timestamp) {
        if let Some((_, since)) = &mut self.running {
            *since = earlier.min(*since);
        }
    }

    /// A replica that has traffic already counts as ready until its probes say otherwise.
    #[must_use]
    pub fn in_traffic(probes: &Probes, now: Timestamp) -> Self {
        let mut book = Self::new(probes, now);
        book.trust();
        book
    }

    /// Counts as ready from here on, until its probes say otherwise; a book with answers in it is left alone.
    pub fn trust(&mut self) {
        for tracker in self.startup.iter_mut().chain([&mut self.readiness]).filter(|t| t.last_good.is_none()) {
            tracker.good = Some(true);
            tracker.last_good = Some(true);
        }
    }

    /// The probes that are to be sent now. Each is due again only after [`ProbeBook::answered`].
    pub fn due(&mut self, now: Timestamp) -> Vec<(ProbeKind, Probe)> {
        let kinds: &[ProbeKind] =
            if self.has_started() { &[ProbeKind::Liveness, ProbeKind::Readiness] } else { &[ProbeKind::Startup] };
        let mut due = Vec::new();
        if let Some((time, since)) = self.running {
            self.readiness.asking = true;
            if now >= since.after(time) {
                (self.readiness.good, self.readiness.last_good) = (Some(true), Some(true));
            }
        }
        for kind in kinds {
            if let Some(tracker) = self.tracker(*kind).filter(|t| !t.asking && now >= t.due) {
                tracker.asking = true;
                due.push((*kind, tracker.probe.clone()));
            }
        }
        due
    }

    /// When the next probe is due, or has run long enough; `None` while every one of them waits for its answer.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let trackers = if self.has_started() {
            [self.liveness.as_ref(), Some(&self.readiness)]
        } else {
            [self.startup.as_ref(), None]
        };
        let due = trackers.into_iter().flatten().filter(|tracker| !tracker.asking).map(|tracker| tracker.due).min();
        let running = self.running.filter(|_| self.readiness.good != Some(true)).map(|(time, since)| since.after(time));
        due.into_iter().chain(running).min()
    }

    /// Takes note of an answer.
    pub fn answered(&mut self, kind: ProbeKind, answer: &Answered, now: Timestamp) {
        let started = self.started;
        let eager = kind != ProbeKind::Liveness && now.since(started) < EAGER_FOR;
        let Some(tracker) = self.tracker(kind) else { return };
        tracker.answered(answer);
        let period = tracker.probe.period;
        // Successes in a row are counted at the probe's own pace: the first one ends the eagerness.
        let wait = if eager && tracker.good != Some(true) && !answer.good { period.min(EAGER_PERIOD) } else { period };
        tracker.due = now.after(wait);
        if !answer.good {
            tracker.bad_at = Some(now);
        }
        // When its time is over it is asked once more, so that it is given up by what it says.
        let limit = started.after(tracker.probe.time_to_start());
        if kind == ProbeKind::Startup && now < limit {
            tracker.due = tracker.due.min(limit);
        }
        if kind == ProbeKind::Startup && tracker.good == Some(true) {
            self.begin_after_startup(now);
        }
    }

    /// Whether it may have traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.has_started() && self.readiness.good == Some(true)
    }

    /// Whether it must be restarted: its liveness probe failed, or its startup probe failed when the time was over that
    /// it allows (initial delay + failure threshold × period), and as often in a row as it may. Time in which nobody asked
    /// says nothing about it, nor does one bad answer to whoever has just begun to ask.
    #[must_use]
    pub fn must_restart(&self) -> bool {
        let too_long = |tracker: &Tracker| {
            let limit = self.started.after(tracker.probe.time_to_start());
            tracker.good != Some(true) && tracker.bad_at.is_some_and(|at| at >= limit)
        };
        let dead =
            |tracker: &Tracker| tracker.last_good == Some(false) && tracker.in_a_row >= tracker.probe.failure_threshold;
        self.startup.as_ref().is_some_and(|tracker| too_long(tracker) && dead(tracker))
            || (self.has_started() && self.liveness.as_ref().is_some_and(dead))
    }

    /// The last bad answer of a probe that is not good; empty when there is none.
    #[must_use]
    pub fn detail(&self) -> &str {
        let all = self.startup.iter().chain(&self.liveness).chain([&self.readiness]);
        all.filter(|tracker| tracker.last_good == Some(false))
            .map(|tracker| tracker.detail.as_str())
            .next()
            .unwrap_or("")
    }

    /// Whether its startup probe has succeeded, or it has none.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.startup.as_ref().is_none_or(|tracker| tracker.good == Some(true))
    }

    /// The other probes' initial delays begin where the startup probe ends.
    fn begin_after_startup(&mut self, now: Timestamp) {
        for tracker in self.liveness.iter_mut().chain([&mut self.readiness]) {
            tracker.due = now.after(tracker.probe.initial_delay);
        }
    }

    fn tracker(&mut self, kind: ProbeKind) -> Option<&mut Tracker> {
        match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Liveness => self.liveness.as_mut(),
            ProbeKind::Readiness => Some(&mut self.readiness),
        }
    }
}

impl Tracker {
    fn new(probe: Probe, started: Timestamp) -> Self {
        let due = started.after(probe.initial_delay);
        Self {
            probe,
            due,
            asking: false,
            in_a_row: 0,
            last_good: None,
            good: None,
            bad_at: None,
            detail: String::new(),
        }
    }

    fn answered(&mut self, answer: &Answered) {
        self.asking = false;
        self.in_a_row = if self.last_good == Some(answer.good) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last_good = Some(answer.good);
        let threshold = if answer.good { self.probe.success_threshold } else { self.probe.failure_threshold };
        if self.in_a_row >= threshold {
            self.good = Some(answer.good);
        }
        if !answer.good {
            self.detail.clone_from(&answer.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str = "GET /: 503";

    fn http(period: u64, failures: u32) -> Probe {
        let check = ProbeCheck::Http { path: "/".into(), port: None, headers: Vec::new() };
        Probe { period: Duration::from_secs(period), failure_threshold: failures, ..Probe::new(check) }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    /// Answers whatever is due each second: `1` good, `0` bad, by kind; returns the seconds asked.
    fn run(book: &mut ProbeBook, from: u64, answers: &str, kind: ProbeKind) -> Vec<u64> {
        let mut asked = Vec::new();
        for (second, answer) in (from..).zip(answers.bytes()) {
            for (due, _) in book.due(at(second)) {
                if due == kind {
                    asked.push(second);
                }
                book.answered(due, &Answered { good: answer == b'1', detail: BAD.into() }, at(second));
            }
        }
        asked
    }

    #[test]
    fn it_is_ready_at_its_first_success_and_unready_after_three_failures_in_a_row() {
        let mut book = ProbeBook::new(&Probes { readiness: Some(http(1, 3)), ..Probes::default() }, at(0));
        run(&mut book, 0, "01", ProbeKind::Readiness);
        assert!(book.is_ready());
        run(&mut book, 2, "00100", ProbeKind::Readiness);
        assert!(book.is_ready(), "two failures, a success, two failures");
        run(&mut book, 7, "0", ProbeKind::Readiness);
        assert!(!book.is_ready());
        assert_eq!(book.detail(), BAD);
    }

    #[test]
    fn startup_holds_the_others_off_and_gives_up_after_its_time() {
        let probes = Probes { startup: Some(http(2, 3)), liveness: Some(http(1, 1)), ..Probes::default() };
        let mut book = ProbeBook::new(&probes, at(0));
        assert!(run(&mut book, 0, "00000", ProbeKind::Liveness).is_empty());
        assert_eq!(run(&mut book, 5, "0", ProbeKind::Startup), [5]);
        assert!(!book.must_restart());
        assert_eq!(run(&mut book, 6, "0", ProbeKind::Startup), [6], "3 failures x 2 s");
        assert!(book.must_restart());
        run(&mut book, 7, "1", ProbeKind::Startup);
        assert!(!book.must_restart());
        run(&mut book, 8, "0", ProbeKind::Liveness);
        assert!(book.must_restart(), "liveness failed once, its threshold");
    }

    #[test]
    fn time_in_which_nobody_asked_does_not_make_it_late() {
        let probes = Probes { startup: Some(http(2, 3)), ..Probes::default() };
        let mut book = ProbeBook::new(&probes, at(0));
        run(&mut book, 0, "00", ProbeKind::Startup);
        assert_eq!(run(&mut book, 60, "1", ProbeKind::Startup), [60]);
        assert!(!book.must_restart());
    }

    #[test]
    fn one_bad_answer_that_comes_late_gives_nobody_up() {
        let probes = Probes { startup: Some(http(2, 3)), ..Probes::default() };
        let mut book = ProbeBook::new(&probes, at(0));
        assert_eq!(run(&mut book, 60, "0", ProbeKind::Startup), [60]);
        assert!(!book.must_restart(), "nobody asked before");
        run(&mut book, 61, "0000", ProbeKind::Startup);
        assert!(book.must_restart());
    }

    #[test]
    fn it_is_asked_eagerly_until_ready_and_at_its_period_after() {
        let mut book = ProbeBook::new(&Probes { readiness: Some(http(5, 3)), ..Probes::default() }, at(0));
        assert_eq!(run(&mut book, 0, "0001", ProbeKind::Readiness), [0, 1, 2, 3]);
        assert_eq!(run(&mut book, 4, "1111111111", ProbeKind::Readiness), [8, 13]);
    }

    #[test]
    fn successes_that_must_come_in_a_row_are_counted_at_the_period() {
        let probe = Probe { success_threshold: 3, ..http(5, 3) };
        let mut book = ProbeBook::new(&Probes { readiness: Some(probe), ..Probes::default() }, at(0));
        assert_eq!(run(&mut book, 0, "0111111111111", ProbeKind::Readiness), [0, 1, 6, 11]);
        assert!(book.is_ready());
    }

    #[test]
    fn trust_does_not_outvote_an_answer() {
        let mut book = ProbeBook::new(&Probes { readiness: Some(http(1, 1)), ..Probes::default() }, at(0));
        run(&mut book, 0, "0", ProbeKind::Readiness);
        book.trust();
        assert!(!book.is_ready());
    }

    #[test]
    fn a_replica_without_a_port_is_ready_when_it_has_run_long_enough() {
        let probes = Probes { running: Some(Duration::from_secs(5)), ..Probes::default() };
        let mut book = ProbeBook::new(&probes, at(10));
        assert!(book.due(at(14)).is_empty() && !book.is_ready());
        assert!(book.due(at(15)).is_empty() && book.is_ready());
        let mut adopted = ProbeBook::new(&probes, at(10));
        adopted.runs_since(at(3));
        assert!(adopted.due(at(10)).is_empty() && adopted.is_ready());
        let asked = Probes { readiness: Some(http(1, 1)), ..probes };
        assert_eq!(ProbeBook::new(&asked, at(10)).due(at(20)).len(), 1, "its own probe says more");
    }

    #[test]
    fn a_probe_without_an_answer_is_not_sent_again() {
        let mut book = ProbeBook::new(&Probes::default(), at(0));
        assert_eq!(book.due(at(0)).len(), 1);
        assert!(book.due(at(100)).is_empty());
    }

    #[test]
    fn a_replica_in_traffic_stays_ready_until_its_probes_fail() {
        let mut book = ProbeBook::in_traffic(&Probes { readiness: Some(http(1, 3)), ..Probes::default() }, at(0));
        assert!(book.is_ready());
        run(&mut book, 0, "000", ProbeKind::Readiness);
        assert!(!book.is_ready());
    }
}
