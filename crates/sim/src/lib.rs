//! The shipped controller in a world of virtual time, whose store, platform and proxy fail in every way they can.
//!
//! Start at [`run`]: one seed gives one world, always the same. The controller's loop is the real one; the adapters are
//! models in memory that hold every call against simple rules. Modules, in reading order:
//!
//! - `world`: what is true, whoever knows of it.
//! - `weather`: which faults a world has, and how often.
//! - `lives`: controllers that start, crash, are taken over from, and start again.
//! - `people`: who deploys and commands what; `wishes`: the specs of all strategies.
//! - [`coverage`](Coverage): what really happened, and how often.
//! - `calls`: how a call gets lost or late; `store`, `workloads` with `platform`, `proxy` with `trials`, `egress`,
//!   `clock`: the adapters.
//! - `rules`: the invariants.
//!
//! Known limit: an agent does not tell a new controller whom an earlier one has told to end, so a replica that ignores
//! SIGTERM and is ready no more can be adopted. Here such replicas end when the faults do.

mod calls;
mod clock;
mod coverage;
mod dice;
mod egress;
mod lives;
mod people;
mod platform;
mod proxy;
mod rules;
mod store;
mod trials;
mod weather;
mod wishes;
mod workloads;
mod world;

use std::sync::Arc;
use std::time::Duration;

pub use crate::coverage::{Coverage, Group};
use crate::lives::Lives;
use crate::rules::rest;
pub use crate::world::Telling;
use crate::world::Yard;

/// How often the world moves on.
const TICK: Duration = Duration::from_millis(100);
/// Ticks without faults after which everything must be at rest: some steps with their limits, and the longest wait
/// between two restarts of a replica.
const CALM: u32 = 4_500;
/// Ticks in which nothing must change any more.
const REST: u32 = 25;
/// Ticks in which everything must be stopped: drain, grace, and some to be told.
const DOWN: u32 = 150;

/// What became of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Rollouts that were begun in it.
    pub rollouts: u64,
    /// How long it lasted, by its own clock.
    pub lasted: Duration,
    /// How often what happened.
    pub coverage: Coverage,
    /// Everything that happened, a line each; nothing for whom nobody listens to.
    pub history: Vec<String>,
    /// The first rule that was broken.
    pub violation: Option<String>,
}

/// Lets the world of a seed run to its end.
///
/// # Panics
/// Within another async runtime.
#[must_use]
pub fn run(seed: u64, telling: Telling) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime with nothing but time needs nothing of the system");
    runtime.block_on(live(seed, telling))
}

async fn live(seed: u64, telling: Telling) -> Ended {
    let yard = Arc::new(Yard::new(seed, telling));
    let mut lives = Lives::new(yard.clone());
    let (mut rested, wild) = (0, yard.with(|state| state.wild_ticks));
    for tick in 0..wild + CALM {
        if tick == wild {
            yard.with(|state| state.calm());
        }
        tick_once(&yard, &mut lives).await;
        if yard.with(|state| state.violation.is_some()) {
            break;
        }
        let rests = tick > wild && lives.is_one() && yard.with(|state| rest::unrest(state)).is_none();
        rested = if rests { rested + 1 } else { 0 };
        if rested >= REST {
            break;
        }
    }
    yard.with(|state| {
        if let Some(unrest) = rest::unrest(state).filter(|_| state.violation.is_none()) {
            state.broken(format!("no rest: {unrest}"));
        }
    });
    go_down(&yard, &mut lives).await;
    lives.end();
    // Running every rollout once more takes longer than the world did: some worlds are enough.
    yard.with(|state| {
        if seed.is_multiple_of(8)
            && let Some(differs) = rules::records::replayed(state).filter(|_| state.violation.is_none())
        {
            state.broken(differs);
        }
    });
    yard.with(|state| Ended {
        rollouts: state.book.rollouts(),
        lasted: state.now.since(world::BEGINNING),
        coverage: std::mem::take(&mut state.coverage),
        history: std::mem::take(&mut state.history),
        violation: state.violation.take(),
    })
}

async fn tick_once(yard: &Arc<Yard>, lives: &mut Lives) {
    tokio::time::sleep(TICK).await;
    lives.tick().await;
    let living = lives.living();
    yard.with(|state| {
        state.tick();
        rest::goes_back_without_the_store(state);
        rest::is_not_overdue(state);
        rest::ends_when_told(state, &living);
    });
    people::act(yard);
}

/// Everything is stopped as it should be, and the controller ends.
async fn go_down(yard: &Arc<Yard>, lives: &mut Lives) {
    if yard.with(|state| state.violation.is_some()) {
        return;
    }
    // Nothing is stopped while nobody knows who is routed to.
    yard.with(|state| state.proxy.takes_none_until = state.now);
    let (since, mut told) = (yard.now(), None);
    for _ in 0..DOWN {
        let newest = yard.with(|state| {
            state.going_down = true;
            state.handles.last_key_value().map(|(life, handle)| (*life, handle.clone()))
        });
        // One that takes over at the last moment has to be told as well.
        if let Some((life, handle)) = newest.filter(|(life, _)| told != Some(*life)) {
            told = Some(life);
            tokio::spawn(async move { handle.down().await });
        }
        tick_once(yard, lives).await;
        if lives.is_down {
            break;
        }
    }
    yard.with(|state| match rest::leftovers(state, since) {
        Some(left) => state.broken(left),
        None if !lives.is_down => state.broken("the controller does not end when it is told to"),
        None => {}
    });
}
