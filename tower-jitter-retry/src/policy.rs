//! What is retried, when: the configuration, and the decision, which is a plain function.

use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__shared::{Clock, ConfigError};
use tower_fault_classify::{Fault, Retry};

use crate::backoff::{Backoff, Jitter, Position};
use crate::budget::Budget;
use crate::request::RetrySafety;
use crate::rng::Seeds;

const ATTEMPTS: RangeInclusive<u32> = 1..=1_000;
const FACTORS: RangeInclusive<f64> = 1.0..=1_000.0;
const SHARES: RangeInclusive<f64> = 0.0..=1.0;
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is retried, how often and after which delay.
///
/// | what | default |
/// |---|---|
/// | [`max_attempts`](RetryPolicyBuilder::max_attempts) | 3, the first included |
/// | [`base`](RetryPolicyBuilder::base), [`factor`](RetryPolicyBuilder::factor), [`cap`](RetryPolicyBuilder::cap) | 100 ms, doubled with every retry, up to 10 s |
/// | [`jitter`](RetryPolicyBuilder::jitter) | [`Jitter::Full`] |
/// | [`max_elapsed`](RetryPolicyBuilder::max_elapsed) | 2 minutes |
/// | [`longest_hint`](RetryPolicyBuilder::longest_hint) | a server's own delay is kept up to 60 s |
/// | [`budget`](RetryPolicyBuilder::budget) | [`Budget::default`]: 20 % of the requests, and 10 retries a second |
/// | [`safety`](RetryPolicyBuilder::safety) | [`RetrySafety::ByRequest`] |
///
/// Clones share the budget.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::RetryPolicy;
///
/// let default = RetryPolicy::default();
/// let eager = RetryPolicy::builder().max_attempts(5).base(Duration::from_millis(20)).build()?;
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub(crate) limits: Limits,
    pub(crate) budget: Option<Budget>,
    pub(crate) clock: Clock,
    pub(crate) seeds: Option<Seeds>,
}

/// The numbers that decide. They are copied into every call. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_attempts: u32,
    pub(crate) safety: RetrySafety,
    pub(crate) backoff: Backoff,
    max_elapsed: Option<u64>,
    longest_hint: u64,
}

impl RetryPolicy {
    /// A builder with the defaults.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder {
            max_attempts: 3,
            base: Duration::from_millis(100),
            factor: 2.0,
            cap: Duration::from_secs(10),
            jitter: Jitter::Full,
            max_elapsed: Some(Duration::from_secs(120)),
            longest_hint: Duration::from_secs(60),
            safety: RetrySafety::ByRequest,
            budget: Spending::Default,
            clock: None,
            seed: None,
        }
    }
}

impl RetryPolicy {
    /// How its delays grow and are drawn.
    pub const fn backoff(&self) -> Backoff {
        self.limits.backoff
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let policy = Self::builder().build();
        // A test holds that the defaults are in their ranges.
        policy.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// What a call has behind it when one of its attempts failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts that were made, at least 1.
    pub(crate) attempts: u32,
    /// Nanoseconds since the call began.
    pub(crate) elapsed: u64,
    /// Doing it twice is the same as once.
    pub(crate) idempotent: bool,
    /// How far the backoff has come.
    pub(crate) position: Position,
}

impl Limits {
    /// After how many nanoseconds the call is sent again. `None`: it is not, and what it came to is the caller's.
    pub(crate) fn delay(
        &self,
        fault: &Fault,
        progress: &mut Progress,
        uniform: impl FnOnce(RangeInclusive<u64>) -> u64,
    ) -> Option<u64> {
        let permitted = match fault.retry() {
            Retry::Always => true,
            Retry::IfIdempotent => progress.idempotent,
            _ => false,
        };
        if !permitted || progress.attempts >= self.max_attempts {
            return None;
        }
        let delay = match fault.retry_after() {
            Some(hint) if !hint.is_zero() => {
                let hint = nanos(hint);
                if hint > self.longest_hint {
                    return None;
                }
                // What the server asks for says more than the attempts before it.
                progress.position = Position::START;
                self.backoff.jitter.stretch(hint, uniform)
            }
            // A hint of 0 says that any time will do: the backoff knows a good one.
            _ => self.backoff.next(&mut progress.position, uniform),
        };
        let fits = self.max_elapsed.is_none_or(|max| progress.elapsed.saturating_add(delay) <= max);
        fits.then_some(delay)
    }
}

/// A duration in whole nanoseconds, cut at the end of a `u64`: 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Builds a [`RetryPolicy`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicyBuilder {
    max_attempts: u32,
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: Jitter,
    max_elapsed: Option<Duration>,
    longest_hint: Duration,
    safety: RetrySafety,
    budget: Spending,
    clock: Option<Clock>,
    seed: Option<u64>,
}

#[derive(Clone, Debug)]
enum Spending {
    Default,
    Given(Option<Budget>),
}

impl RetryPolicyBuilder {
    /// How often a request is sent at most, the first time included, 1 to 1,000. 1: never again. **Default**: 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest delay before the first retry, 0 to [`cap`](Self::cap). 0: retries follow at once, without a timer.
    /// **Default**: 100 ms.
    pub fn base(mut self, delay: Duration) -> Self {
        self.base = delay;
        self
    }

    /// What the longest delay is multiplied with at every further retry, 1 to 1,000. **Default**: 2.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// What the longest delay grows to, 0 to 365 days. **Default**: 10 s.
    pub fn cap(mut self, delay: Duration) -> Self {
        self.cap = delay;
        self
    }

    /// How a delay is drawn around or below the longest one; a share in it is 0 to 1, a time 0 to 365 days. **Default**:
    /// [`Jitter::Full`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long after the call began (when it first had to wait) the last retry may start, up to 365 days; `None`: at any time. A sleep that would end later
    /// is not begun; the outcome at hand is returned at once. **Default**: 2 minutes.
    pub fn max_elapsed(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.max_elapsed = time.into();
        self
    }

    /// The longest delay of a server's own (`Retry-After`) that is waited for, 0 to 365 days. A longer one ends the retries, and so
    /// does one that does not fit into [`max_elapsed`](Self::max_elapsed). It takes the backoff's place, also of a longer one, and
    /// the backoff begins anew after it; a delay of 0 and a header that makes no sense leave it to the backoff. The delay is stretched by up to half of it, at most 5 s, so that clients that were told the same do not return at once.
    /// **Default**: 60 s.
    pub fn longest_hint(mut self, delay: Duration) -> Self {
        self.longest_hint = delay;
        self
    }

    /// Whether requests may be sent twice though the first may have been processed. A request's own word goes before it.
    /// **Default**: [`RetrySafety::ByRequest`].
    pub fn safety(mut self, safety: RetrySafety) -> Self {
        self.safety = safety;
        self
    }

    /// What retries are paid from; `None`: without bound. **Default**: a [`Budget::default`] of the policy's own.
    pub fn budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = Spending::Given(budget.into());
        self
    }

    /// Where the time is read that [`max_elapsed`](Self::max_elapsed) counts. Delays are slept on tokio's timer. **Default**: the
    /// budget's clock, if it has one; else [`Clock::coarse`]. A budget counts by its own.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes the delays reproducible: the calls draw from streams that follow from the seed, each from its own. **Default**: off.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<RetryPolicy, ConfigError> {
        ConfigError::check("max_attempts", self.max_attempts, ATTEMPTS)?;
        ConfigError::check("cap", self.cap, Duration::ZERO..=LONGEST)?;
        ConfigError::check("base", self.base, Duration::ZERO..=self.cap)?;
        ConfigError::check("factor", self.factor, FACTORS)?;
        match self.jitter {
            Jitter::Proportional(share) | Jitter::CenkaltiProportional(share) => {
                ConfigError::check("jitter", share, SHARES)?;
            }
            Jitter::Additive(most) | Jitter::TenacityAdditive(most) => {
                ConfigError::check("jitter", most, Duration::ZERO..=LONGEST)?;
            }
            _ => {}
        }
        if let Some(time) = self.max_elapsed {
            ConfigError::check("max_elapsed", time, Duration::ZERO..=LONGEST)?;
        }
        ConfigError::check("longest_hint", self.longest_hint, Duration::ZERO..=LONGEST)?;
        let budget = match self.budget {
            Spending::Given(budget) => budget,
            Spending::Default => match &self.clock {
                // The budget of a test stands on the test's clock.
                Some(clock) => Some(Budget::builder().clock(clock.clone()).build()?),
                None => Some(Budget::default()),
            },
        };
        let clock = self.clock.or_else(|| budget.as_ref()?.clock().cloned()).unwrap_or_default();
        Ok(RetryPolicy {
            limits: Limits {
                max_attempts: self.max_attempts,
                safety: self.safety,
                backoff: Backoff {
                    base: nanos(self.base),
                    factor: self.factor,
                    cap: nanos(self.cap),
                    jitter: self.jitter,
                },
                max_elapsed: self.max_elapsed.map(nanos),
                longest_hint: nanos(self.longest_hint),
            },
            budget,
            clock,
            seeds: self.seed.map(Seeds::from),
        })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Health, Kind, Origin};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const FAULT: Fault = Fault::new(Kind::Unavailable, Retry::IfIdempotent, Health::Failure, Origin::Remote);

    const FIRST: Progress = Progress { attempts: 1, elapsed: 0, idempotent: true, position: Position::START };

    fn limits(builder: RetryPolicyBuilder) -> Limits {
        builder.build().unwrap().limits
    }

    /// The delay if every draw takes the largest.
    fn longest(limits: &Limits, fault: &Fault, mut progress: Progress) -> Option<u64> {
        limits.delay(fault, &mut progress, |range| *range.end())
    }

    #[test]
    fn the_fate_and_the_idempotency_decide() {
        let limits = limits(RetryPolicy::builder());
        let delay = |retry, idempotent| {
            longest(&limits, &FAULT.with_retry(retry), Progress { idempotent, ..FIRST }).is_some()
        };
        assert!(delay(Retry::Always, false) && delay(Retry::Always, true));
        assert!(delay(Retry::IfIdempotent, true) && !delay(Retry::IfIdempotent, false));
        assert!(!delay(Retry::Never, true));
    }

    #[test]
    fn it_is_sent_three_times_in_all_with_growing_delays() {
        let limits = limits(RetryPolicy::builder());
        let mut progress = FIRST;
        let mut delay = |attempts| {
            progress.attempts = attempts;
            limits.delay(&FAULT, &mut progress, |range| *range.end())
        };
        assert_eq!(delay(1), Some(SECOND / 10));
        assert_eq!(delay(2), Some(SECOND / 5));
        assert_eq!(delay(3), None);
    }

    #[test]
    fn the_backoff_begins_anew_after_a_servers_delay() {
        let limits = limits(RetryPolicy::builder().max_attempts(10));
        let mut progress = FIRST;
        let pushback = FAULT.with_retry_after(Duration::from_secs(2));
        let mut delay = |fault| limits.delay(fault, &mut progress, |range| *range.end()).unwrap();
        let delays = [&FAULT, &FAULT, &FAULT, &pushback, &FAULT, &FAULT].map(&mut delay);
        let tenth = SECOND / 10;
        assert_eq!(delays, [tenth, 2 * tenth, 4 * tenth, 3 * SECOND, tenth, 2 * tenth]);
    }

    #[test]
    fn a_servers_delay_takes_the_backoffs_place_and_is_never_shortened() {
        let limits = limits(RetryPolicy::builder());
        let hinted = |delay| FAULT.with_retry_after(delay);
        let four = hinted(Duration::from_secs(4));
        assert_eq!(limits.delay(&four, &mut { FIRST }, |range| *range.start()), Some(4 * SECOND));
        assert_eq!(longest(&limits, &four, FIRST), Some(6 * SECOND));
        assert_eq!(
            longest(&limits, &hinted(Duration::from_secs(60)), FIRST),
            Some(65 * SECOND),
            "at the cap"
        );
        assert_eq!(longest(&limits, &hinted(Duration::from_millis(60_001)), FIRST), None, "over the cap");
        assert_eq!(longest(&limits, &hinted(Duration::MAX), FIRST), None);
        assert_eq!(longest(&limits, &hinted(Duration::ZERO), FIRST), Some(SECOND / 10), "any time will do");
    }

    #[test]
    fn a_sleep_that_would_not_fit_is_not_begun() {
        let bounded = limits(RetryPolicy::builder().max_elapsed(Duration::from_secs(10)));
        let at = |elapsed| longest(&bounded, &FAULT, Progress { elapsed, ..FIRST });
        assert_eq!(at(10 * SECOND - SECOND / 10), Some(SECOND / 10), "it ends just in time");
        assert_eq!(at(10 * SECOND - SECOND / 10 + 1), None);
        assert_eq!(at(u64::MAX), None);
        let unbounded = limits(RetryPolicy::builder().max_elapsed(None));
        assert!(longest(&unbounded, &FAULT, Progress { elapsed: u64::MAX, ..FIRST }).is_some());
    }

    #[test]
    fn what_is_out_of_range_is_named_with_value_and_range() {
        let field = |builder: RetryPolicyBuilder| builder.build().expect_err("it is out of range").field();
        let policy = RetryPolicy::builder;
        assert_eq!(field(policy().max_attempts(0)), "max_attempts");
        assert_eq!(field(policy().max_attempts(1_001)), "max_attempts");
        for factor in [0.0, 0.999, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(field(policy().factor(factor)), "factor");
        }
        for share in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(policy().jitter(Jitter::Proportional(share))), "jitter");
            assert_eq!(field(policy().jitter(Jitter::CenkaltiProportional(share))), "jitter");
        }
        for jitter in [Jitter::Additive(Duration::MAX), Jitter::TenacityAdditive(Duration::MAX)] {
            assert_eq!(field(policy().jitter(jitter)), "jitter");
        }
        let error = policy().base(Duration::from_secs(11)).build().unwrap_err();
        assert_eq!(error.to_string(), "`base` is 11s; allowed is 0ns to 10s");
        for builder in [
            policy().cap(Duration::MAX),
            policy().max_elapsed(Duration::MAX),
            policy().longest_hint(Duration::MAX),
        ] {
            assert!(["cap", "max_elapsed", "longest_hint"].contains(&field(builder)));
        }
        assert!(
            policy().base(Duration::ZERO).cap(Duration::ZERO).max_elapsed(Duration::ZERO).build().is_ok()
        );
    }

    #[test]
    fn clones_share_the_budget_and_every_policy_has_its_own() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.budget, policy.clone().budget);
        assert_ne!(policy.budget, RetryPolicy::default().budget);
        assert!(RetryPolicy::builder().budget(None).build().unwrap().budget.is_none());
    }
}
