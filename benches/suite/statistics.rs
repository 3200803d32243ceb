//! Medians and quartiles.

/// The median of a sample, and the quartiles as its spread.
#[derive(Clone, Copy)]
pub(crate) struct Quartiles {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Quartiles {
    /// # Panics
    ///
    /// Panics if the sample is empty.
    pub(crate) fn of(mut sample: Vec<f64>) -> Self {
        sample.sort_by(f64::total_cmp);
        let at = |share: f64| sample[((sample.len() - 1) as f64 * share).round() as usize];
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }

    /// Returns the quartiles of the ratios of two samples, value by value.
    pub(crate) fn of_ratios(sample: &[f64], reference: &[f64]) -> Self {
        Self::of(sample.iter().zip(reference).map(|(value, reference)| value / reference).collect())
    }

    /// Returns the smallest value, the median and the largest value.
    ///
    /// # Panics
    ///
    /// Panics if the sample is empty.
    pub(crate) fn range_of(mut sample: Vec<f64>) -> Self {
        sample.sort_by(f64::total_cmp);
        let last = sample.len() - 1;
        Self { lower: sample[0], median: sample[last / 2], upper: sample[last] }
    }

    pub(crate) fn exact(value: f64) -> Self {
        Self { lower: value, median: value, upper: value }
    }
}
