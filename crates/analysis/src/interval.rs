//! Between which values does a share, or the difference of two, lie?
//!
//! For describing what was counted. Nothing is decided by it: an interval of a fixed sample says nothing to somebody
//! who looks again and again.

/// Half the width of a 95 % interval in standard deviations: the 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// The value that was counted.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The share of `part` in `whole` with Wilson's score interval; `None` when there is no whole.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
/// Statistical Association 22 (1927), 209–212.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<Interval> {
    if whole == 0 {
        return None;
    }
    let (k, n) = (part as f64, whole as f64);
    let value = k / n;
    let middle = (k + Z * Z / 2.0) / (n + Z * Z);
    let half = Z / (n + Z * Z) * (n * value * (1.0 - value) + Z * Z / 4.0).sqrt();
    Some(Interval { value, low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
}

/// The first share less the second, with Newcombe's hybrid score interval; `None` when one of them has no whole.
///
/// Method 10 of R. G. Newcombe, "Interval estimation for the difference between independent proportions: comparison of
/// eleven methods", Statistics in Medicine 17 (1998), 873–890.
#[must_use]
pub fn difference((part, whole): (u64, u64), (other_part, other_whole): (u64, u64)) -> Option<Interval> {
    let (a, b) = (share(part, whole)?, share(other_part, other_whole)?);
    let value = a.value - b.value;
    let low = value - (a.value - a.low).hypot(b.high - b.value);
    let high = value + (a.high - a.value).hypot(b.value - b.low);
    Some(Interval { value, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(interval: Option<Interval>) -> [f64; 3] {
        let Interval { value, low, high } = interval.unwrap();
        [value, low, high].map(|x| (x * 10_000.0).round() / 10_000.0)
    }

    /// Table II of Newcombe 1998, method 10.
    #[test]
    fn the_published_examples_come_out() {
        assert_eq!(rounded(difference((56, 70), (48, 80))), [0.2, 0.0524, 0.3339]);
        assert_eq!(rounded(difference((9, 10), (3, 10))), [0.6, 0.1705, 0.809]);
        assert_eq!(rounded(difference((5, 56), (0, 29))), [0.0893, -0.0381, 0.1926]);
        assert_eq!(rounded(difference((0, 10), (0, 10))), [0.0, -0.2775, 0.2775]);
        assert_eq!(rounded(difference((10, 10), (0, 10))), [1.0, 0.6075, 1.0]);
    }

    /// Table I of R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
    /// (1998), 857–872, method 3.
    #[test]
    fn a_single_share_comes_out_as_published() {
        assert_eq!(rounded(share(81, 263)), [0.308, 0.2553, 0.3662]);
        assert_eq!(rounded(share(0, 20)), [0.0, 0.0, 0.1611]);
    }

    #[test]
    fn nothing_has_no_share() {
        assert_eq!(share(0, 0), None);
        assert_eq!(difference((1, 2), (0, 0)), None);
    }
}
