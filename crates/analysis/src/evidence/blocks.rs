//! Is the candidate the worst of several groups, again and again? For failures that come in clusters.

use serde::{Deserialize, Serialize};

use super::number::ln;
use super::pot::Pot;

/// How sure the experts are that the candidate is the worst group of a block.
const BELIEFS: [f64; 3] = [0.2, 0.4, 0.8];

/// A test on ranks: in each block of time, which of the candidate and G groups of stable of the same size failed most?
///
/// Exact under any dependence inside a block: a harmless candidate is the worst one with probability 1/(G + 1) at most.
/// Slow, and blind to how much worse; for failures that come in clusters whose causes are not known. Needs about four blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankBlocks {
    groups: u32,
    beliefs: Vec<f64>,
    pot: Pot,
}

impl RankBlocks {
    /// Beside so many groups of stable, at least 1; bets with the part `rho` of the wealth.
    #[must_use]
    pub fn new(groups: u32, rho: f64) -> Self {
        Self::believing(groups, BELIEFS.to_vec(), rho)
    }

    /// The same with other beliefs, each more than 0 and less than 1.
    #[must_use]
    pub fn believing(groups: u32, beliefs: Vec<f64>, rho: f64) -> Self {
        let mut pot = Pot::even(beliefs.len());
        pot.inject(rho);
        Self { groups, beliefs, pot }
    }

    /// Bets on a block: the rate at which the candidate failed, and each group of stable. Gives ln E.
    pub fn block(&mut self, candidate: f64, stable: &[f64], rho: f64) -> f64 {
        self.pot.inject(rho);
        let worst = stable.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // The worst ones of a tie share it.
        let is_worst = if candidate > worst {
            1.0
        } else if candidate == worst {
            1.0 / (1 + stable.iter().filter(|rate| **rate == worst).count()) as f64
        } else {
            0.0
        };
        let groups = f64::from(self.groups);
        for (expert, belief) in self.beliefs.iter().enumerate() {
            let factor =
                is_worst * belief * (groups + 1.0) + (1.0 - is_worst) * (1.0 - belief) * (groups + 1.0) / groups;
            self.pot.gain(expert, ln(factor));
        }
        self.pot.ln_e()
    }

    /// So many groups of stable.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// The wealth.
    #[must_use]
    pub fn pot(&self) -> &Pot {
        &self.pot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_blocks_in_which_the_candidate_is_the_worst_of_ten_are_enough() {
        let mut test = RankBlocks::new(9, 0.75);
        (0..3).for_each(|_| assert!(test.block(0.5, &[0.01; 9], 0.0) < 200.0_f64.ln()));
        assert!(test.block(0.5, &[0.01; 9], 0.0) > 200.0_f64.ln());
    }

    #[test]
    fn a_tie_with_all_is_no_evidence() {
        let mut test = RankBlocks::new(9, 0.75);
        assert!(test.block(0.0, &[0.0; 9], 0.0) <= 1e-12);
    }
}
