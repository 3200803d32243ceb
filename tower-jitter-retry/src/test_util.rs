//! Helpers for tests of code that uses this crate (feature `test-util`).
//!
//! Enable the feature in `[dev-dependencies]`. It also enables the feature `test-util` of tokio.
//!
//! | to test | use |
//! |---|---|
//! | the settings of a policy, without a service and without waiting | [`decisions`] |
//! | deposits and withdrawals | [`CountingBudget`] |
//! | a call without a budget, or with one that is empty | `.budget(None)`, `Budget::tokens().initial(0)` |
//! | code that reads the history of a call | [`retried`], [`attach_retried`] |
//! | a function for [`on_retry`](crate::RetryPolicyBuilder::on_retry) | [`retry_event`] |
//! | delays, timeouts and window budgets | [`clock`]; a policy itself has [`Clock::tokio`](crate::Clock::tokio) by default |
//!
//! [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) shows how
//! to use them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[doc(inline)]
pub use tower_fault_classify::__internals::{TestClock, test_clock as clock};
use tower_fault_classify::{ClassifiedError, Fault, Verdict};

use crate::budget::{Budget, BudgetStatus, RetryBudget, Ticket};
use crate::decision::{CallOptions, Decision};
use crate::policy::{RetryEvent, RetryPolicy};
use crate::telemetry::Retried;

/// Returns what a policy decides after each of the given outcomes of one call.
///
/// An outcome is a [`Verdict`] or a [`Fault`]. The call ends at the first decision that is not
/// [`Decision::Retry`]; the outcomes after it are not used.
///
/// Time passes only by the delays, so nothing waits, and no runtime is needed. The decisions are
/// those of the layer for attempts that take no time, including the server's hints, all limits, and
/// the budget, whose tokens the call uses. A window budget reads its own clock.
/// [`on_retry`](crate::RetryPolicyBuilder::on_retry) is not called, but the condition of
/// [`retry_while`](crate::RetryPolicyBuilder::retry_while) is checked.
///
/// The delays are random, unless the policy has a [`seed`](crate::RetryPolicyBuilder::seed) or
/// [`Jitter::None`](crate::Jitter::None).
///
/// ```
/// use std::io;
/// use std::time::Duration;
///
/// use tower_jitter_retry::decision::{CallOptions, Decision};
/// use tower_jitter_retry::fault_classify::classify_error;
/// use tower_jitter_retry::{GiveUp, Jitter, RetryPolicy, test_util};
///
/// let policy = RetryPolicy::builder().jitter(Jitter::None).build()?;
/// let reset = classify_error(&io::Error::from(io::ErrorKind::ConnectionReset));
///
/// let decisions = test_util::decisions(&policy, CallOptions::new(), [reset; 3]);
/// let delay = Duration::from_millis;
/// assert_eq!(decisions, [
///     Decision::Retry { delay: delay(100) },
///     Decision::Retry { delay: delay(200) },
///     Decision::GiveUp(GiveUp::Attempts),
/// ]);
///
/// let post = CallOptions::new().idempotent(false);
/// let decisions = test_util::decisions(&policy, post, [reset]);
/// assert_eq!(decisions, [Decision::GiveUp(GiveUp::NotIdempotent)]);
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
pub fn decisions<V: Into<Verdict>>(
    policy: &RetryPolicy,
    options: CallOptions<'_>,
    outcomes: impl IntoIterator<Item = V>,
) -> Vec<Decision> {
    let mut now = Duration::ZERO;
    let mut call = policy.begin(options, now);
    let mut decisions = Vec::new();
    for outcome in outcomes {
        let decision = call.record(&outcome.into(), now);
        decisions.push(decision);
        let Decision::Retry { delay } = decision else { break };
        now = now.saturating_add(delay);
    }
    decisions
}

/// Wraps a budget, and counts its deposits, withdrawals and refusals.
///
/// Clones share the counts. The budget in it decides about every retry.
///
/// ```
/// use tower_jitter_retry::decision::CallOptions;
/// use tower_jitter_retry::fault_classify::classify_error;
/// use tower_jitter_retry::test_util::{self, CountingBudget};
/// use tower_jitter_retry::{Budget, RetryPolicy};
///
/// let counting = CountingBudget::new(Budget::tokens().initial(1).build()?);
/// let policy = RetryPolicy::builder().budget(counting.budget()).build()?;
/// let refused = classify_error(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
///
/// test_util::decisions(&policy, CallOptions::new(), [refused; 3]);
/// assert_eq!((counting.deposits(), counting.withdrawals(), counting.refusals()), (1, 1, 1));
/// assert_eq!(counting.status().and_then(|status| status.tokens), Some(0.0));
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CountingBudget(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    budget: Budget,
    deposits: AtomicU64,
    withdrawals: AtomicU64,
    refusals: AtomicU64,
}

impl CountingBudget {
    /// Counts the use of `budget`: one of this crate, or a [`Budget::custom`].
    ///
    /// The use of other handles to `budget` is not counted.
    pub fn new(budget: Budget) -> Self {
        let [deposits, withdrawals, refusals] = [const { AtomicU64::new(0) }; 3];
        Self(Arc::new(Counted { budget, deposits, withdrawals, refusals }))
    }

    /// Returns the budget for [`RetryPolicyBuilder::budget`](crate::RetryPolicyBuilder::budget).
    ///
    /// It is a custom budget: a policy with it cannot be written to a file.
    pub fn budget(&self) -> Budget {
        Budget::custom(self.clone())
    }

    /// Returns the number of deposits: one for each call that has ended its first attempt.
    pub fn deposits(&self) -> u64 {
        self.0.deposits.load(Ordering::Relaxed)
    }

    /// Returns the number of retries that the budget granted.
    pub fn withdrawals(&self) -> u64 {
        self.0.withdrawals.load(Ordering::Relaxed)
    }

    /// Returns the number of retries that the budget refused.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.load(Ordering::Relaxed)
    }

    /// Returns what is left in the wrapped budget now: see [`Budget::status`].
    pub fn status(&self) -> Option<BudgetStatus> {
        self.0.budget.status()
    }
}

impl RetryBudget for CountingBudget {
    fn deposit(&self, verdict: &Verdict) {
        self.0.deposits.fetch_add(1, Ordering::Relaxed);
        self.0.budget.deposit(verdict);
    }

    fn withdraw(&self, fault: &Fault) -> Option<Ticket> {
        let ticket = self.0.budget.withdraw(fault);
        let count = if ticket.is_some() { &self.0.withdrawals } else { &self.0.refusals };
        count.fetch_add(1, Ordering::Relaxed);
        ticket
    }
}

/// Creates the history of a call that succeeded after `attempts` attempts.
///
/// Its time is zero. Set the fields that the test needs. A response carries it in its extensions;
/// for an error, see [`attach_retried`].
///
/// ```
/// use http::Response;
/// use tower_jitter_retry::{GiveUp, Retried, test_util};
///
/// /// The code under test.
/// fn ran_out_of_attempts<B>(response: &Response<B>) -> bool {
///     let retried = response.extensions().get::<Retried>();
///     retried.is_some_and(|retried| retried.ended == Some(GiveUp::Attempts))
/// }
///
/// let mut retried = test_util::retried(3);
/// retried.ended = Some(GiveUp::Attempts);
/// let mut response = Response::new(());
/// response.extensions_mut().insert(retried);
/// assert!(ran_out_of_attempts(&response));
/// ```
pub const fn retried(attempts: u32) -> Retried {
    Retried { attempts, elapsed: Duration::ZERO, ended: None, last_sent: None }
}

/// Attaches the history of a call to its error, where [`Retried::of`] finds it.
///
/// # Panics
///
/// Panics if no error in the source chain can carry the history. Only a [`ClassifiedError`] can:
/// see [`Retried::of`].
///
/// ```
/// use tower_jitter_retry::fault_classify::{ClassifiedError, classify_error};
/// use tower_jitter_retry::{GiveUp, Retried, test_util};
///
/// let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// let error = ClassifiedError::new(classify_error(&reset), reset);
/// let mut retried = test_util::retried(3);
/// retried.ended = Some(GiveUp::Attempts);
/// test_util::attach_retried(&error, retried);
/// assert_eq!(Retried::of(&error), Some(retried));
/// ```
#[track_caller]
pub fn attach_retried(error: &(dyn Error + 'static), retried: Retried) {
    let Some(classified) = ClassifiedError::find(error) else {
        panic!("the error `{error}` contains no `ClassifiedError` to which the history is attached");
    };
    classified.set_note(retried);
}

/// Creates the event that [`on_retry`](crate::RetryPolicyBuilder::on_retry) reports before a retry.
///
/// `attempt` is the number of the attempt that failed, from 1, and `delay` the time before the next
/// attempt. The time since the start of the call is zero. Set it, if the test needs it.
///
/// ```
/// use std::time::Duration;
///
/// use tower_jitter_retry::fault_classify::classify_error;
/// use tower_jitter_retry::test_util;
///
/// let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// let mut event = test_util::retry_event(1, classify_error(&reset), Duration::from_millis(100));
/// event.elapsed = Duration::from_millis(30);
/// ```
pub const fn retry_event(attempt: u32, fault: Fault, delay: Duration) -> RetryEvent {
    RetryEvent { attempt, fault, delay, elapsed: Duration::ZERO }
}
