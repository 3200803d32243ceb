//! How long to wait before the next attempt: pure mathematics, in nanoseconds, the cap applied last.
//!
//! Clients that failed together and wait equally long return together. So a delay is drawn from a range ([`Jitter`]) around or below a
//! ceiling that grows with every retry, `min(cap, base · factor^(n-1))`.

mod jitter;
#[cfg(all(test, not(loom_models)))]
mod tests;

use core::ops::RangeInclusive;
use core::time::Duration;

pub use jitter::Jitter;
use jitter::Point;

/// How delays grow and how they are drawn: base, factor, cap and [`Jitter`] of a [`RetryPolicy`](crate::RetryPolicy), which checked
/// them.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::{Jitter, RetryPolicy};
///
/// let policy = RetryPolicy::builder().base(Duration::from_secs(1)).jitter(Jitter::Equal).build()?;
/// let mut rng = fastrand::Rng::with_seed(7);
/// let delays: Vec<Duration> = policy.backoff().delays(|range| rng.u64(range)).take(5).collect();
/// assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&delays[0]));
/// assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&delays[4]), "half the cap to the cap");
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// In nanoseconds, as the cap.
    pub(crate) base: u64,
    pub(crate) factor: f64,
    pub(crate) cap: u64,
    pub(crate) jitter: Jitter,
}

/// How far a call is on its way through the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    retries: u32,
    last: u64,
}

impl Position {
    /// Before the first delay.
    pub(crate) const START: Self = Self { retries: 0, last: 0 };
}

impl Backoff {
    /// The delays of one call, without end. `uniform` draws evenly from a range of nanoseconds.
    pub fn delays<U: FnMut(RangeInclusive<u64>) -> u64>(&self, uniform: U) -> Delays<U> {
        Delays { backoff: *self, position: Position::START, uniform }
    }

    /// The delay before the next retry, in nanoseconds, at most `left`. `None`: no delay is that
    /// short.
    pub(crate) fn next(
        &self,
        position: &mut Position,
        left: u64,
        uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
    ) -> Option<u64> {
        if self.is_off() {
            return Some(0);
        }
        position.retries = position.retries.saturating_add(1);
        let Self { base, cap, jitter, .. } = *self;
        let last = if position.retries == 1 { base } else { position.last };
        let point = Point { base, cap, last, ceiling: self.ceiling(position.retries) };
        position.last = jitter.draw(point, left, uniform)?;
        Some(position.last)
    }

    /// Whether every delay is zero: what grows from nothing, and has nothing added to it.
    const fn is_off(&self) -> bool {
        self.base == 0 && !matches!(self.jitter, Jitter::Additive(_) | Jitter::TenacityAdditive(_))
    }

    /// The ceiling before a retry, the first one being number 1: `min(cap, base · factor^(retry - 1))`.
    fn ceiling(&self, retry: u32) -> u64 {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base as f64 * self.factor.powi(exponent);
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        // The conversion saturates, and makes 0 of a NaN, which an infinite power of nothing would be.
        let grown = grown as u64;
        grown.min(self.cap)
    }
}

/// The delays of one call. Made by [`Backoff::delays`].
#[derive(Clone, Copy, Debug)]
pub struct Delays<U> {
    backoff: Backoff,
    position: Position,
    uniform: U,
}

impl<U: FnMut(RangeInclusive<u64>) -> u64> Iterator for Delays<U> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.backoff.next(&mut self.position, u64::MAX, &mut self.uniform).map(Duration::from_nanos)
    }
}
