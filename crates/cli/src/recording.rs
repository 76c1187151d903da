//! What is written down of a rollout: from the running controller, or from the store while none runs.

use evenkeel_core::Service;
use evenkeel_core::ids::{RolloutId, ServiceName};
use evenkeel_core::ports::{Recorded, Store, StoreError};
use evenkeel_core::record::Record;
use evenkeel_core::replay;
use evenkeel_store::{Address, SqlStore};

use crate::choice;
use crate::client::Client;
use crate::exit::Failure;
use crate::place::Place;

/// Events or records read at once.
const PAGE: u32 = 1_000;

/// Everything that is written down of one rollout.
#[derive(Debug)]
pub(crate) struct Recording {
    /// The service before the first event that is kept, and the number of events before that.
    before: (u64, Service),
    pub(crate) events: Vec<Recorded>,
    pub(crate) records: Vec<Record>,
    pub(crate) rollout: RolloutId,
    /// The service as it is now.
    pub(crate) service: Service,
}

impl Recording {
    /// As the core wants it.
    pub(crate) fn as_core(&self) -> replay::Recording<'_> {
        let before = (self.before.0, &self.before.1);
        replay::Recording { before, events: &self.events, records: &self.records, rollout: self.rollout }
    }
}

/// Which rollout is meant: `web 3`, `3`, `web`, or nothing at all.
#[derive(Debug, Default)]
pub(crate) struct Which {
    service: Option<String>,
    rollout: Option<RolloutId>,
}

impl Which {
    /// Reads what was typed.
    ///
    /// # Errors
    /// The second word is no number.
    pub(crate) fn of(words: &[String]) -> Result<Self, Failure> {
        let number = |word: &String| word.strip_prefix('#').unwrap_or(word).parse().ok().map(RolloutId);
        match words {
            [] => Ok(Self::default()),
            [word] => match number(word) {
                rollout @ Some(_) => Ok(Self { service: None, rollout }),
                None => Ok(Self { service: Some(word.clone()), rollout: None }),
            },
            [service, word, ..] => {
                let no = || Failure::Usage(format!("`{word}` is no rollout: name it by its number, such as 3"));
                Ok(Self { service: Some(service.clone()), rollout: Some(number(word).ok_or_else(no)?) })
            }
        }
    }
}

/// Where recordings are read.
enum Source {
    Controller(Client),
    Store(SqlStore),
}

/// Reads what is written down of a rollout; of the last one of the service unless another is named.
///
/// # Errors
/// There is no such service or rollout, or neither controller nor store can be read.
pub(crate) async fn read(place: Place, which: &Which) -> Result<Recording, Failure> {
    let client = Client::new(place.clone());
    let (source, service) = match client.service(which.service.as_deref()).await {
        Ok(status) => (Source::Controller(client), status.service),
        Err(not_running @ Failure::NotRunning(_)) => {
            let chosen = choice::chosen(&place)?;
            // What is not there is not made.
            if matches!(&chosen.address, Address::File(path) if !path.exists()) {
                return Err(not_running);
            }
            let store = SqlStore::open(&chosen.address, chosen.site(&place, "")).await.map_err(unread)?;
            let service = one_of(&store, which.service.as_deref()).await?;
            (Source::Store(store), service)
        }
        Err(failure) => return Err(failure),
    };
    source.recording(service, which.rollout).await
}

async fn one_of(store: &SqlStore, named: Option<&str>) -> Result<ServiceName, Failure> {
    let names: Vec<ServiceName> =
        store.load().await.map_err(unread)?.into_iter().map(|stored| stored.service).collect();
    let told = || names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (named, names.as_slice()) {
        (Some(named), known) => known
            .iter()
            .find(|name| name.as_str() == named)
            .cloned()
            .ok_or_else(|| Failure::Usage(format!("there is no service `{named}`; there is {}", told()))),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Failure::Usage("nothing was deployed yet\n  next: evenkeel deploy --version 1.0.0".into())),
        (None, _) => Err(Failure::Usage(format!("which service? There are {}", told()))),
    }
}

impl Source {
    async fn recording(&self, name: ServiceName, wanted: Option<RolloutId>) -> Result<Recording, Failure> {
        let beginning = self.beginning(&name).await?;
        let before = beginning.unwrap_or_else(|| (0, Service::new(name.clone())));
        let mut events: Vec<Recorded> = Vec::new();
        loop {
            let from = events.last().map_or(before.0, |event| event.version) + 1;
            let page = self.events(&name, from).await?;
            let is_last = page.len() < PAGE as usize;
            events.extend(page);
            if is_last {
                break;
            }
        }
        let next = |service: Service, recorded: &Recorded| match service.step(&recorded.event, recorded.at) {
            Ok(Some(step)) => step.next,
            Ok(None) | Err(_) => service,
        };
        let service = events.iter().fold(before.1.clone(), next);
        let last = service.rollouts().last().map(|rollout| rollout.id);
        let rollout = wanted.or(last).ok_or_else(|| Failure::Usage(format!("{name} had no rollout yet")))?;
        if !service.rollouts().any(|known| known.id == rollout) {
            let why = format!("{name} has no rollout {rollout}, or it is not remembered any more");
            return Err(Failure::Usage(format!("{why}\n  next: evenkeel history {name}")));
        }
        let mut records: Vec<Record> = Vec::new();
        loop {
            let from = records.last().map_or(0, |record| record.sequence + 1);
            let page = self.records(&name, rollout, from).await?;
            let is_last = page.len() < PAGE as usize;
            records.extend(page);
            if is_last {
                return Ok(Recording { before, events, records, rollout, service });
            }
        }
    }

    async fn beginning(&self, name: &ServiceName) -> Result<Option<(u64, Service)>, Failure> {
        match self {
            Self::Controller(client) => {
                let beginning = client.beginning(name).await?;
                Ok(beginning.service.map(|service| (beginning.version, *service)))
            }
            Self::Store(store) => store.beginning(name).await.map_err(unread),
        }
    }

    async fn events(&self, name: &ServiceName, from: u64) -> Result<Vec<Recorded>, Failure> {
        match self {
            Self::Controller(client) => client.recorded(name, from, PAGE).await,
            Self::Store(store) => store.events(name, from, PAGE).await.map_err(unread),
        }
    }

    async fn records(&self, name: &ServiceName, rollout: RolloutId, from: u64) -> Result<Vec<Record>, Failure> {
        match self {
            Self::Controller(client) => client.records(name, rollout, from, PAGE).await,
            Self::Store(store) => {
                let stored = store.ticks(name, rollout, from, PAGE).await.map_err(unread)?;
                let bad = |why| Failure::Internal(format!("a record of {name} {rollout} cannot be read: {why}"));
                stored.iter().map(|record| Record::read(record).map_err(bad)).collect()
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn unread(error: StoreError) -> Failure {
    Failure::Internal(error.to_string())
}
