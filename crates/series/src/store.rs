//! Many series, bounded in number, bytes and age.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::labels::{Labels, NAME};
use crate::matcher::Matcher;
use crate::packed::Packed;
use crate::select::{STALE, Sample, Select, Series, TooMuch, is_stale};

/// The label that says whose a series is.
pub const SERVICE: &str = "service";

/// When bytes run short, the oldest are forgotten in steps of this.
const STEP_MS: i64 = 5 * 60 * 1_000;
/// What a series takes beside its samples and texts: its place in the maps and its labels' pointers, about.
const SERIES_BYTES: usize = 128;
const LABEL_BYTES: usize = 2 * size_of::<Arc<str>>();

/// What a store holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How far back it remembers; default 2 h.
    pub age: Duration,
    /// Series; default 200 000.
    pub series: usize,
    /// Series of one service, so that one that grows without end leaves the others their place; default 5 000.
    pub series_per_service: usize,
    /// Bytes of all samples and labels, about; when they run short the oldest samples are forgotten first. Default 128 MiB.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { age: Duration::from_secs(7_200), series: 200_000, series_per_service: 5_000, bytes: 128 << 20 }
    }
}

/// Why a series that is new was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// There are as many as there may be.
    #[error("there are {0} series already, which is the most that are kept")]
    Series(usize),
    /// Its service has as many as it may have.
    #[error("`{service}` has {max} series already, which is the most that are kept of one service")]
    Service {
        /// The service.
        service: String,
        /// The most of one service.
        max: usize,
    },
}

/// The series of one name and one service.
type Group = BTreeMap<Labels, Packed>;

/// Series in memory, as far back as its limits allow.
#[derive(Debug, Default)]
pub struct Store {
    limits: Limits,
    /// By name and service, since nearly every query names both.
    families: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Group>>,
    /// Series of each service.
    per_service: BTreeMap<Arc<str>, usize>,
    /// Each text once, however many series have it.
    texts: BTreeSet<Arc<str>>,
    series: usize,
    bytes: usize,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds a sample to a series. One that is not later than the newest of its series is left out.
    ///
    /// # Errors
    /// [`Full`] when the series is new and there is no place for it.
    pub fn push(&mut self, labels: &Labels, sample: Sample) -> Result<(), Full> {
        if let Some(known) = self.find(labels) {
            let grown = known.push(sample).unwrap_or(0);
            self.bytes += grown;
        } else if !is_stale(sample.value) {
            self.begin(labels, sample)?;
        }
        Ok(())
    }

    /// Marks the end of a series at a moment, unless it has ended already or is not known.
    pub fn end(&mut self, labels: &Labels, at: i64) {
        if let Some(known) = self.find(labels)
            && known.last().is_some_and(|last| !is_stale(last.value))
        {
            let grown = known.push(Sample { at, value: STALE }).unwrap_or(0);
            self.bytes += grown;
        }
    }

    /// Forgets what is too old at `now` (milliseconds since 1970 began), and more when bytes run short.
    ///
    /// To be called once in a while; until then the store may hold more than its limits say.
    pub fn forget(&mut self, now: i64) {
        let mut horizon = now.saturating_sub(i64::try_from(self.limits.age.as_millis()).unwrap_or(i64::MAX));
        self.forget_before(horizon);
        while self.bytes > self.limits.bytes && horizon < now {
            horizon = horizon.saturating_add(STEP_MS).min(now);
            self.forget_before(horizon);
        }
    }

    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series == 0
    }

    /// The bytes that samples and labels take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest sample was taken, in milliseconds since 1970 began.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.all().filter_map(|(_, samples)| samples.first_at()).min()
    }

    fn all(&self) -> impl Iterator<Item = (&Labels, &Packed)> {
        self.families.values().flat_map(BTreeMap::values).flatten()
    }

    fn find(&mut self, labels: &Labels) -> Option<&mut Packed> {
        self.families.get_mut(labels.name())?.get_mut(labels.get(SERVICE))?.get_mut(labels)
    }

    fn begin(&mut self, labels: &Labels, sample: Sample) -> Result<(), Full> {
        let Limits { series, series_per_service, .. } = self.limits;
        if self.series >= series {
            return Err(Full::Series(series));
        }
        let of_service = self.per_service.get(labels.get(SERVICE)).copied().unwrap_or(0);
        if of_service >= series_per_service {
            return Err(Full::Service { service: labels.get(SERVICE).to_owned(), max: series_per_service });
        }
        let (texts, bytes) = (&mut self.texts, &mut self.bytes);
        let mut share = |text: &Arc<str>| match texts.get(text) {
            Some(known) => known.clone(),
            None => {
                *bytes += text_bytes(text);
                texts.insert(text.clone());
                text.clone()
            }
        };
        let labels = labels.shared(&mut share);
        let (name, service) = (share(&labels.name().into()), share(&labels.get(SERVICE).into()));
        let mut samples = Packed::default();
        self.bytes += series_bytes(&labels) + samples.push(sample).unwrap_or(0);
        self.series += 1;
        *self.per_service.entry(service.clone()).or_default() += 1;
        self.families.entry(name).or_default().entry(service).or_default().insert(labels, samples);
        Ok(())
    }

    fn forget_before(&mut self, horizon: i64) {
        let (mut freed, mut gone) = (0, 0);
        for (service, series) in self.families.values_mut().flatten() {
            series.retain(|labels, samples| {
                freed += samples.forget(horizon);
                if samples.is_empty() {
                    freed += series_bytes(labels);
                    gone += 1;
                    self.per_service.entry(service.clone()).and_modify(|count| *count -= 1);
                }
                !samples.is_empty()
            });
        }
        if gone > 0 {
            self.families.values_mut().for_each(|services| services.retain(|_, series| !series.is_empty()));
            self.families.retain(|_, services| !services.is_empty());
            self.per_service.retain(|_, count| *count > 0);
            // Whatever nobody else holds. A label's text may also be held by who pushes it: it goes the next time.
            self.texts.retain(|text| {
                let is_used = Arc::strong_count(text) > 1;
                freed += if is_used { 0 } else { text_bytes(text) };
                is_used
            });
        }
        self.bytes -= freed;
        self.series -= gone;
    }
}

fn text_bytes(text: &str) -> usize {
    // The text, its two counts, and its place in the set.
    text.len() + 2 * size_of::<usize>() + 2 * size_of::<Arc<str>>()
}

fn series_bytes(labels: &Labels) -> usize {
    SERIES_BYTES + labels.len() * LABEL_BYTES
}

impl Select for Store {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64, samples_max: usize) -> Result<Vec<Series>, TooMuch> {
        let exact = |label: &str| matchers.iter().filter(move |m| m.name() == label).find_map(Matcher::exact);
        let (name, service) = (exact(NAME), exact(SERVICE));
        let mut found = Vec::new();
        let mut left = samples_max;
        let families = one_or_all(&self.families, name).flat_map(|services| one_or_all(services, service)).flatten();
        for (labels, packed) in families {
            if !matchers.iter().all(|matcher| matcher.matches(labels)) {
                continue;
            }
            let samples: Vec<Sample> = packed.samples(from, to).take(left + 1).collect();
            left = left.checked_sub(samples.len()).ok_or(TooMuch { max: samples_max })?;
            if !samples.is_empty() {
                found.push(Series { labels: labels.clone(), samples });
            }
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }
}

/// The store is held only while samples are copied, not while a query is evaluated.
impl Select for RwLock<Store> {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64, samples_max: usize) -> Result<Vec<Series>, TooMuch> {
        self.read().unwrap_or_else(PoisonError::into_inner).select(matchers, from, to, samples_max)
    }
}

/// The value of one key, or all values.
fn one_or_all<'a, V>(map: &'a BTreeMap<Arc<str>, V>, key: Option<&str>) -> impl Iterator<Item = &'a V> {
    let one = key.map(|key| map.get(key));
    let all = key.is_none().then(|| map.values());
    one.into_iter().flatten().chain(all.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Relation;

    fn labels(name: &str, service: &str, status: &str) -> Labels {
        Labels::new([(NAME, name), (SERVICE, service), ("status", status)])
    }

    fn at(at: i64, value: f64) -> Sample {
        Sample { at, value }
    }

    /// What is selected, in words.
    fn selected(store: &Store, matchers: &[Matcher], from: i64, to: i64) -> Vec<String> {
        let shown = |series: Series| {
            let samples: Vec<String> = series.samples.iter().map(|s| format!("{}:{}", s.at, s.value)).collect();
            format!("{} {}", series.labels, samples.join(" "))
        };
        store.select(matchers, from, to, 1_000).unwrap().into_iter().map(shown).collect()
    }

    #[test]
    fn series_are_found_by_their_labels_and_by_time() {
        let mut store = Store::default();
        for (name, service, status) in
            [("requests", "web", "200"), ("requests", "web", "503"), ("requests", "api", "200"), ("up", "web", "")]
        {
            for n in 0..4 {
                store.push(&labels(name, service, status), at(n * 10, n as f64)).unwrap();
            }
        }
        let like = |name, value| Matcher::new(name, Relation::Like, value).unwrap();
        let web = [Matcher::equal(NAME, "requests"), Matcher::equal(SERVICE, "web")];
        assert_eq!(
            selected(&store, &web, 10, 20),
            [r#"requests{service="web",status="200"} 10:1 20:2"#, r#"requests{service="web",status="503"} 10:1 20:2"#]
        );
        let failed = [Matcher::equal(NAME, "requests"), like("status", "5..")];
        assert_eq!(selected(&store, &failed, 30, 99), [r#"requests{service="web",status="503"} 30:3"#]);
        assert_eq!(selected(&store, &[like(NAME, "u.*")], 0, 5), [r#"up{service="web"} 0:0"#]);
        assert_eq!(selected(&store, &[like(SERVICE, "api|nobody")], 0, 5).len(), 1);
        assert_eq!(selected(&store, &web, 40, 50), [""; 0]);
    }

    #[test]
    fn an_end_is_marked_once_and_a_series_may_begin_again() {
        let (mut store, up) = (Store::default(), labels("up", "web", ""));
        store.end(&up, 5);
        store.push(&up, at(10, 1.0)).unwrap();
        store.end(&up, 20);
        store.end(&up, 30);
        store.push(&up, at(40, 1.0)).unwrap();
        let series = store.select(&[], 0, 100, 10).unwrap().remove(0);
        let ends: Vec<(i64, bool)> = series.samples.iter().map(|s| (s.at, is_stale(s.value))).collect();
        assert_eq!(ends, [(10, false), (20, true), (40, false)]);
    }

    #[test]
    fn a_reader_says_how_much_it_wants_to_hold() {
        let mut store = Store::default();
        for n in 0..10 {
            store.push(&labels("up", "web", "a"), at(n, 1.0)).unwrap();
            store.push(&labels("up", "web", "b"), at(n, 1.0)).unwrap();
        }
        assert_eq!(store.select(&[], 0, 9, 19), Err(TooMuch { max: 19 }));
        assert_eq!(store.select(&[], 0, 9, 20).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn one_service_cannot_take_the_place_of_the_others() {
        let mut store = Store::new(Limits { series: 5, series_per_service: 3, ..Limits::default() });
        let mut push = |service, n: i64| store.push(&labels("up", service, &n.to_string()), at(0, 1.0));
        let pushed: Vec<_> = (0..5).map(|n| push("web", n).map_err(|full| full.to_string())).collect();
        let full = Err("`web` has 3 series already, which is the most that are kept of one service".to_owned());
        assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), full.clone(), full]);
        assert_eq!(push("web", 1), Ok(()), "one that is known goes on");
        assert_eq!((push("api", 0), push("api", 1), push("api", 2)), (Ok(()), Ok(()), Err(Full::Series(5))));
    }

    #[test]
    fn what_is_old_is_forgotten_with_its_labels_and_leaves_place() {
        let mut store = Store::new(Limits { age: Duration::from_secs(60), series: 2, ..Limits::default() });
        store.push(&labels("up", "web", "old"), at(0, 1.0)).unwrap();
        for n in 0..400 {
            store.push(&labels("up", "web", "new"), at(n * 1_000, 1.0)).unwrap();
        }
        store.forget(400_000);
        assert_eq!((store.len(), store.oldest()), (1, Some(240_000)));
        store.push(&labels("up", "web", "next"), at(400_000, 1.0)).unwrap();
        store.forget(i64::MAX);
        assert_eq!((store.len(), store.bytes(), store.texts.len(), store.per_service.len()), (0, 0, 0, 0));
    }

    #[test]
    fn when_bytes_run_short_the_oldest_go_first_and_the_newest_stay() {
        let mut store = Store::new(Limits { bytes: 200_000, ..Limits::default() });
        for minute in 0..60 {
            for series in 0..10 {
                for n in 0..60 {
                    let at = at((minute * 60 + n) * 1_000, f64::from(series) / 3.0 * n as f64);
                    store.push(&labels("up", "web", &series.to_string()), at).unwrap();
                }
            }
            store.forget((minute * 60 + 59) * 1_000);
            assert!(store.bytes() <= 200_000, "{}", store.bytes());
        }
        assert_eq!(store.len(), 10);
        let newest = store.select(&[], 3_599_000, 3_599_000, 100).unwrap();
        assert_eq!(newest.len(), 10);
    }
}
