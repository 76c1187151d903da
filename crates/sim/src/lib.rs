//! The shipped controller in a world of virtual time, whose store, platform and proxy fail in every way they can.
//!
//! Start at [`run`]: one seed gives one world, always the same. The controller's loop is the real one; the adapters are
//! models in memory that hold every call against simple rules. Modules, in reading order:
//!
//! - `world`: what is true, whoever knows of it.
//! - `weather`: which faults a world has, and how often.
//! - `lives`: controllers that start, crash, are taken over from, and start again.
//! - `people`: who deploys and commands what.
//! - `calls`: how a call gets lost or late; `store`, `workloads` with `platform`, `proxy`, `clock`: the adapters.
//! - `rules`: the invariants.
//!
//! Known limit: an agent does not tell a new controller whom an earlier one has told to end, so a replica that ignores
//! SIGTERM and is ready no more can be adopted. Here such replicas end when the faults do.

mod calls;
mod clock;
mod dice;
mod lives;
mod people;
mod platform;
mod proxy;
mod rules;
mod store;
mod weather;
mod workloads;
mod world;

use std::sync::Arc;
use std::time::Duration;

use crate::lives::Lives;
use crate::rules::rest;
use crate::world::Yard;

/// How often the world moves on.
const TICK: Duration = Duration::from_millis(100);
/// Ticks with faults.
const WILD: u32 = 450;
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
    /// Everything that happened, a line each.
    pub history: Vec<String>,
    /// The first rule that was broken.
    pub violation: Option<String>,
}

/// Lets the world of a seed run to its end; `tells` prints what happens while it does.
///
/// # Panics
/// Within another async runtime.
#[must_use]
pub fn run(seed: u64, tells: bool) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime with nothing but time needs nothing of the system");
    runtime.block_on(live(seed, tells))
}

async fn live(seed: u64, tells: bool) -> Ended {
    let yard = Arc::new(Yard::new(seed, tells));
    let mut lives = Lives::new(yard.clone());
    let mut rested = 0;
    for tick in 0..WILD + CALM {
        if tick == WILD {
            yard.with(|state| state.calm());
        }
        tick_once(&yard, &mut lives).await;
        if yard.with(|state| state.violation.is_some()) {
            break;
        }
        let rests = tick > WILD && lives.is_one() && yard.with(|state| rest::unrest(state)).is_none();
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
        history: std::mem::take(&mut state.history),
        violation: state.violation.take(),
    })
}

async fn tick_once(yard: &Arc<Yard>, lives: &mut Lives) {
    tokio::time::sleep(TICK).await;
    lives.tick().await;
    yard.with(|state| {
        state.tick();
        rest::goes_back_without_the_store(state);
        rest::is_not_overdue(state);
    });
    people::act(yard);
}

/// Everything is stopped as it should be, and the controller ends.
async fn go_down(yard: &Arc<Yard>, lives: &mut Lives) {
    if yard.with(|state| state.violation.is_some()) {
        return;
    }
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
