//! The statistics of the timing test: whether two samples come from the same distribution, and how far they are apart.

use crate::random::SplitMix;

/// Two samples are told apart if chance alone would do so less often than this.
pub(crate) const SIGNIFICANCE: f64 = 0.001;
/// How often the bootstrap draws: 10 draws lie in each tail beyond the interval. Tests, which are not optimised, make do with 1.
const RESAMPLES: usize = if cfg!(test) { 2_000 } else { 20_000 };

/// What the test of Mann and Whitney says, with the normal approximation, corrected for ties and for continuity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RankTest {
    /// How many standard deviations the rank sum is away from the expected one.
    pub(crate) z: f64,
    /// Two-sided.
    pub(crate) p: f64,
    /// The chance that a value of the first sample is larger than one of the second, ties counted half: 0.5 if they are alike.
    pub(crate) effect: f64,
}

/// Compares by ranks, so that a few slow requests do not decide. Neither sample is empty.
pub(crate) fn rank_test(first: &[f64], second: &[f64]) -> RankTest {
    let (n, m) = (first.len() as f64, second.len() as f64);
    let both = n + m;
    let mut pooled: Vec<(f64, bool)> = first.iter().map(|value| (*value, true)).collect();
    pooled.extend(second.iter().map(|value| (*value, false)));
    pooled.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));

    let (mut rank_sum, mut ties, mut below) = (0.0, 0.0, 0.0);
    for tied in pooled.chunk_by(|left, right| left.0 == right.0) {
        let size = tied.len() as f64;
        let rank = below + (size + 1.0) / 2.0;
        rank_sum += rank * tied.iter().filter(|(_, of_first)| *of_first).count() as f64;
        ties += size.powi(3) - size;
        below += size;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (both + 1.0 - ties / (both * (both - 1.0)));
    let off = u - n * m / 2.0;
    let corrected = (off.abs() - 0.5).max(0.0);
    // All values the same: nothing speaks for a difference.
    let z = if variance > 0.0 { corrected.copysign(off) / variance.sqrt() } else { 0.0 };
    RankTest { z, p: erfc(z.abs() / std::f64::consts::SQRT_2).min(1.0), effect: u / (n * m) }
}

/// The complementary error function, with a relative error below 1.2e-7 everywhere (Numerical Recipes, `erfcc`), for `x ≥ 0`.
fn erfc(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    t * (polynomial - x * x).exp()
}

/// A quantile of the first less that of the second, and where it lies with 99.9 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    pub(crate) estimate: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Difference {
    pub(crate) fn excludes_zero(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// By the percentile bootstrap: both samples are drawn from themselves anew, many times. Neither is empty.
pub(crate) fn difference(first: &[f64], second: &[f64], share: f64, random: &mut SplitMix) -> Difference {
    let (mut left, mut right) = (first.to_vec(), second.to_vec());
    let differ = |left: &mut [f64], right: &mut [f64]| select(left, share) - select(right, share);
    let estimate = differ(&mut left, &mut right);
    let mut differences: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            left.iter_mut().for_each(|value| *value = first[random.below(first.len())]);
            right.iter_mut().for_each(|value| *value = second[random.below(second.len())]);
            differ(&mut left, &mut right)
        })
        .collect();
    differences.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&differences, SIGNIFICANCE / 2.0), quantile(&differences, 1.0 - SIGNIFICANCE / 2.0));
    Difference { estimate, low, high }
}

/// The median; the values end up in another order.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    select(values, 0.5)
}

/// As [`quantile`], of values in any order; they end up in another one.
fn select(values: &mut [f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (_, lower, above) = values.select_nth_unstable_by(place.floor() as usize, f64::total_cmp);
    let lower = *lower;
    let upper = above.iter().copied().min_by(f64::total_cmp).unwrap_or(lower);
    lower + (upper - lower) * place.fract()
}

/// Of values in ascending order; between two of them, in proportion.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (lower, upper) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    lower + (upper - lower) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }

    #[test]
    fn erfc_is_as_in_the_tables() {
        close(erfc(0.0), 1.0);
        close(erfc(0.5), 0.479_500);
        close(erfc(1.0), 0.157_299);
        // Far out it has to be right relative to its size: that is where the decision is.
        assert!((erfc(3.0) / 2.209_05e-5 - 1.0).abs() < 1e-5);
        assert!((erfc(5.0) / 1.537_46e-12 - 1.0).abs() < 1e-5);
    }

    #[test]
    fn ranks_without_ties() {
        // Ranks 1 2 3 | 4 5 6. U = 0 of 9; variance 9 · 7 / 12 = 5.25; z = −(4.5 − 0.5) / √5.25.
        let test = rank_test(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]);
        close(test.effect, 0.0);
        close(test.z, -1.745_74);
        close(test.p, 0.080_856);
        // The other way round it is the mirror image.
        let mirrored = rank_test(&[4.0, 5.0, 6.0], &[1.0, 2.0, 3.0]);
        close(mirrored.effect, 1.0);
        close(mirrored.z, 1.745_74);
    }

    #[test]
    fn ranks_with_ties() {
        // Ranks 1 3 3 | 3 5 6. U = 7 − 6 = 1; variance 9/12 · (7 − 24/30) = 4.65; z = −(3.5 − 0.5) / √4.65.
        let test = rank_test(&[1.0, 2.0, 2.0], &[2.0, 3.0, 4.0]);
        close(test.effect, 1.0 / 9.0);
        close(test.z, -1.391_217);
        close(test.p, 0.164_159);
    }

    #[test]
    fn the_same_values_are_not_told_apart() {
        let same = [5.0; 20];
        let test = rank_test(&same, &same);
        close(test.p, 1.0);
        close(test.effect, 0.5);
        let found = difference(&same, &same, 0.5, &mut SplitMix::new(1));
        assert!(!found.excludes_zero());
    }

    #[test]
    fn medians_and_quantiles() {
        close(median(&mut [3.0, 1.0, 2.0]), 2.0);
        close(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        close(median(&mut [7.0]), 7.0);
        close(select(&mut [5.0, 3.0, 1.0, 4.0, 2.0], 0.9), 4.6);
        close(select(&mut [2.0, 1.0], 1.0), 2.0);
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        close(quantile(&sorted, 0.0), 1.0);
        close(quantile(&sorted, 0.25), 2.0);
        close(quantile(&sorted, 0.9), 4.6);
        close(quantile(&sorted, 1.0), 5.0);
    }

    #[test]
    fn a_shift_is_found_by_both() {
        // Two samples of the same noise, 500 wide, and a shift of 100.
        let mut random = SplitMix::new(42);
        let mut draw = |shift: f64| -> Vec<f64> { (0..500).map(|_| random.below(500) as f64 + shift).collect() };
        let (alike, other, shifted) = (draw(0.0), draw(0.0), draw(100.0));

        assert!(rank_test(&alike, &other).p >= SIGNIFICANCE);
        let found = difference(&alike, &other, 0.5, &mut SplitMix::new(1));
        assert!(!found.excludes_zero(), "{found:?}");

        let test = rank_test(&shifted, &alike);
        // Of two uniform values on a width of 500, one of them shifted by 100: 1 − (400/500)² / 2.
        assert!(test.p < SIGNIFICANCE && (test.effect - 0.68).abs() < 0.06, "{test:?}");
        let found = difference(&shifted, &alike, 0.5, &mut SplitMix::new(1));
        assert!(found.excludes_zero(), "{found:?}");
        assert!(found.low < 100.0 && 100.0 < found.high, "{found:?}");
    }

    #[test]
    fn a_shift_that_noise_hides_from_the_middle_is_found_below() {
        // Three values of four are disturbed beyond recognition, as on a busy machine.
        let mut random = SplitMix::new(5);
        let mut draw = |shift: f64| -> Vec<f64> {
            let mut value = || [500.0, 50_000.0, 50_000.0, 50_000.0][random.below(4)];
            let widths: Vec<f64> = (0..400).map(|_| value()).collect();
            widths.into_iter().map(|width| random.below(width as usize) as f64 + shift).collect()
        };
        let (plain, shifted) = (draw(0.0), draw(200.0));
        assert!(!difference(&shifted, &plain, 0.5, &mut SplitMix::new(1)).excludes_zero());
        assert!(difference(&shifted, &plain, 0.1, &mut SplitMix::new(1)).excludes_zero());
    }

    #[test]
    fn chance_alone_is_seldom_taken_for_a_difference() {
        let mut random = SplitMix::new(3);
        let found = (0..1_000)
            .filter(|_| {
                let mut draw = || -> Vec<f64> { (0..100).map(|_| random.below(50) as f64).collect() };
                rank_test(&draw(), &draw()).p < 0.05
            })
            .count();
        // 50 are expected, with a standard deviation of 7.
        assert!((25..75).contains(&found), "{found}");
    }
}
