//! The wealth of one test: who has bet how much on what?

use serde::{Deserialize, Serialize};

use super::number::{ln, ln_1p, ln_add, ln_sum};

/// Wealth that began as 1: cash that is held back, and an account for each expert, all as natural logs.
///
/// As long as every expert's factors are 1 or less on average under the null hypothesis, so is the wealth, whatever moves
/// from cash to accounts and when; by Ville's inequality (1939) it ever reaches 1/alpha with probability alpha at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pot {
    ln_prior: Vec<f64>,
    cash: f64,
    accounts: Vec<f64>,
    /// What the bets of each expert have won since they stood lowest, as a log; 0 or more between ticks.
    ahead: Vec<f64>,
}

impl Pot {
    /// All in cash. `prior` says what part of each injection an expert gets; together 1.
    #[must_use]
    pub fn new(prior: impl IntoIterator<Item = f64>) -> Self {
        let ln_prior: Vec<f64> = prior.into_iter().map(ln).collect();
        let accounts = vec![f64::NEG_INFINITY; ln_prior.len()];
        let ahead = vec![0.0; ln_prior.len()];
        Self { ln_prior, cash: 0.0, accounts, ahead }
    }

    /// One expert is as good as another.
    #[must_use]
    pub fn even(experts: usize) -> Self {
        Self::new(std::iter::repeat_n(1.0 / experts as f64, experts))
    }

    /// Hands the part `rho` of the cash, 0 to 1, to the experts.
    pub fn inject(&mut self, rho: f64) {
        if rho <= 0.0 {
            return;
        }
        let added = self.cash + ln(rho);
        self.cash = if rho < 1.0 { self.cash + ln_1p(-rho) } else { f64::NEG_INFINITY };
        for (account, ln_prior) in self.accounts.iter_mut().zip(&self.ln_prior) {
            *account = ln_add(*account, added + ln_prior);
        }
    }

    /// Adds to the log of an expert's account.
    pub(crate) fn gain(&mut self, expert: usize, by: f64) {
        self.accounts[expert] += by;
        self.ahead[expert] += by;
    }

    /// Tells for each expert whether its bets have won since they stood lowest, what is handed out aside. One whose bets
    /// stand as low as never before starts anew with this.
    pub(crate) fn is_ahead(&mut self) -> impl Iterator<Item = bool> + '_ {
        self.ahead.iter_mut().map(|ahead| {
            let is_ahead = *ahead > 0.0;
            if !is_ahead {
                *ahead = 0.0;
            }
            is_ahead
        })
    }

    /// ln E: the log of the whole wealth.
    #[must_use]
    pub fn ln_e(&self) -> f64 {
        ln_sum(std::iter::once(self.cash).chain(self.accounts.iter().copied()))
    }

    /// The log of what is held back.
    #[must_use]
    pub fn cash(&self) -> f64 {
        self.cash
    }

    /// The logs of what the experts have.
    #[must_use]
    pub fn accounts(&self) -> &[f64] {
        &self.accounts
    }

    /// The richest expert; `None` without any, and while all are ruined.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let richest = (0..self.accounts.len()).reduce(|a, b| if self.accounts[b] > self.accounts[a] { b } else { a });
        richest.filter(|expert| self.accounts[*expert] > f64::NEG_INFINITY)
    }
}

/// ln E of several tests together: the mean of their wealth, weighted by shares that sum to 1.
///
/// Right for any dependence between the tests, and the only admissible way to merge e-values (Vovk and Wang, "E-values:
/// Calibration, combination and applications", 2021; Wang, "The only admissible way of merging arbitrary e-values", 2025).
#[must_use]
pub fn combine(tests: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    ln_sum(tests.map(|(share, ln_e)| ln(share) + ln_e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handing_out_cash_changes_no_wealth() {
        let mut pot = Pot::even(9);
        assert_eq!((pot.ln_e(), pot.leader()), (0.0, None));
        for rho in [0.75, 0.0, 1.0 / 30.0, 0.2, 1.0] {
            pot.inject(rho);
            assert!(pot.ln_e().abs() < 1e-14, "{}", pot.ln_e());
        }
        assert_eq!(pot.cash(), f64::NEG_INFINITY);
        pot.inject(0.5);
        assert!(pot.ln_e().abs() < 1e-14);
    }

    #[test]
    fn an_expert_is_ahead_of_where_its_bets_stood_lowest() {
        let mut pot = Pot::even(2);
        pot.inject(1.0);
        let mut after = |by: [f64; 2]| {
            pot.gain(0, by[0]);
            pot.gain(1, by[1]);
            pot.is_ahead().collect::<Vec<_>>()
        };
        assert_eq!(after([-3.0, 1.0]), [false, true]);
        assert_eq!(after([2.0, -0.5]), [true, true], "not where it began, but where it was lowest");
        assert_eq!(after([-1.0, -0.5]), [true, false]);
        assert_eq!(after([-1.0, f64::NEG_INFINITY]), [false, false]);
    }

    #[test]
    fn a_ruined_pot_is_worth_nothing_and_no_panic() {
        let mut pot = Pot::even(1);
        pot.inject(1.0);
        pot.gain(0, f64::NEG_INFINITY);
        assert_eq!((pot.ln_e(), pot.leader()), (f64::NEG_INFINITY, None));
    }

    #[test]
    fn a_test_with_a_share_pays_its_logarithm() {
        assert!((combine([(0.5, 6.0), (0.5, f64::NEG_INFINITY)].into_iter()) - (6.0 - 2.0_f64.ln())).abs() < 1e-14);
        assert_eq!(combine(std::iter::empty()), f64::NEG_INFINITY);
    }
}
