//! Exponential backoff with jitter.
//!
//! Clients that failed together and wait equally long return together. A delay is therefore drawn
//! at random, from a range around or below a ceiling. The ceiling grows with every retry: it is
//! `min(max_backoff, initial_backoff · backoff_multiplier^(n-1))` before retry n.
//!
//! - [`Jitter`] selects the range.
//! - [`Backoff`] is the formula of a [`RetryPolicy`](crate::RetryPolicy);
//!   [`RetryPolicy::backoff`](crate::RetryPolicy::backoff) returns it.
//! - [`Delays`] iterates over the delays of one call.

// Pure arithmetic in nanoseconds. The maximum is applied last.

#[cfg(all(test, not(loom_models)))]
mod tests;

use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

/// The backoff of a [`RetryPolicy`](crate::RetryPolicy): how its delays grow and are drawn.
///
/// It contains the initial ceiling, the multiplier, the maximum and the [`Jitter`]. The policy has
/// checked their ranges.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::{Jitter, RetryPolicy};
///
/// let policy = RetryPolicy::builder().initial_backoff(Duration::from_secs(1)).jitter(Jitter::Equal).build()?;
/// let mut rng = fastrand::Rng::with_seed(7);
/// let delays: Vec<Duration> = policy.backoff().delays(|range| rng.u64(range)).take(5).collect();
///
/// // `Jitter::Equal` draws from half the ceiling to the ceiling: 1 s at first, and 10 s at most.
/// assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&delays[0]));
/// assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&delays[4]));
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// In nanoseconds, as is `max`.
    pub(crate) initial: u64,
    pub(crate) multiplier: f64,
    pub(crate) max: u64,
    pub(crate) jitter: Jitter,
}

/// The progress of one call through its delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    retries: u32,
    last: u64,
}

impl Position {
    /// The position before the first delay.
    pub(crate) const START: Self = Self { retries: 0, last: 0 };
}

impl Backoff {
    /// Returns the ceiling of the delay before the first retry.
    pub const fn initial_backoff(&self) -> Duration {
        Duration::from_nanos(self.initial)
    }

    /// Returns the factor by which the ceiling grows with every further retry.
    pub const fn backoff_multiplier(&self) -> f64 {
        self.multiplier
    }

    /// Returns the maximum that the ceiling grows to.
    pub const fn max_backoff(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns how a delay is drawn in relation to its ceiling.
    pub const fn jitter(&self) -> Jitter {
        self.jitter
    }

    /// Returns an endless iterator over the delays of one call.
    ///
    /// `uniform` must return a value from the given range of nanoseconds, with a uniform
    /// distribution.
    pub fn delays<U: FnMut(RangeInclusive<u64>) -> u64>(&self, uniform: U) -> Delays<U> {
        Delays { backoff: *self, position: Position::START, uniform }
    }

    /// Returns the delay before the next retry, in nanoseconds and at most `left`. `None` means
    /// that no delay is that short.
    pub(crate) fn next(
        &self,
        position: &mut Position,
        left: u64,
        uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
    ) -> Option<u64> {
        if self.is_zero() {
            return Some(0);
        }
        position.retries = position.retries.saturating_add(1);
        let Self { initial, max, jitter, .. } = *self;
        let last = if position.retries == 1 { initial } else { position.last };
        let point = DrawContext { initial, max, last, ceiling: self.ceiling(position.retries) };
        position.last = jitter.draw(point, left, uniform)?;
        Some(position.last)
    }

    /// Returns whether every delay is zero: the initial ceiling is zero, and the jitter adds
    /// nothing.
    pub(crate) const fn is_zero(&self) -> bool {
        self.initial == 0 && !matches!(self.jitter, Jitter::Additive(_) | Jitter::TenacityAdditive(_))
    }

    /// Returns the ceiling before a retry, `min(cap, base · factor^(retry - 1))`. The first retry
    /// has number 1.
    fn ceiling(&self, retry: u32) -> u64 {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial as f64 * self.multiplier.powi(exponent);
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        // The conversion saturates. It turns a NaN into 0, which is the product of a zero initial
        // ceiling and an infinite power.
        let grown = grown as u64;
        grown.min(self.max)
    }
}

/// An iterator over the delays of one call, returned by [`Backoff::delays`].
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

/// How a delay is drawn in relation to its ceiling.
///
/// The table uses these names. All times are in nanoseconds.
///
/// | name | meaning |
/// |---|---|
/// | `base` | [`initial_backoff`](crate::RetryPolicyBuilder::initial_backoff) |
/// | `factor` | [`backoff_multiplier`](crate::RetryPolicyBuilder::backoff_multiplier) |
/// | `cap` | [`max_backoff`](crate::RetryPolicyBuilder::max_backoff) |
/// | `c` | the ceiling before retry n: `min(cap, base · factor^(n-1))` |
/// | `last` | the previous delay of the backoff, without a server's hint; `base` before the first retry and after a pushback |
///
/// | jitter | a delay is drawn from | source |
/// |---|---|---|
/// | [`None`](Self::None) | `c` | |
/// | [`Full`](Self::Full), **the default** | `0 ..= c` | M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 |
/// | [`Equal`](Self::Equal) | `c/2 ..= c` | the same article |
/// | [`Decorrelated`](Self::Decorrelated) | `base ..= min(cap, 3 · last)` | the same article, cut at the cap |
/// | [`Proportional(f)`](Self::Proportional) | `c·(1-f) ..= min(cap, c·(1+f))` | cenkalti/backoff v4 with f = 0.5, cut at the cap |
/// | [`Additive(d)`](Self::Additive) | `min(c, cap-d) ..= min(cap, c+d)` | tenacity's `wait_exponential_jitter` with d = 5 s, moved below the cap |
/// | [`AwsDecorrelated`](Self::AwsDecorrelated) | `min(cap, base ..= 3 · last)` | the article by M. Brooker, unchanged |
/// | [`CenkaltiProportional(f)`](Self::CenkaltiProportional) | `c·(1-f) ..= c·(1+f)` | cenkalti/backoff v4, unchanged: up to `cap·(1+f)` |
/// | [`TenacityAdditive(d)`](Self::TenacityAdditive) | `min(cap, c ..= c+d)` | tenacity 8, unchanged |
///
/// The draws are uniform. The first six variants draw from a range that is cut at the cap. They
/// never draw first and cut afterwards, because then many clients would wait for exactly the cap.
/// The last three variants are published formulas that clamp at the cap or exceed it.
///
/// If the call has less time left than the range allows, the range is cut at the time that is left.
/// If even the lower end of the range does not fit, there is no retry.
///
/// A delay that a server asks for (`Retry-After`, pushback) is stretched by up to half of it, at
/// most 5 s, with every jitter except `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// Waits for exactly the ceiling; for tests, and for a single client.
    None,
    /// Draws from 0 to the ceiling; the default.
    ///
    /// It puts the least load on the server for the same number of retries.
    #[default]
    Full,
    /// Draws from half the ceiling to the ceiling.
    ///
    /// No retry follows immediately.
    Equal,
    /// Draws from the base to three times the last delay, cut at the cap.
    ///
    /// The delays grow by their own draws. The factor has no effect.
    Decorrelated,
    /// Draws around the ceiling, up to this share of it below and above.
    ///
    /// Range: 0 to 1.
    Proportional(f64),
    /// Draws from the ceiling to this time above it.
    ///
    /// Range: 0 to 365 days. If the cap leaves less room than that, the range is moved below the
    /// cap. Delays that have reached the cap are therefore still spread.
    Additive(Duration),
    /// Like `Decorrelated`, but clamped at the cap after the draw.
    ///
    /// In the long run, a third or more of the delays equal the cap.
    AwsDecorrelated,
    /// Like `Proportional`, but not cut: a delay may exceed the cap by the share.
    ///
    /// Range: 0 to 1.
    CenkaltiProportional(f64),
    /// Like `Additive`, but clamped at the cap after the draw.
    ///
    /// Range: 0 to 365 days. In the long run, every delay equals the cap.
    TenacityAdditive(Duration),
}

/// The longest time by which a delay that a server asks for is stretched: 5 s.
const MAX_STRETCH: u64 = 5_000_000_000;

/// The inputs of a draw, in nanoseconds. `initial`, `ceiling` and `last` do not exceed `max`,
/// except where a published variant that exceeds the cap produced `last`.
#[derive(Clone, Copy, Debug)]
struct DrawContext {
    initial: u64,
    max: u64,
    last: u64,
    ceiling: u64,
}

impl Jitter {
    /// Returns the name of the jitter, in `snake_case`, without its parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Equal => "equal",
            Self::Decorrelated => "decorrelated",
            Self::Proportional(_) => "proportional",
            Self::Additive(_) => "additive",
            Self::AwsDecorrelated => "aws_decorrelated",
            Self::CenkaltiProportional(_) => "cenkalti_proportional",
            Self::TenacityAdditive(_) => "tenacity_additive",
        }
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Jitter {
    /// Draws a delay of at most `left`, or returns `None` if no delay of this jitter is that short.
    /// `uniform` draws from a range.
    fn draw(
        self,
        at: DrawContext,
        left: u64,
        uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
    ) -> Option<u64> {
        let delay = draw_within(self.range(at), left, uniform)?;
        // As their published formulas do, the clamped variants draw first and cut afterwards.
        let clamped = matches!(self, Self::AwsDecorrelated | Self::TenacityAdditive(_));
        Some(if clamped { delay.min(at.max) } else { delay })
    }

    /// Returns the range that a delay is drawn from.
    fn range(self, at: DrawContext) -> RangeInclusive<u64> {
        let DrawContext { initial, max, last, ceiling } = at;
        match self {
            Self::None => ceiling..=ceiling,
            Self::Full => 0..=ceiling,
            Self::Equal => ceiling / 2..=ceiling,
            Self::Decorrelated => initial..=last.saturating_mul(3).min(max),
            Self::Proportional(share) => {
                let width = share_of(ceiling, share);
                ceiling - width..=ceiling.saturating_add(width).min(max)
            }
            Self::Additive(most) => {
                let most = nanos(most).min(max);
                ceiling.min(max - most)..=ceiling.saturating_add(most).min(max)
            }
            Self::AwsDecorrelated => initial..=last.saturating_mul(3),
            Self::CenkaltiProportional(share) => {
                let width = share_of(ceiling, share);
                ceiling - width..=ceiling.saturating_add(width)
            }
            Self::TenacityAdditive(most) => ceiling..=ceiling.saturating_add(nanos(most)),
        }
    }

    /// Stretches a delay that a server asked for by up to half of it, to at most `left`. It never
    /// shortens the delay. Clients that received the same delay therefore do not return in the same
    /// millisecond.
    ///
    /// `None` means that the delay itself is longer than `left`.
    pub(crate) fn stretch(
        self,
        delay: u64,
        left: u64,
        uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
    ) -> Option<u64> {
        let most = match self {
            Self::None => 0,
            _ => (delay / 2).min(MAX_STRETCH),
        };
        draw_within(delay..=delay.saturating_add(most), left, uniform)
    }
}

/// The longest time that tokio's timer may fire late: it counts in whole milliseconds.
const TIMER_TICK: u64 = 1_000_000;

/// Draws from `range`, cut at `left`. The cut keeps one timer tick free, so that the timer's
/// rounding does not carry a delay past the end.
fn draw_within(
    range: RangeInclusive<u64>,
    left: u64,
    uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
) -> Option<u64> {
    let (shortest, mut longest) = range.into_inner();
    if shortest > left {
        return None;
    }
    if longest > left {
        longest = left.saturating_sub(TIMER_TICK).max(shortest);
    }
    // A range of one value needs no random number.
    Some(if shortest == longest { shortest } else { uniform(shortest..=longest) })
}

/// Returns a share, 0 to 1, of a time.
fn share_of(time: u64, share: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
    let part = (time as f64 * share) as u64;
    part.min(time)
}

/// Returns a duration in whole nanoseconds. It saturates at the maximum of a `u64`, 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
