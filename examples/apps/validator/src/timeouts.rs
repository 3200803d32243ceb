//! The time limits of validators, by dimension.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::error::Elapsed;

/// The time limit of a dimension that neither the configuration nor [`TIMEOUTS`] lists.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The time limits of the known dimensions.
pub const TIMEOUTS: [(&str, Duration); 7] = [
    ("code_quality", Duration::from_secs(60)),
    ("type_safety", Duration::from_secs(120)),
    ("security", Duration::from_secs(90)),
    ("coverage", Duration::from_secs(300)),
    ("lint", Duration::from_secs(60)),
    ("visual", Duration::from_secs(30)),
    ("behavioral", Duration::from_secs(30)),
];

/// A time in seconds, as the configuration and the command line contain it.
///
/// **Range**: 1 ms to 365 days. Fractions are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds(Duration);

/// The number is not a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSeconds;

impl fmt::Display for InvalidSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is not valid; write a number of seconds from 0.001 to 31536000")
    }
}

impl Error for InvalidSeconds {}

impl Seconds {
    /// Creates a time of whole seconds.
    pub const fn new(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds as u64))
    }
}

impl TryFrom<f64> for Seconds {
    type Error = InvalidSeconds;

    fn try_from(seconds: f64) -> Result<Self, InvalidSeconds> {
        const YEAR: f64 = 365.0 * 24.0 * 60.0 * 60.0;

        if (0.001..=YEAR).contains(&seconds) {
            Ok(Self(Duration::from_secs_f64(seconds)))
        } else {
            Err(InvalidSeconds)
        }
    }
}

impl FromStr for Seconds {
    type Err = InvalidSeconds;

    fn from_str(text: &str) -> Result<Self, InvalidSeconds> {
        text.parse::<f64>().map_err(|_| InvalidSeconds)?.try_into()
    }
}

impl From<Seconds> for Duration {
    fn from(Seconds(time): Seconds) -> Self {
        time
    }
}

/// The time limits of a configuration, by dimension.
pub type Timeouts = BTreeMap<String, Seconds>;

/// Returns the time limit of a dimension.
///
/// The configuration takes precedence over [`TIMEOUTS`], which takes precedence over
/// [`DEFAULT_TIMEOUT`].
pub fn get_timeout(dimension: &str, config: &Timeouts) -> Duration {
    if let Some(seconds) = config.get(dimension) {
        return (*seconds).into();
    }
    let known = TIMEOUTS.iter().find(|(name, _)| *name == dimension);
    known.map_or(DEFAULT_TIMEOUT, |(_, timeout)| *timeout)
}

/// A future did not complete in its time limit.
#[derive(Debug)]
pub struct TimeoutError {
    /// The dimension of the validator, or the name of the external service.
    pub dimension: String,
    /// The time limit.
    pub timeout: Duration,
    source: Elapsed,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dimension, timeout, .. } = self;
        write!(f, "`{dimension}` did not finish in {} s; allow more time", timeout.as_secs_f64())
    }
}

/// The source lets the circuits and the retries classify the error as a timeout.
impl Error for TimeoutError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Runs a future with a time limit. When the time is over, the future is dropped.
///
/// # Errors
///
/// Returns an error if the future does not complete in time.
pub async fn with_timeout<F: Future>(
    future: F,
    timeout: Duration,
    dimension: &str,
) -> Result<F::Output, TimeoutError> {
    match tokio::time::timeout(timeout, future).await {
        Ok(output) => Ok(output),
        Err(source) => Err(TimeoutError { dimension: dimension.to_owned(), timeout, source }),
    }
}
