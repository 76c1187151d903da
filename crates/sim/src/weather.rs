//! Which faults a world has, and how often.
//!
//! Each world has some kinds of faults and is spared the others: worlds with few of them get far into a rollout, and
//! worlds with one often show what that one does.

use crate::dice::Dice;

/// Something that goes wrong, or that people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The controller dies before or after a call of an adapter; per call.
    Crash,
    /// The controller dies wherever it is.
    Killed,
    /// The controller stands still for a while, and goes on where it was.
    Stalled,
    /// A second controller starts while the first one runs.
    Usurper,
    /// The machine's clock is another one at the next start of a controller; per start.
    ClockJump,
    /// The agent does not answer for a while.
    AgentSilent,
    /// The proxy hangs for a while, and goes on.
    ProxySilent,
    /// The proxy takes no tables for longer than a rollout waits for its share to be confirmed; per table.
    NoTables,
    /// The proxy dies and is started again.
    ProxyDies,
    /// What a restarted proxy finds on disk is not its last table; per restart.
    ProxyOld,
    /// The proxy takes tables and does not tell what it counts, for a while.
    Unreported,
    /// The store fails for a while.
    StoreDown,
    /// One answer of the store is lost; per append.
    StoreLost,
    /// The store takes its time; per append.
    StoreSlow,
    /// A call to agent or proxy is carried out late; per call.
    Late,
    /// The answer of agent or proxy is lost; per call.
    Lost,
    /// A call to agent or proxy is carried out, and once more a while later; per call.
    Twice,
    /// Agent or proxy do not take the call; per call.
    Failed,
    /// A probe's answer is wrong; per probe.
    ProbeWrong,
    /// A replica dies, per replica.
    Dies,
    /// A replica hangs for good, per replica.
    Hangs,
    /// A replica is too busy to be ready for a while, per replica.
    Busy,
    /// No replica of a release is ready for a while; per release.
    Starved,
    /// A replica never gets ready, or dies while it starts; per start.
    Broken,
    /// A replica ignores SIGTERM; per start.
    Stubborn,
    /// The platform refuses to start one; per start.
    Refused,
    /// All releases fail requests for a while.
    Storm,
    /// No users for a while.
    Lull,
    /// The source of a check does not answer; per measurement.
    SourceSilent,
    /// It fails; per measurement.
    SourceFails,
    /// The database of all services fails for a while.
    DatabaseDown,
    /// A release looks for its database where there is none; per release.
    Astray,
    /// Somebody deploys.
    Deploys,
    /// Somebody commands something.
    Commands,
}

/// Every fault with its name and how often it happens where it does: chances in a million, per tenth of a second unless
/// the fault says otherwise.
pub(crate) const FAULTS: [(Fault, &str, u32); 34] = [
    (Fault::Crash, "controller crashes around a call", 300),
    (Fault::Killed, "controller is killed", 2_000),
    (Fault::Stalled, "controller stands still", 1_000),
    (Fault::Usurper, "second controller takes over", 1_500),
    (Fault::ClockJump, "machine's clock jumps", 160_000),
    (Fault::AgentSilent, "agent is silent", 3_000),
    (Fault::ProxySilent, "proxy hangs", 3_000),
    (Fault::NoTables, "proxy takes no tables for half a minute", 3_000),
    (Fault::ProxyDies, "proxy dies", 3_000),
    (Fault::ProxyOld, "proxy is back with an old table", 100_000),
    (Fault::Unreported, "proxy's counters are silent", 2_000),
    (Fault::StoreDown, "store fails for a while", 3_000),
    (Fault::StoreLost, "store's answer is lost", 15_000),
    (Fault::StoreSlow, "store is slow", 40_000),
    (Fault::Late, "call is carried out late", 8_000),
    (Fault::Lost, "answer of a call is lost", 8_000),
    (Fault::Twice, "call is carried out twice", 8_000),
    (Fault::Failed, "call is not taken", 8_000),
    (Fault::ProbeWrong, "probe's answer is wrong", 8_000),
    (Fault::Dies, "replica dies", 700),
    (Fault::Hangs, "replica hangs", 300),
    (Fault::Busy, "replica is not ready for a while", 1_000),
    (Fault::Starved, "release is not ready for a while", 1_000),
    (Fault::Broken, "replica never gets ready or dies early", 40_000),
    (Fault::Stubborn, "replica ignores SIGTERM", 60_000),
    (Fault::Refused, "platform refuses a start", 10_000),
    (Fault::Storm, "every release fails requests", 1_500),
    (Fault::Lull, "no users", 1_500),
    (Fault::SourceSilent, "source of a check is silent", 60_000),
    (Fault::SourceFails, "source of a check fails", 60_000),
    (Fault::DatabaseDown, "database fails for everybody", 3_000),
    (Fault::Astray, "release does not find its database", 100_000),
    (Fault::Deploys, "somebody deploys", 6_000),
    (Fault::Commands, "somebody commands", 4_000),
];

impl Fault {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        FAULTS[self as usize].1
    }
}

/// How often each fault happens in a world: chances in a million.
#[derive(Debug, Clone)]
pub(crate) struct Weather([u32; FAULTS.len()]);

impl Weather {
    /// What a seed brings.
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let mut some = |rare: u32| match dice.between(0, 9) {
            0..=4 => 0,
            5..=7 => rare,
            _ => rare * 6,
        };
        let mut chances = FAULTS.map(|(.., rare)| some(rare));
        // Without people nothing happens at all; where they are few, rollouts come to their end.
        let times = *dice.pick(&[1, 4, 5, 6, 12]);
        for fault in [Fault::Deploys, Fault::Commands] {
            chances[fault as usize] = FAULTS[fault as usize].2 * times;
        }
        Self(chances)
    }

    /// How often a fault happens.
    pub(crate) fn chance(&self, fault: Fault) -> u32 {
        self.0[fault as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_stands_at_its_own_place() {
        for (place, (fault, ..)) in FAULTS.iter().enumerate() {
            assert_eq!(*fault as usize, place);
        }
    }
}
