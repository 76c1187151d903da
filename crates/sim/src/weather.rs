//! Which faults a world has, and how often.
//!
//! Each world has some kinds of faults and is spared the others: worlds with few of them get far into a rollout, and
//! worlds with one often show what that one does.

use crate::dice::Dice;

/// Chances in a million; those without another word are per tenth of a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// The controller dies; per call of an adapter, before or after it.
    pub(crate) crash: u32,
    /// The controller dies wherever it is.
    pub(crate) killed: u32,
    /// A second controller starts while the first one runs.
    pub(crate) usurper: u32,
    /// The machine's clock is another one at the next start of a controller; per start.
    pub(crate) clock_jump: u32,
    /// The agent does not answer for a while.
    pub(crate) agent_silent: u32,
    /// The proxy hangs for a while, and goes on.
    pub(crate) proxy_silent: u32,
    /// The proxy dies and is started again.
    pub(crate) proxy_dies: u32,
    /// What a restarted proxy finds on disk is not its last table; per restart.
    pub(crate) proxy_old: u32,
    /// The store fails for a while.
    pub(crate) store_down: u32,
    /// One answer of the store is lost; per append.
    pub(crate) store_lost: u32,
    /// The store takes its time; per append.
    pub(crate) store_slow: u32,
    /// A call to agent or proxy is carried out late; per call.
    pub(crate) late: u32,
    /// The answer of agent or proxy is lost; per call.
    pub(crate) lost: u32,
    /// Agent or proxy do not take the call; per call.
    pub(crate) failed: u32,
    /// A probe's answer is wrong; per probe.
    pub(crate) probe_wrong: u32,
    /// A replica dies, per replica.
    pub(crate) dies: u32,
    /// A replica hangs for good, per replica.
    pub(crate) hangs: u32,
    /// A replica is too busy to be ready for a while, per replica.
    pub(crate) busy: u32,
    /// A replica never gets ready, or dies while it starts; per start.
    pub(crate) broken: u32,
    /// A replica ignores SIGTERM; per start.
    pub(crate) stubborn: u32,
    /// The platform refuses to start one; per start.
    pub(crate) refused: u32,
    /// All releases fail requests for a while.
    pub(crate) storm: u32,
    /// No users for a while.
    pub(crate) lull: u32,
    /// Somebody deploys.
    pub(crate) deploys: u32,
    /// Somebody commands something.
    pub(crate) commands: u32,
}

impl Weather {
    /// What a seed brings.
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let mut some = |rare: u32| match dice.between(0, 9) {
            0..=4 => 0,
            5..=7 => rare,
            _ => rare * 6,
        };
        Self {
            crash: some(300),
            killed: some(2_000),
            usurper: some(1_500),
            clock_jump: some(160_000),
            agent_silent: some(3_000),
            proxy_silent: some(3_000),
            proxy_dies: some(3_000),
            proxy_old: some(100_000),
            store_down: some(3_000),
            store_lost: some(15_000),
            store_slow: some(40_000),
            late: some(8_000),
            lost: some(8_000),
            failed: some(8_000),
            probe_wrong: some(8_000),
            dies: some(700),
            hangs: some(300),
            busy: some(1_000),
            broken: some(40_000),
            stubborn: some(60_000),
            refused: some(10_000),
            storm: some(1_500),
            lull: some(1_500),
            deploys: 10_000 + some(10_000),
            commands: 8_000 + some(8_000),
        }
    }
}
