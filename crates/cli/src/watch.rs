//! The triggers of every service and the rules that specs name, evaluated over evenkeel's own series, and what their
//! alerts ask for.
//!
//! What becomes of an alert is the controller's to decide, as of one that Alertmanager tells of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use evenkeel_controller::Handle;
use evenkeel_controller::clock::SystemClock;
use evenkeel_core::alert::{Action, Alert, AlertKey};
use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::ports::Clock;
use evenkeel_core::trigger::{self, Resources, Triggers};
use evenkeel_manifest::{ReadRules, breaker_rules, read_rules, trigger_rules};
use evenkeel_promql::Limits;
use evenkeel_rules::{Change, Rulebook, State};
use evenkeel_series::Store;
use tracing::{info, warn};

/// Rules are looked at this often; each group has an interval of its own.
const TICK: Duration = Duration::from_secs(1);
/// How often groups are evaluated that do not say how often.
const EVERY: Duration = Duration::from_secs(15);
/// Files are read again after so many ticks.
const READ_TICKS: u64 = 15;
/// The longest file of rules, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Alerts that wait to be told, while the store fails; of more the oldest are forgotten.
const WAITING_MAX: usize = 1_000;

/// Evaluates for as long as it is run.
pub(crate) struct Watch {
    handle: Handle,
    series: Arc<RwLock<Store>>,
    clock: SystemClock,
    files: BTreeMap<PathBuf, File>,
    /// What the controller has not taken note of yet, oldest first; with the service that is meant where labels name none.
    waiting: VecDeque<(Option<ServiceName>, Alert)>,
}

/// A file of rules that some spec names.
#[derive(Default)]
struct File {
    text: String,
    /// Why it could not be read the last time.
    failed: Option<String>,
    services: BTreeSet<ServiceName>,
    book: Rulebook,
    /// Triggers of these services and no others, made of their specs.
    is_own: bool,
}

/// Reads a file of rules.
///
/// # Errors
/// In words: it cannot be read, or has mistakes.
pub(crate) fn read(path: &Path) -> Result<ReadRules, String> {
    let text = text(path)?;
    read_rules(&path.display().to_string(), &text).map_err(|problems| problems.to_string())
}

fn text(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{}: {bytes} bytes are more than a file of rules may have", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

impl Watch {
    pub(crate) fn new(handle: Handle, series: Arc<RwLock<Store>>) -> Self {
        let (clock, files, waiting) = (SystemClock::new(), BTreeMap::new(), VecDeque::new());
        Self { handle, series, clock, files, waiting }
    }

    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        self.end_old_ones();
        loop {
            tick.tick().await;
            self.look_at_triggers();
            self.look(ticks.is_multiple_of(READ_TICKS)).await;
            self.evaluate().await;
            self.tell().await;
            ticks += 1;
        }
    }

    /// What triggers told to an earlier controller is over: they begin anew, and tell of what they find.
    fn end_old_ones(&mut self) {
        let ended = Some(self.clock.now());
        for (status, _) in self.handle.figures().services {
            for told in status.alerts.iter().filter(|alert| alert.group.starts_with(trigger::GROUP)) {
                let (group, fingerprint) = (told.group.clone(), told.fingerprint.clone());
                let key = AlertKey { group, fingerprint, starts_at: told.starts_at };
                let (name, labels, summary) = (told.alert.clone(), told.labels.clone(), told.summary.clone());
                self.waiting.push_back((None, Alert { key, name, action: told.action, ended, labels, summary }));
            }
        }
    }

    /// Follows which triggers services have, and whether they depend on something: those with the same limits are watched by
    /// the same rules.
    fn look_at_triggers(&mut self) {
        let mut kinds: Vec<((Triggers, Resources), BTreeSet<ServiceName>)> = Vec::new();
        let figures = self.handle.figures();
        let depending: BTreeSet<_> = figures.dependencies.iter().map(|known| known.key.service.clone()).collect();
        for (status, _) in figures.services {
            let same = kinds.iter_mut().find(|((t, r), _)| *t == status.triggers && *r == status.resources);
            match same {
                Some((_, services)) => drop(services.insert(status.service.clone())),
                None => {
                    kinds.push(((status.triggers.clone(), status.resources), BTreeSet::from([status.service.clone()])))
                }
            }
        }
        let made = kinds.into_iter().map(|((triggers, resources), services)| {
            let text = trigger_rules(&triggers, &resources);
            let mut hash = DefaultHasher::new();
            text.hash(&mut hash);
            (PathBuf::from(format!("{} {:x}", trigger::GROUP, hash.finish())), (text, services))
        });
        let mut made: BTreeMap<PathBuf, (String, BTreeSet<ServiceName>)> = made.collect();
        if !depending.is_empty() {
            made.insert(PathBuf::from(format!("{} dependencies", trigger::GROUP)), (breaker_rules(), depending));
        }
        let gone = self.files.iter().filter(|(path, file)| file.is_own && !made.contains_key(*path));
        for path in gone.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.replace(&path, Rulebook::default());
            self.files.remove(&path);
        }
        for (path, (text, services)) in std::mem::take(&mut made) {
            let file = self.files.entry(path.clone()).or_default();
            (file.services, file.is_own) = (services, true);
            if file.text == text {
                continue;
            }
            match read_rules("triggers", &text) {
                Ok(read) => file.book = Rulebook::new(read.groups, EVERY),
                Err(problems) => warn!(%problems, "triggers cannot be watched"),
            }
            file.text = text;
        }
    }

    /// Follows which files specs name, and what is in them.
    async fn look(&mut self, reads_again: bool) {
        let mut wanted: BTreeMap<PathBuf, BTreeSet<ServiceName>> = BTreeMap::new();
        for (status, _) in self.handle.figures().services {
            for file in &status.rules {
                wanted.entry(file.clone()).or_default().insert(status.service.clone());
            }
        }
        let is_gone = |(path, file): &(&PathBuf, &File)| !file.is_own && !wanted.contains_key(*path);
        let gone: Vec<PathBuf> = self.files.iter().filter(is_gone).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.replace(&path, Rulebook::default());
            self.files.remove(&path);
        }
        for (path, services) in wanted {
            let is_new = !self.files.contains_key(&path);
            self.files.entry(path.clone()).or_default().services = services;
            if is_new || reads_again {
                self.load(&path).await;
            }
        }
    }

    /// Takes over a file that has changed; one that cannot be read leaves in force what was.
    async fn load(&mut self, path: &Path) {
        let (name, at) = (path.display().to_string(), path.to_path_buf());
        // A disk that hangs holds up nobody else.
        let found = tokio::task::spawn_blocking(move || text(&at)).await;
        let found = found.unwrap_or_else(|error| Err(error.to_string()));
        let Some(file) = self.files.get_mut(path) else { return };
        let read = found.and_then(|text| match text == file.text {
            true => Ok(None),
            false => match read_rules(&name, &text) {
                Ok(read) => Ok(Some((text, read.groups))),
                Err(problems) => Err(problems.to_string()),
            },
        });
        let failed = read.as_ref().err().cloned();
        if let Some(why) = failed.as_ref().filter(|why| file.failed.as_ref() != Some(*why)) {
            warn!(%why, "rules cannot be read; those before stay in force");
        }
        file.failed = failed;
        if let Ok(Some((text, groups))) = read {
            file.text = text;
            info!(file = %name, groups = groups.len(), "rules are evaluated");
            self.replace(path, Rulebook::new(groups, EVERY));
        }
    }

    /// Puts other rules in force; what fired by those before is over.
    fn replace(&mut self, path: &Path, book: Rulebook) {
        let now = self.now();
        let Some(file) = self.files.get_mut(path) else { return };
        let before = std::mem::replace(&mut file.book, book);
        let is_meant = |alert: &Alert| !file.is_own || is_about(alert, &file.services);
        let fired: Vec<Alert> =
            before.alerts().filter_map(|(_, alert)| told(path, alert, Some(now))).filter(is_meant).collect();
        let otherwise = only(&file.services);
        self.waiting.extend(fired.into_iter().map(|alert| (otherwise.clone(), alert)));
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().0 / 1_000).unwrap_or(i64::MAX)
    }

    /// Evaluates what is due, beside the controller's thread.
    async fn evaluate(&mut self) {
        let now = self.now();
        for (path, file) in &mut self.files {
            if file.book.is_empty() || file.book.due().is_some_and(|due| now < due) {
                continue;
            }
            let (mut book, series) = (std::mem::take(&mut file.book), self.series.clone());
            let evaluated = tokio::task::spawn_blocking(move || {
                let turn = book.evaluate(&mut &*series, now, &Limits::default());
                (book, turn)
            });
            let Ok((book, turn)) = evaluated.await else {
                // Its state is lost: it is read anew.
                file.text.clear();
                continue;
            };
            file.book = book;
            for (group, rule, why) in turn.failed {
                warn!(file = %path.display(), group, rule, why, "a rule cannot be evaluated");
            }
            let otherwise = if file.is_own { None } else { only(&file.services) };
            let told = turn.changes.iter().filter_map(|change| match change {
                Change::Became(alert) => told(path, alert, None),
                Change::Ended(alert) => told(path, alert, Some(now)),
            });
            let told = told.filter(|alert| !file.is_own || is_about(alert, &file.services));
            self.waiting.extend(told.map(|alert| (otherwise.clone(), alert)));
        }
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
    }

    /// Tells the controller; what it cannot take note of is told again.
    async fn tell(&mut self) {
        while let Some((otherwise, alert)) = self.waiting.front().cloned() {
            info!(alert = alert.name, over = alert.ended.is_some(), "a rule's alert");
            if let Err(error) = self.handle.alerts(vec![alert], otherwise).await {
                warn!(%error, "the alert is told again");
                return;
            }
            self.waiting.pop_front();
        }
    }
}

/// Whether an alert's labels name one of these services.
fn is_about(alert: &Alert, services: &BTreeSet<ServiceName>) -> bool {
    let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
    let is_it = |name: &ServiceName| name.service() == label("service") && name.environment() == label("environment");
    services.iter().any(is_it)
}

/// The service of a file that only one names.
fn only(services: &BTreeSet<ServiceName>) -> Option<ServiceName> {
    services.first().filter(|_| services.len() == 1).cloned()
}

/// A firing alert as the controller is told of it.
fn told(file: &Path, alert: &evenkeel_rules::Alert, ended: Option<i64>) -> Option<Alert> {
    let State::Firing { since, .. } = alert.state else { return None };
    let at = |milliseconds: i64| Timestamp(u64::try_from(milliseconds).unwrap_or(0).saturating_mul(1_000));
    let labels = alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let text = |name: &str| alert.annotations.get(name).filter(|text| !text.is_empty()).cloned();
    Some(Alert {
        key: AlertKey {
            group: file.display().to_string(),
            fingerprint: alert.labels.to_string(),
            starts_at: at(since),
        },
        name: alert.labels.get("alertname").to_owned(),
        action: Action::of_label(Some(alert.labels.get("action"))),
        ended: ended.map(at),
        labels,
        summary: text("summary").or_else(|| text("description")).unwrap_or_default(),
    })
}
