//! Seeded worlds with faults: a service and its fleet against a model platform and a model proxy.
//!
//! One seed gives one world, always the same. `EVENKEEL_WORLDS=20000 cargo test -p evenkeel-core worlds` runs more of
//! them, `EVENKEEL_WORLD=17` runs just that one and tells what happens in it.

mod controller;
mod dice;
mod platform;
mod proxy;
mod rules;

use crate::world::controller::Controller;
use crate::world::dice::Dice;
use crate::world::platform::Platform;
use crate::world::proxy::Proxy;

/// Ticks with faults; each is 0.1 to 1.5 s long.
const WILD: u32 = 350;
/// Seconds without faults after which everything must be at rest: a few steps, their limits, and the longest back-off.
const CALM: u32 = 900;

struct World {
    dice: Dice,
    now: evenkeel_core::ids::Timestamp,
    controller: Controller,
    platform: Platform,
    proxy: Proxy,
    /// Whether faults happen.
    wild: bool,
    tells: bool,
}

impl World {
    fn new(seed: u64, tells: bool) -> Self {
        Self {
            dice: Dice::new(seed),
            now: crate::fixtures::at(1_000),
            controller: Controller::new(),
            platform: Platform::default(),
            proxy: Proxy::default(),
            wild: true,
            tells,
        }
    }

    fn live(mut self) {
        for _ in 0..WILD {
            self.now = self.now.after(std::time::Duration::from_millis(self.dice.between(100, 1_500)));
            self.tick();
        }
        self.wild = false;
        self.platform.recover();
        for second in 0..CALM {
            self.now = self.now.after(std::time::Duration::from_secs(1));
            self.tick();
            if second > 60 && rules::unrest(&self).is_none() {
                break;
            }
        }
        self.controller.check_replay();
        rules::all_is_at_rest(&self);
    }

    fn tick(&mut self) {
        self.platform.tick(self.now, self.wild, &mut self.dice);
        self.proxy.tick(self.now, self.wild, &self.platform, &mut self.dice);
        controller::tick(self);
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>8.1}s {}", self.now.0 as f64 / 1e6 - 1_000.0, what());
        }
    }
}

fn run(seed: u64, tells: bool) -> Result<(), String> {
    let world = std::panic::catch_unwind(|| World::new(seed, tells).live());
    world.map_err(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
        format!("EVENKEEL_WORLD={seed}: {}", text.unwrap_or("it broke"))
    })
}

#[test]
fn no_rule_breaks_in_seeded_worlds_with_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("EVENKEEL_WORLD") {
        run(seed, true).unwrap();
        return;
    }
    let worlds = number("EVENKEEL_WORLDS").unwrap_or(200);
    let broken: Vec<String> = (0..worlds).filter_map(|seed| run(seed, false).err()).take(5).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 10, failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_rule_breaks_in_any_world(seed: u64) {
        run(seed, false).map_err(proptest::test_runner::TestCaseError::fail)?;
    }
}
