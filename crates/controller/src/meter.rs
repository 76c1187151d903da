//! Turns the proxy's counters, which grow from its start on, into ticks.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::evidence::Seen;
use evenkeel_analysis::evidence::watch::Dispersion;
use evenkeel_analysis::slots::SLOT_US;
use evenkeel_analysis::{Answers, Counts, Window};
use evenkeel_core::evidence::Tally;
use evenkeel_core::ids::{Revision, Timestamp};
use evenkeel_core::ports::ReleaseReport;
use evenkeel_core::watch::Failures;

/// How far back the figures look that people are shown.
const SHOWN: Duration = Duration::from_secs(10);

/// How long what was counted is remembered for the comparison with a candidate, at least.
const HISTORY: Duration = Duration::from_secs(300);
/// Answers below which nothing is said of their 99th percentile.
const ENOUGH_FOR_P99: u64 = 100;

/// The requests of one service, per release: since the controller started, lately, and since the last tick.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The proxy that was last heard of; 0 before the first report.
    boot: u64,
    /// When it was.
    looked: Timestamp,
    releases: BTreeMap<Revision, Dial>,
    /// Counted since the last tick; `None` while nobody asks for ticks.
    fresh: Option<Fresh>,
}

/// The requests of one release.
#[derive(Debug)]
struct Dial {
    /// The counters as last reported, to tell what is new.
    reported: Tally,
    /// Everything counted since the controller started, whatever proxy counted it.
    total: Tally,
    recent: Window,
    /// Requests by method and status: as last reported, and since the controller started.
    answers: (Answers, Answers),
    /// Requests of users in the last minutes: of these five, and of the five before.
    history: [Counts; 2],
    /// How clustered failures were in them.
    clustered: [Dispersion; 2],
    turned: Timestamp,
    /// Copies that were not sent: as last reported, and since the controller started.
    dropped: (u64, u64),
}

#[derive(Debug)]
struct Fresh {
    from: Timestamp,
    counted: BTreeMap<Revision, Tally>,
}

impl Meter {
    /// Takes what a report of the proxy that started as `boot` counts beyond the last one. A proxy that started anew
    /// counts from zero.
    pub(crate) fn take(&mut self, boot: u64, releases: &[&ReleaseReport], now: Timestamp) {
        let is_first = self.boot == 0;
        if boot != self.boot {
            self.boot = boot;
            self.releases.values_mut().for_each(Dial::restart);
        }
        for release in releases {
            let dial = self.releases.entry(release.revision).or_insert_with(Dial::new);
            dial.take_dropped(release.mirror_dropped, is_first);
            dial.take_answers(&release.answers, is_first);
            let Some(new) = dial.take(release) else { continue };
            // What was counted before this controller looked is not for it to judge.
            if is_first {
                continue;
            }
            dial.total.merge(&new);
            dial.recent.push(now.0, new.counts.clone());
            dial.remember(&new.counts, now);
            if let Some(fresh) = &mut self.fresh {
                fresh.counted.entry(release.revision).or_default().merge(&new);
            }
        }
        self.releases.values_mut().for_each(|dial| dial.recent.advance(now.0));
        self.looked = now;
    }

    /// The proxy that was last heard of.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Begins to keep what is counted from the last report on for ticks, or stops that.
    pub(crate) fn record(&mut self, is_wanted: bool) {
        let fresh = || Fresh { from: self.looked, counted: BTreeMap::new() };
        self.fresh = is_wanted.then(|| self.fresh.take().unwrap_or_else(fresh));
    }

    /// What was counted since the tick before, and when that was; `None` when it is nothing.
    pub(crate) fn tick(&mut self) -> Option<(Timestamp, BTreeMap<Revision, Tally>)> {
        let fresh = self.fresh.as_mut()?;
        let from = std::mem::replace(&mut fresh.from, self.looked);
        let counted = std::mem::take(&mut fresh.counted);
        (!counted.is_empty()).then_some((from, counted))
    }

    /// Forgets every release but these.
    pub(crate) fn keep_only(&mut self, is_known: impl Fn(Revision) -> bool) {
        self.releases.retain(|revision, _| is_known(*revision));
    }

    /// The counts of the last ten seconds of a release.
    pub(crate) fn recent(&self, revision: Revision) -> Counts {
        self.releases.get(&revision).map_or_else(Counts::default, |dial| dial.recent.counts().clone())
    }

    /// The counts of the last five to ten minutes of a release.
    pub(crate) fn history(&self, revision: Revision) -> Counts {
        let Some(dial) = self.releases.get(&revision) else { return Counts::default() };
        let mut history = dial.history[0].clone();
        history.merge(&dial.history[1]);
        history
    }

    /// How clustered a release's failures were in these minutes; `None` where there were too few to tell.
    pub(crate) fn clustered(&self, revision: Revision) -> Option<f64> {
        let [newest, before] = &self.releases.get(&revision)?.clustered;
        newest.ratio().or_else(|| before.ratio())
    }

    /// The 99th percentile of a release's answer times in these minutes; `None` before enough answers.
    pub(crate) fn p99(&self, revision: Revision) -> Option<Duration> {
        let times = self.history(revision).latency;
        let p99 = times.quantile_us(0.99).filter(|_| times.total() >= ENOUGH_FOR_P99)?;
        Some(Duration::from_micros(p99))
    }

    /// Requests of users per second, of all releases, in the mean of the last ten seconds.
    pub(crate) fn per_second(&self) -> f64 {
        let of_release = |dial: &Dial| dial.recent.counts().requests() + dial.recent.counts().client_gone;
        self.releases.values().map(of_release).sum::<u64>() as f64 / SHOWN.as_secs_f64()
    }

    /// Requests to a release, and how many of them failed, since the controller started.
    pub(crate) fn failures(&self, revision: Revision) -> Failures {
        let counts = self.releases.get(&revision).map(|dial| &dial.total.counts);
        counts
            .map_or_else(Failures::default, |counts| Failures { requests: counts.requests(), errors: counts.errors() })
    }

    /// Everything counted of a release since the controller started.
    pub(crate) fn total(&self, revision: Revision) -> Tally {
        self.releases.get(&revision).map_or_else(Tally::default, |dial| dial.total.clone())
    }

    /// Everything counted since the controller started, by release.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (Revision, &Tally)> {
        self.releases.iter().map(|(revision, dial)| (*revision, &dial.total))
    }

    /// Requests to a release by method and status since the controller started.
    pub(crate) fn answers(&self, revision: Revision) -> Answers {
        self.releases.get(&revision).map_or_else(Answers::default, |dial| dial.answers.1.clone())
    }

    /// Copies to a release that were not sent since the controller started.
    pub(crate) fn mirror_dropped(&self, revision: Revision) -> u64 {
        self.releases.get(&revision).map_or(0, |dial| dial.dropped.1)
    }
}

impl Dial {
    fn new() -> Self {
        let [reported, total] = std::array::from_fn(|_| Tally::default());
        let answers = (Answers::default(), Answers::default());
        let (history, clustered, turned) = (Default::default(), Default::default(), Timestamp(0));
        Self { reported, total, recent: Window::new(SHOWN), history, clustered, turned, answers, dropped: (0, 0) }
    }

    fn remember(&mut self, new: &Counts, now: Timestamp) {
        if now.since(self.turned) >= HISTORY {
            let is_old = now.since(self.turned) >= 2 * HISTORY;
            let last = std::mem::take(&mut self.history[0]);
            (self.history[1], self.turned) = (if is_old { Counts::default() } else { last }, now);
            let last = std::mem::take(&mut self.clustered[0]);
            self.clustered[1] = if is_old { Dispersion::default() } else { last };
        }
        self.history[0].merge(new);
        self.clustered[0].slot(now.0 / SLOT_US, Seen::new(new.requests(), new.errors()));
    }

    /// A proxy that started anew counts from zero.
    fn restart(&mut self) {
        self.reported = Tally::default();
        self.dropped.0 = 0;
        self.answers.0 = Answers::default();
    }

    fn take_dropped(&mut self, reported: u64, is_first: bool) {
        let before = std::mem::replace(&mut self.dropped.0, reported);
        if !is_first {
            self.dropped.1 += reported.saturating_sub(before);
        }
    }

    fn take_answers(&mut self, reported: &Answers, is_first: bool) {
        if self.answers.0 != *reported {
            let before = std::mem::replace(&mut self.answers.0, reported.clone());
            if !is_first {
                self.answers.1.merge(&reported.since(&before));
            }
        }
    }

    /// What a report counts beyond the last one; `None` when it is nothing.
    fn take(&mut self, release: &ReleaseReport) -> Option<Tally> {
        let ReleaseReport { counts, shielded, pinned, mirrored, .. } = release;
        let before = &self.reported;
        let is_new = before.shielded != *shielded
            || before.counts != *counts
            || before.pinned != *pinned
            || before.mirrored != *mirrored;
        if !is_new {
            return None;
        }
        let new = Tally {
            counts: counts.since(&before.counts),
            shielded: shielded.saturating_sub(before.shielded),
            pinned: pinned.since(&before.pinned),
            mirrored: mirrored.since(&before.mirrored),
        };
        let [counts, pinned, mirrored] = [counts, pinned, mirrored].map(Clone::clone);
        self.reported = Tally { counts, shielded: *shielded, pinned, mirrored };
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::ids::ServiceName;

    use super::*;

    #[test]
    fn requests_add_up_over_restarts_of_the_proxy_and_not_of_the_controller() {
        let service = ServiceName::new("web").expect("a name");
        let mut meter = Meter::default();
        meter.record(true);
        let mut take = |boot: u64, failed| {
            let counts = Counts { no_answer: failed, ..Counts::default() };
            let release = ReleaseReport {
                counts,
                shielded: failed,
                mirror_dropped: failed,
                ..ReleaseReport::new(service.clone(), Revision(2))
            };
            meter.take(boot, &[&release], Timestamp(boot));
            let Tally { counts, shielded, .. } = meter.total(Revision(2));
            assert_eq!(meter.mirror_dropped(Revision(2)), shielded);
            (shielded, counts.errors(), meter.tick().map(|(_, counted)| counted[&Revision(2)].shielded))
        };
        let told = [(1, 7), (1, 10), (1, 10), (2, 4), (2, 5)].map(|(boot, failed)| take(boot, failed));
        assert_eq!(told, [(0, 0, None), (3, 3, Some(3)), (3, 3, None), (7, 7, Some(4)), (8, 8, Some(1))]);
    }

    #[test]
    fn a_tick_begins_at_the_report_before_what_it_counts() {
        let service = ServiceName::new("web").expect("a name");
        let report = |no_answer| {
            let counts = Counts { no_answer, ..Counts::default() };
            ReleaseReport { counts, ..ReleaseReport::new(service.clone(), Revision(2)) }
        };
        let mut meter = Meter::default();
        meter.take(7, &[&report(5)], Timestamp(100));
        meter.record(true);
        meter.take(7, &[&report(5)], Timestamp(200));
        assert_eq!(meter.tick(), None);
        meter.take(7, &[&report(6)], Timestamp(300));
        meter.take(7, &[&report(8)], Timestamp(400));
        let (from, counted) = meter.tick().expect("something was counted");
        assert_eq!((from, counted[&Revision(2)].counts.errors()), (Timestamp(200), 3));
    }
}
