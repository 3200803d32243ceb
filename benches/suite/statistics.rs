//! Medians and quartiles.

/// The median of a sample, and the quartiles as its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        Self {
            lower: quantile(&sample, 0.25),
            median: quantile(&sample, 0.5),
            upper: quantile(&sample, 0.75),
        }
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
        Self { lower: quantile(&sample, 0.0), median: quantile(&sample, 0.5), upper: quantile(&sample, 1.0) }
    }

    pub(crate) fn exact(value: f64) -> Self {
        Self { lower: value, median: value, upper: value }
    }

    /// The result of a measurement that failed.
    pub(crate) fn missing() -> Self {
        Self::exact(f64::NAN)
    }

    pub(crate) fn is_missing(self) -> bool {
        self.median.is_nan()
    }
}

/// Returns the value below which the given share of a sorted sample is. Interpolates between the
/// two nearest values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = (sorted.len() - 1) as f64 * share;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}
