//! Order statistics. Nothing here knows what was measured.

/// The median; the mean of the middle two of an even number. 0 of nothing.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Latencies in microseconds, sorted.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Takes samples in microseconds, in any order.
    pub(crate) fn new(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least the fraction `share` (0 to 1) of all samples don't exceed, in
    /// milliseconds (nearest rank). 0 of nothing.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        let sample = self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0);
        f64::from(sample) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        for (samples, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 5.0], 5.0), (vec![4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert_eq!(median(&samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latencies = Latencies::new((1..=1000).rev().map(|n| n * 1000).collect());
        assert_eq!(latencies.percentile_ms(0.5), 500.0);
        assert_eq!(latencies.percentile_ms(0.99), 990.0);
        assert_eq!(latencies.percentile_ms(1.0), 1000.0);
        assert_eq!(Latencies::default().percentile_ms(0.99), 0.0);
    }
}
