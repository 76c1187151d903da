//! Functions of a series' samples over a while.
//!
//! What they give agrees with Prometheus 2 (`promql/functions.go` there) to the order of its additions, since a rule's
//! threshold may lie between two roundings.

use evenkeel_series::Sample;

/// The samples of one series over a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// At least one; no marks of ends.
    pub(crate) samples: &'a [Sample],
    /// When the while begins and ends, both inclusive, in milliseconds since 1970 began.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// The moment of the evaluation, which an offset parts from `to`.
    pub(crate) now: i64,
}

impl<'a> Window<'a> {
    /// The first and the last sample; `None` when it is the same one.
    fn ends(&self) -> Option<(&'a Sample, &'a Sample)> {
        match self.samples {
            [first, .., last] => Some((first, last)),
            _ => None,
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + 'a {
        self.samples.iter().map(|sample| sample.value)
    }

    /// Each value with the one before it.
    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + 'a {
        self.samples.windows(2).map(|pair| (pair[0].value, pair[1].value))
    }
}

/// Whether the values only grow, but for restarts from zero.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Counter,
    Gauge,
}

pub(crate) fn rate(window: &Window<'_>) -> Option<f64> {
    // The factor is scaled before it is applied: the order of roundings counts.
    extrapolated(window, Of::Counter, (window.to - window.from) as f64 / 1e3)
}

pub(crate) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, Of::Counter, 1.0)
}

pub(crate) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, Of::Gauge, 1.0)
}

/// By how much the value changed, extrapolated to the ends of the window where the first and last sample are near them,
/// but for a counter never to before it was zero.
fn extrapolated(window: &Window<'_>, of: Of, per_seconds: f64) -> Option<f64> {
    let (first, last) = window.ends()?;
    let mut change = last.value - first.value;
    if of == Of::Counter {
        change += window.pairs().filter(|(before, value)| value < before).fold(0.0, |sum, (before, _)| sum + before);
    }
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e3;
    let (mut to_start, to_end) = (seconds(window.from, first.at), seconds(last.at, window.to));
    let sampled = seconds(first.at, last.at);
    let between = sampled / (window.samples.len() - 1) as f64;
    if of == Of::Counter && change > 0.0 && first.value >= 0.0 {
        let to_zero = sampled * (first.value / change);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    let near = between * 1.1;
    let reach = |distance: f64| if distance < near { distance } else { between / 2.0 };
    let covered = sampled + reach(to_start) + reach(to_end);
    Some(change * (covered / sampled / per_seconds))
}

pub(crate) fn last_rate(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    let change = if last.value < before.value { last.value } else { last.value - before.value };
    Some(change / ((last.at - before.at) as f64 / 1e3))
}

pub(crate) fn last_delta(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    Some(last.value - before.value)
}

pub(crate) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(window.pairs().filter(|(before, value)| value < before).count() as f64)
}

pub(crate) fn changes(window: &Window<'_>) -> Option<f64> {
    let differs = |(before, value): &(f64, f64)| value != before && !(value.is_nan() && before.is_nan());
    Some(window.pairs().filter(differs).count() as f64)
}

pub(crate) fn count(window: &Window<'_>) -> Option<f64> {
    Some(window.samples.len() as f64)
}

pub(crate) fn present(_window: &Window<'_>) -> Option<f64> {
    Some(1.0)
}

pub(crate) fn largest(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(|max, value| if value > max || max.is_nan() { value } else { max })
}

pub(crate) fn smallest(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(|min, value| if value < min || min.is_nan() { value } else { min })
}

pub(crate) fn sum(window: &Window<'_>) -> Option<f64> {
    let mut sum = Compensated::default();
    window.values().for_each(|value| sum.add(value));
    Some(sum.get())
}

pub(crate) fn average(window: &Window<'_>) -> Option<f64> {
    let mut mean = Compensated::default();
    for (value, count) in window.values().zip(1_u32..) {
        if mean.sum.is_infinite() && (value == mean.sum || value.is_finite()) {
            continue;
        }
        let count = f64::from(count);
        mean.add(value / count - mean.sum / count);
    }
    Some(mean.get())
}

pub(crate) fn variance(window: &Window<'_>) -> Option<f64> {
    let (mut mean, mut squares) = (Compensated::default(), Compensated::default());
    for (value, count) in window.values().zip(1_u32..) {
        let off = value - mean.raw();
        mean.add(off / f64::from(count));
        squares.add(off * (value - mean.raw()));
    }
    Some(squares.raw() / window.samples.len() as f64)
}

pub(crate) fn deviation(window: &Window<'_>) -> Option<f64> {
    variance(window).map(libm::sqrt)
}

pub(crate) fn quantile(window: &Window<'_>, q: f64) -> Option<f64> {
    Some(quantile_of(q, window.values().collect()))
}

/// The quantile of some values, between two of them in proportion; NaNs come before all others.
pub(crate) fn quantile_of(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)));
    let rank = q * (values.len() - 1) as f64;
    let below = libm::floor(rank);
    let above = ((below as usize) + 1).min(values.len() - 1);
    let weight = rank - below;
    values[below as usize] * (1.0 - weight) + values[above] * weight
}

pub(crate) fn slope(window: &Window<'_>) -> Option<f64> {
    let (first, _) = window.ends()?;
    Some(regression(window.samples, first.at).0)
}

pub(crate) fn predict(window: &Window<'_>, seconds: f64) -> Option<f64> {
    window.ends()?;
    let (slope, at_now) = regression(window.samples, window.now);
    Some(slope * seconds + at_now)
}

/// Slope per second and value at `origin` of the straight line with the least squares.
fn regression(samples: &[Sample], origin: i64) -> (f64, f64) {
    let initial = samples.first().map_or(f64::NAN, |sample| sample.value);
    if samples.iter().skip(1).all(|sample| sample.value == initial) {
        return if initial.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, initial) };
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Compensated::default(); 4];
    for Sample { at, value } in samples {
        let x = (at - origin) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(*value);
        xy_sum.add(x * value);
        xx_sum.add(x * x);
    }
    let n = samples.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(Compensated::raw);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// A sum that keeps what rounding takes from it (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation
/// endlicher Summen", 1974).
#[derive(Debug, Default, Clone, Copy)]
struct Compensated {
    sum: f64,
    lost: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        let (larger, smaller) = if self.sum.abs() >= value.abs() { (self.sum, value) } else { (value, self.sum) };
        self.lost += (larger - sum) + smaller;
        self.sum = sum;
    }

    fn raw(self) -> f64 {
        self.sum + self.lost
    }

    /// An infinite sum has lost what cannot be told.
    fn get(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.raw() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function of values that are 10 s apart, in a window of a minute that begins 5 s before the first.
    fn of(function: fn(&Window<'_>) -> Option<f64>, values: &[f64]) -> Option<f64> {
        let samples: Vec<Sample> =
            values.iter().zip(0..).map(|(value, n)| Sample { at: 5_000 + n * 10_000, value: *value }).collect();
        function(&Window { samples: &samples, from: 0, to: 60_000, now: 60_000 })
    }

    #[test]
    fn a_counter_that_begins_again_goes_on_from_where_it_was() {
        // 30 in 50 s, extrapolated to the whole minute.
        assert_eq!(of(increase, &[100.0, 110.0, 120.0, 5.0, 10.0, 15.0]), Some((20.0 + 15.0) * (60.0 / 50.0)));
        assert_eq!(of(resets, &[100.0, 110.0, 120.0, 5.0, 10.0, 15.0]), Some(1.0));
    }

    #[test]
    fn a_rate_is_not_extrapolated_to_before_the_counter_was_zero_nor_far_beyond_its_samples() {
        assert_eq!(of(increase, &[0.0, 10.0, 20.0, 30.0, 40.0, 50.0]), Some(50.0 * (55.0 / 50.0)));
        // Two samples, 10 s apart: half an interval is added where the end is far.
        assert_eq!(of(delta, &[7.0, 9.0]), Some(2.0 * ((10.0 + 5.0 + 5.0) / 10.0)));
        assert_eq!(of(rate, &[1.0]), None);
    }

    #[test]
    fn sums_of_large_and_small_values_lose_nothing() {
        assert_eq!(of(sum, &[1e100, 1.0, -1e100]), Some(1.0));
        assert_eq!(of(sum, &[f64::INFINITY, 1.0]), Some(f64::INFINITY));
        assert_eq!(of(average, &[f64::INFINITY, 1.0, f64::INFINITY]), Some(f64::INFINITY));
    }
}
