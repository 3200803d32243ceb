//! Exponential backoff with jitter.
//!
//! Clients that failed together and wait equally long return together. A delay is therefore drawn
//! from a range around or below a ceiling that grows with every retry,
//! `min(max_backoff, initial_backoff · backoff_multiplier^(n-1))`.
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

/// How delays grow and how they are drawn: base, factor, cap and [`Jitter`] of a [`RetryPolicy`](crate::RetryPolicy), which checked
/// them.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::{Jitter, RetryPolicy};
///
/// let policy = RetryPolicy::builder().initial_backoff(Duration::from_secs(1)).jitter(Jitter::Equal).build()?;
/// let mut rng = fastrand::Rng::with_seed(7);
/// let delays: Vec<Duration> = policy.backoff().delays(|range| rng.u64(range)).take(5).collect();
/// assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&delays[0]));
/// assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&delays[4]), "half the cap to the cap");
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// In nanoseconds, like the maximum.
    pub(crate) initial: u64,
    pub(crate) multiplier: f64,
    pub(crate) max: u64,
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
    /// Returns the longest delay before the first retry.
    pub const fn initial_backoff(&self) -> Duration {
        Duration::from_nanos(self.initial)
    }

    /// Returns the factor by which the longest delay grows with every retry.
    pub const fn backoff_multiplier(&self) -> f64 {
        self.multiplier
    }

    /// Returns the delay that the longest delay grows to.
    pub const fn max_backoff(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns how delays are drawn.
    pub const fn jitter(&self) -> Jitter {
        self.jitter
    }

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

    /// Whether every delay is zero: what grows from nothing, and has nothing added to it.
    const fn is_zero(&self) -> bool {
        self.initial == 0 && !matches!(self.jitter, Jitter::Additive(_) | Jitter::TenacityAdditive(_))
    }

    /// The ceiling before a retry, the first one being number 1: `min(cap, base · factor^(retry - 1))`.
    fn ceiling(&self, retry: u32) -> u64 {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial as f64 * self.multiplier.powi(exponent);
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        // The conversion saturates, and makes 0 of a NaN, which an infinite power of nothing would be.
        let grown = grown as u64;
        grown.min(self.max)
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

/// How a delay is drawn. `c` is the ceiling, `min(cap, base · factor^(n-1))` before retry n; `last` is the delay before.
///
/// Ours draw uniformly, in nanoseconds, from a range that was cut at the cap; never first and cut afterwards, which would pile every
/// client up at the cap. Where a published formula does clamp, or goes over the cap, it stands here as well, under its name.
///
/// | jitter | a delay is drawn from | source |
/// |---|---|---|
/// | [`None`](Self::None) | `c` | |
/// | [`Full`](Self::Full), **the default** | `0 ..= c` | M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 |
/// | [`Equal`](Self::Equal) | `c/2 ..= c` | the same |
/// | [`Decorrelated`](Self::Decorrelated) | `base ..= min(cap, 3 · last)` | the same, cut |
/// | [`Proportional(f)`](Self::Proportional) | `c·(1-f) ..= min(cap, c·(1+f))` | cenkalti/backoff v4 with f = 0.5, cut |
/// | [`Additive(d)`](Self::Additive) | `min(c, cap-d) ..= min(cap, c+d)` | tenacity's `wait_exponential_jitter` with d = 5 s, moved below the cap |
/// | [`AwsDecorrelated`](Self::AwsDecorrelated) | `min(cap, base ..= 3 · last)` | the first article, to the letter |
/// | [`CenkaltiProportional(f)`](Self::CenkaltiProportional) | `c·(1-f) ..= c·(1+f)` | cenkalti/backoff v4, to the letter: up to `cap·(1+f)` |
/// | [`TenacityAdditive(d)`](Self::TenacityAdditive) | `min(cap, c ..= c+d)` | tenacity 8, to the letter |
///
/// Where less time is left for the call than the range allows, the range is cut at the time that is
/// left, as it is at the cap. If even its lower end does not fit, there is no retry.
///
/// A server's own delay (`Retry-After`, pushback) is stretched by up to half of it, at most 5 s,
/// with every jitter except `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// The ceiling itself. For tests, and for a single client.
    None,
    /// Anything up to the ceiling: the least load on the server for the same number of retries.
    #[default]
    Full,
    /// Between half the ceiling and the ceiling: no retry follows at once.
    Equal,
    /// Between the base and three times the last delay. It grows by its own draws: the factor has no part in it.
    Decorrelated,
    /// Around the ceiling, by a share of it, 0 to 1.
    Proportional(f64),
    /// Up to so much above the ceiling, 0 to 365 days. Where the cap would leave less room than that, the range is moved below it, so that
    /// delays that have come to the cap are still spread.
    Additive(Duration),
    /// As `Decorrelated`, but clamped: in the long run a third and more of the delays are the cap itself.
    AwsDecorrelated,
    /// As `Proportional`, but not cut: a delay may pass the cap by the share.
    CenkaltiProportional(f64),
    /// As `Additive`, but clamped: in the long run every delay is the cap itself.
    TenacityAdditive(Duration),
}

/// The longest that a server's own delay is stretched: 5 s.
const MAX_STRETCH: u64 = 5_000_000_000;

/// Where on its way a delay is drawn. Times are in nanoseconds; neither base, ceiling nor last is over the cap, or the published variant
/// that made it so is in use.
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
        // The clamped variants draw first and are cut afterwards: that is what their names stand
        // for.
        let clamped = matches!(self, Self::AwsDecorrelated | Self::TenacityAdditive(_));
        Some(if clamped { delay.min(at.max) } else { delay })
    }

    /// The range that a delay is drawn from.
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

    /// Stretches a delay that a server asked for by up to half of it, to at most `left`, and never
    /// shortens it: clients that received the same delay do not return in the same millisecond.
    /// `None`: the delay itself is longer than `left`.
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

/// How late tokio's timer may fire: it counts in whole milliseconds.
const TIMER_TICK: u64 = 1_000_000;

/// Draws from `range`, cut at `left`. The cut keeps a timer tick free, so that the timer's rounding
/// does not carry a delay past the end.
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

/// A share, 0 to 1, of a time.
fn share_of(time: u64, share: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
    let part = (time as f64 * share) as u64;
    part.min(time)
}

/// A duration in whole nanoseconds, cut at the end of a `u64`: 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
