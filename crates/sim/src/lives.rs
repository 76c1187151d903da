//! Controllers that start, crash, are taken over from, and start again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_analysis::Value;
use evenkeel_controller::{Options, StartError, start};
use evenkeel_core::ids::Timestamp;
use evenkeel_core::measure::{Measure, SourceError};
use evenkeel_core::ports::{CheckedFor, Gauge, PlatformError};
use tokio::task::JoinHandle;

use crate::calls::Caller;
use crate::clock::SimClock;
use crate::weather::Fault;
use crate::workloads::SimWorkloads;
use crate::world::{Life, Yard};

/// Measurements of a million that say that a release is bad.
const MEASURED_BADLY: u32 = 40_000;

/// Measures what checks ask for: well mostly, badly now and then, and some sources are silent or fail.
struct SimGauge(Caller);

impl Gauge for SimGauge {
    async fn measure(&self, measure: &Measure, _: &CheckedFor, _: Timestamp) -> Result<Value, SourceError> {
        let Self(caller) = self;
        caller.point().await;
        let (is_silent, takes) =
            caller.yard.with(|state| (state.happens(Fault::SourceSilent), state.dice.millis(1, 200)));
        tokio::time::sleep(if is_silent { measure.timeout } else { takes }).await;
        caller.point().await;
        if is_silent {
            return Err(SourceError::TimedOut { within: measure.timeout });
        }
        caller.yard.with(|state| match state.happens(Fault::SourceFails) {
            true => Err(SourceError::Failed { what: "the source answered 502".to_owned() }),
            false => Ok(Value::Number(if state.dice.chance(MEASURED_BADLY) { 0.0 } else { 1.0 })),
        })
    }
}

/// How a controller ended.
enum Ended {
    /// It could not start.
    NotStarted(StartError),
    /// It was told to go down, or another one took over.
    Ran(Result<(), PlatformError>),
}

/// The controllers of a world.
pub(crate) struct Lives {
    yard: Arc<Yard>,
    count: Life,
    tasks: BTreeMap<Life, JoinHandle<Ended>>,
    next_at: Timestamp,
    /// All was stopped as asked.
    pub(crate) is_down: bool,
}

impl Lives {
    pub(crate) fn new(yard: Arc<Yard>) -> Self {
        let next_at = yard.now();
        Self { yard, count: 0, tasks: BTreeMap::new(), next_at, is_down: false }
    }

    /// Whether there is one controller, running or starting.
    pub(crate) fn is_one(&self) -> bool {
        self.tasks.len() == 1
    }

    /// Those that run, or start.
    pub(crate) fn living(&self) -> Vec<Life> {
        self.tasks.iter().filter(|(_, task)| !task.is_finished()).map(|(life, _)| *life).collect()
    }

    /// A tenth of a second: buries the dead, and has a new one start when it is time.
    pub(crate) async fn tick(&mut self) {
        self.strike();
        self.bury_the_dead().await;
        let takes_over = self.tasks.len() == 1 && self.yard.with(|state| state.happens(Fault::Usurper));
        let is_due = self.tasks.is_empty() && self.yard.now() >= self.next_at && !self.is_down;
        if takes_over || is_due {
            self.begin();
        }
    }

    /// Kills one wherever it is, or has it stand still.
    fn strike(&self) {
        let lives: Vec<Life> = self.tasks.keys().copied().collect();
        self.yard.with(|state| {
            if !lives.is_empty() && state.happens(Fault::Killed) {
                let life = *state.dice.pick(&lives);
                state.tell(|| format!("controller {life} is killed"));
                state.bury(life);
            }
            if !lives.is_empty() && state.happens(Fault::Stalled) {
                let life = *state.dice.pick(&lives);
                state.stall(life);
            }
        });
    }

    async fn bury_the_dead(&mut self) {
        let lives: Vec<Life> = self.tasks.keys().copied().collect();
        for life in lives {
            let is_dead = self.yard.with(|state| state.is_dead(life));
            let is_over = self.tasks.get(&life).is_some_and(JoinHandle::is_finished);
            let Some(task) = self.tasks.remove(&life) else { continue };
            if is_over {
                self.ended(life, task.await);
            } else if is_dead {
                task.abort();
            } else {
                self.tasks.insert(life, task);
                continue;
            }
            let wait = self.yard.with(|state| {
                state.bury(life);
                let most = if state.wild { 4_000 } else { 300 };
                state.dice.millis(50, most)
            });
            self.next_at = self.yard.now().after(wait);
        }
    }

    fn ended(&mut self, life: Life, how: Result<Ended, tokio::task::JoinError>) {
        let is_newest = life == self.count;
        self.yard.with(|state| match how {
            Ok(Ended::NotStarted(error)) => state.tell(|| format!("controller {life} cannot start: {error}")),
            Ok(Ended::Ran(Ok(()))) if state.going_down => self.is_down = true,
            Ok(Ended::Ran(Ok(()))) => state.broken(format!("controller {life} ends without being told to")),
            Ok(Ended::Ran(Err(error))) => {
                state.tell(|| format!("controller {life} ends: {error}"));
                if is_newest {
                    state.broken(format!("controller {life} ends though nobody has taken over: {error}"));
                }
            }
            Err(error) if error.is_panic() => state.broken(format!("controller {life} panicked: {error}")),
            Err(_) => {}
        });
    }

    fn begin(&mut self) {
        self.count += 1;
        let life = self.count;
        let yard = self.yard.clone();
        let alone = self.tasks.is_empty();
        yard.with(|state| {
            if alone && state.happens(Fault::ClockJump) {
                state.clock_off = i64::try_from(state.dice.between(0, 4_000_000_000)).unwrap_or(0) - 2_000_000_000;
                let off = state.clock_off / 1_000_000;
                state.tell(|| format!("the machine's clock is off by {off} s"));
            }
            state.tell(|| format!("controller {life} starts"));
        });
        self.tasks.insert(life, tokio::spawn(live(yard, life)));
    }

    /// Ends them all at once.
    pub(crate) fn end(&mut self) {
        for (life, task) in std::mem::take(&mut self.tasks) {
            self.yard.with(|state| state.bury(life));
            task.abort();
        }
    }
}

async fn live(yard: Arc<Yard>, life: Life) -> Ended {
    let caller = Caller { yard: yard.clone(), life };
    let options = Options {
        store: caller.clone(),
        workloads: SimWorkloads::new(caller.clone()),
        clock: SimClock::new(yard.clone()),
        gauge: SimGauge(caller.clone()),
        traffic: caller,
        after: None,
    };
    let started = tokio::time::timeout(Duration::from_secs(60), start(options)).await;
    match started {
        Ok(Ok((handle, run))) => {
            yard.with(|state| {
                if !state.is_dead(life) {
                    state.handles.insert(life, handle);
                    state.lives_changed = state.lives_changed.max(state.now);
                }
            });
            Ended::Ran(run.await)
        }
        Ok(Err(error)) => Ended::NotStarted(error),
        Err(_) => std::future::pending().await,
    }
}
