//! Logarithms that are the same bits on every machine.
//!
//! `f64::ln` and its kin are the platform's and may differ in the last bit from one to the next; a recorded rollout must
//! replay to the same bits anywhere, so these are the ones of crate `libm`. Minus infinity is a legal log of wealth.

/// Natural logarithm.
pub(crate) fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// `ln(1 + x)`, exact for small `x`.
pub(crate) fn ln_1p(x: f64) -> f64 {
    libm::log1p(x)
}

/// e to the `x`.
pub(crate) fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// What is left of 1 after `dt_s` seconds where half is left after `half_life_s`.
pub(crate) fn half_lives(dt_s: f64, half_life_s: f64) -> f64 {
    libm::exp2(-dt_s / half_life_s)
}

/// A sum whose rounding errors are made up for (Neumaier 1974), so that it is the nearest double in whatever order its terms come.
pub(crate) fn exact_sum(terms: &[f64]) -> f64 {
    let (sum, lost) = terms.iter().fold((0.0_f64, 0.0), |(sum, lost), term| {
        let next = sum + term;
        let (large, small) = if sum.abs() >= term.abs() { (sum, *term) } else { (*term, sum) };
        (next, lost + ((large - next) + small))
    });
    sum + lost
}

/// ln of a sum, from the logs of its terms; minus infinity of none.
pub(crate) fn ln_sum(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if most.is_infinite() {
        return most;
    }
    most + ln(terms.map(|term| exp(term - most)).sum())
}

/// ln(e^a + e^b).
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    ln_sum([a, b].into_iter())
}

/// `count` times a log factor; nothing counted is nothing gained, also where the factor is minus infinity.
pub(crate) fn times(count: u64, ln_factor: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * ln_factor }
}

/// Relative entropy of a yes with probability `a` to one with probability `b`, in nats.
pub(crate) fn relative_entropy(a: f64, b: f64) -> f64 {
    let yes = if a > 0.0 { a * ln(a / b) } else { 0.0 };
    let no = if a < 1.0 { (1.0 - a) * (ln_1p(-a) - ln_1p(-b)) } else { 0.0 };
    yes + no
}
