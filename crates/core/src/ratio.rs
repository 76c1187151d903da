//! How many replicas of each release stand for a share, where no proxy can split requests.

use crate::ids::BasisPoints;

/// Replicas of the two releases of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Of the new release.
    pub candidate: u32,
    /// Of the old one.
    pub stable: u32,
}

/// The split of `replicas` nearest to a share of the candidate, with at most one more when `surge` allows it.
///
/// Neither release is rounded away: any share between 0 and 100 % has one of each, unless there is room for one only.
/// Between two that are equally near, the one with fewer replicas in all, then the one with the larger candidate. These
/// are the choices that Argo Rollouts makes without a traffic router (`setWeight` with replica counts), so that the same
/// steps give the same replicas.
#[must_use]
pub fn split(replicas: u32, share: BasisPoints, surge: u32) -> Split {
    if share == BasisPoints::NONE || share == BasisPoints::ALL || replicas == 0 {
        let candidate = if share == BasisPoints::ALL { replicas } else { 0 };
        return Split { candidate, stable: replicas - candidate };
    }
    let totals = replicas..=replicas.saturating_add(surge.min(1));
    let both = totals.clone().flat_map(|total| (1..total).rev().map(move |candidate| (candidate, total)));
    // Room for one replica only: whichever release is nearer has it.
    let one = (0..=replicas).rev().map(|candidate| (candidate, replicas));
    let nearest = |options: &mut dyn Iterator<Item = (u32, u32)>| {
        options.reduce(|best, option| if is_nearer(option, best, share) { option } else { best })
    };
    let best = nearest(&mut both.into_iter()).or_else(|| nearest(&mut one.into_iter()));
    let (candidate, total) = best.unwrap_or((0, replicas));
    Split { candidate, stable: total - candidate }
}

/// Whether one ratio is nearer to a share than another; exact, without fractions.
fn is_nearer(one: (u32, u32), other: (u32, u32), share: BasisPoints) -> bool {
    let off = |(candidate, total): (u32, u32)| {
        (u128::from(candidate) * 10_000).abs_diff(u128::from(total) * u128::from(share.get()))
    };
    off(one) * u128::from(other.1) < off(other) * u128::from(one.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(share: u16) -> BasisPoints {
        BasisPoints::new(share * 100).expect("a percentage")
    }

    #[test]
    fn the_nearest_split_is_taken_and_neither_release_is_rounded_away() {
        // replicas, share, surge → candidate, stable
        let table = [
            (10, 10, 0, 1, 9),
            (10, 25, 0, 3, 7),
            (10, 25, 1, 3, 8),
            (10, 24, 0, 2, 8),
            (10, 1, 0, 1, 9),
            (10, 99, 0, 9, 1),
            (10, 99, 1, 10, 1),
            (10, 1, 1, 1, 10),
            (4, 50, 0, 2, 2),
            (3, 50, 0, 2, 1),
            (3, 50, 1, 2, 2),
            (5, 50, 0, 3, 2),
            (5, 50, 1, 3, 3),
            (1, 50, 1, 1, 1),
            (1, 5, 1, 1, 1),
            (1, 95, 1, 1, 1),
            (1, 50, 0, 1, 0),
            (1, 49, 0, 0, 1),
            (2, 1, 0, 1, 1),
            (2, 99, 0, 1, 1),
            (2, 33, 1, 1, 2),
            (2, 67, 1, 2, 1),
            (10, 0, 1, 0, 10),
            (10, 100, 1, 10, 0),
            (0, 50, 1, 0, 0),
            (1_000, 33, 1, 330, 670),
        ];
        for (replicas, share, surge, candidate, stable) in table {
            let told = format!("{share} % of {replicas} with surge {surge}");
            assert_eq!(split(replicas, percent(share), surge), Split { candidate, stable }, "{told}");
        }
    }

    #[test]
    fn no_split_is_farther_than_another_one_would_be() {
        for replicas in 2..=30 {
            for share in 1..100 {
                for surge in 0..=1 {
                    let Split { candidate, stable } = split(replicas, percent(share), surge);
                    assert!(candidate >= 1 && stable >= 1);
                    let total = candidate + stable;
                    assert!(total == replicas || (surge == 1 && total == replicas + 1));
                    let off = |c: u32, t: u32| (f64::from(c) / f64::from(t) - f64::from(share) / 100.0).abs();
                    let all = (replicas..=replicas + surge).flat_map(|t| (1..t).map(move |c| (c, t)));
                    let best = all.map(|(c, t)| off(c, t)).fold(f64::INFINITY, f64::min);
                    assert!(off(candidate, total) <= best + 1e-12, "{share} % of {replicas} with surge {surge}");
                }
            }
        }
    }
}
