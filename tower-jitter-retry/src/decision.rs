//! The retry decision without I/O: an outcome and a time in, a delay or a stop out.
//!
//! [`RetryPolicy::begin`] returns a [`RetryCall`], the state of one call. It counts the attempts,
//! draws the delays, applies all limits, and uses the policy's budget. It has no clock and no
//! timer: the caller passes the time, waits, and sends the request. [`JitterRetryLayer`] uses this
//! type for its own decisions.
//!
//! The default budget reads no clock. A [window budget](crate::Budget::window) reads its own clock,
//! because all its calls share it. In virtual time, give it a [manual clock](crate::Clock::manual)
//! that moves with `now`.
//!
//! Use it on an async runtime other than tokio, in an event loop, or in a simulation.
//!
//! | step | call |
//! |---|---|
//! | a call begins | [`RetryPolicy::begin`] |
//! | an attempt has ended | [`RetryCall::record`], which returns a [`Decision`] |
//! | the last attempt has ended, for a reason that the policy does not know | [`RetryCall::record_last`] |
//! | the delay is over | [`RetryCall::time_left`], because a timer may fire late |
//! | a retry was scheduled and is not sent | [`RetryCall::cancel_retry`] |
//! | the caller stops waiting | drop the [`RetryCall`] |
//!
//! # Example
//!
//! A simulation, in which the time is a variable:
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//!
//! use tower_jitter_retry::decision::{CallOptions, Decision};
//! use tower_jitter_retry::fault_classify::{Verdict, classify_error};
//! use tower_jitter_retry::{Jitter, RetryPolicy};
//!
//! /// A server that refuses connections until it has started.
//! struct Server {
//!     starts_at: Duration,
//! }
//!
//! impl Server {
//!     fn respond(&self, now: Duration) -> io::Result<&'static str> {
//!         if now < self.starts_at {
//!             return Err(io::ErrorKind::ConnectionRefused.into());
//!         }
//!         Ok("hello")
//!     }
//! }
//!
//! /// Makes one call. Returns its result and the time of its end.
//! fn call_server(policy: &RetryPolicy, server: &Server) -> (io::Result<&'static str>, Duration) {
//!     let mut now = Duration::ZERO;
//!     let mut call = policy.begin(CallOptions::new(), now);
//!     loop {
//!         let result = server.respond(now);
//!         now += Duration::from_millis(5);
//!         let verdict = match &result {
//!             Ok(_) => Verdict::Success,
//!             Err(error) => Verdict::Fault(classify_error(error)),
//!         };
//!         match call.record(&verdict, now) {
//!             // With a runtime, wait on its timer here, and read its clock afterwards.
//!             Decision::Retry { delay } => now += delay,
//!             Decision::GiveUp(_) | Decision::Done => return (result, now),
//!         }
//!         if call.time_left(now).is_err() {
//!             call.cancel_retry();
//!             return (result, now);
//!         }
//!     }
//! }
//!
//! let policy = RetryPolicy::builder().jitter(Jitter::None).max_attempts(4).budget(None).build()?;
//!
//! // The delays are 100 ms and 200 ms, and each of the three attempts takes 5 ms.
//! let server = Server { starts_at: Duration::from_millis(250) };
//! let (result, end) = call_server(&policy, &server);
//! assert_eq!((result.unwrap(), end), ("hello", Duration::from_millis(315)));
//!
//! let server = Server { starts_at: Duration::from_secs(60) };
//! let (result, end) = call_server(&policy, &server);
//! assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
//! assert_eq!(end, Duration::from_millis(100 + 200 + 400 + 4 * 5));
//! # Ok::<(), tower_jitter_retry::ConfigError>(())
//! ```
//!
//! # What the layer adds
//!
//! The layer adds the following to the decision. Code that uses this module does it itself, if it
//! needs it.
//!
//! - It classifies outcomes. Here, a verdict is passed in: see [`fault_classify`](crate::fault_classify).
//! - It copies requests and their bodies, marks them for nested layers, and detects redirects and
//!   gRPC responses that have begun.
//! - It returns the outcome of the last attempt that was sent, if a later attempt is rejected on
//!   this side.
//! - It reports: [`on_retry`](crate::RetryPolicyBuilder::on_retry), [`Retried`](crate::Retried),
//!   `tracing` and metrics. This module does not call `on_retry`.
//!
//! [`JitterRetryLayer`]: crate::JitterRetryLayer

use std::fmt;
use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::{Fault, Verdict};

use crate::backoff::{Position, nanos};
use crate::budget::{BudgetRef, RetryBudget, Ticket};
use crate::policy::{CallConfig, CallProgress, ColdConfig, Condition, GiveUp, Limits, RetryPolicy};
use crate::request::{ResendAfter, RetrySafety};
use crate::rng::Randomness;

impl RetryPolicy {
    /// Begins a call whose attempts the caller makes itself.
    ///
    /// `now` is the time since any origin, on one monotonic clock. All times of this call must be
    /// on that clock. The policy's own [`clock`](crate::RetryPolicyBuilder::clock) is not read, but
    /// a window budget reads the clock of the budget.
    /// [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed) and the deadline count from `now`.
    ///
    /// With a [`seed`](crate::RetryPolicyBuilder::seed), the order in which calls begin determines
    /// their delays. The settings for requests and reports have no effect: `on_retry`,
    /// `follows_redirects`, the marks and `track_uploads`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_jitter_retry::RetryPolicy;
    /// use tower_jitter_retry::decision::{CallOptions, Decision};
    /// use tower_jitter_retry::fault_classify::Verdict;
    ///
    /// let policy = RetryPolicy::default();
    /// let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
    /// assert_eq!(call.record(&Verdict::Success, Duration::from_millis(3)), Decision::Done);
    /// ```
    pub fn begin(&self, options: CallOptions<'_>, now: Duration) -> RetryCall {
        let CallOptions { idempotent, grpc_method, safety, deadline } = options;
        let idempotent = grpc_method.map_or(idempotent, |method| self.lists_grpc_method(method));
        let resend_after = self.resend_if(safety, idempotent);
        RetryCall::new(self, resend_after, Some(nanos(now)), deadline, self.randomness())
    }
}

/// The properties of a call for [`RetryPolicy::begin`].
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`idempotent`](Self::idempotent) | whether the request may be sent twice | on or off | on |
/// | [`grpc_method`](Self::grpc_method) | the gRPC method that the request calls | `/package.Service/Method` | none |
/// | [`safety`](Self::safety) | the call's own safety | [`RetrySafety`] | none: that of the policy |
/// | [`deadline`](Self::deadline) | the time limit of the call | any `Duration` | none |
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::decision::CallOptions;
/// use tower_jitter_retry::{RetryPolicy, RetrySafety};
///
/// let policy = RetryPolicy::builder().idempotent_methods(["shop.Orders/Get"]).build()?;
///
/// // Sent again after any fault that may be retried, because the policy lists the method.
/// let get = CallOptions::new().grpc_method("/shop.Orders/Get");
/// // Sent again only if it was not processed.
/// let create = CallOptions::new().grpc_method("/shop.Orders/Create");
/// // Sent once.
/// let once = CallOptions::new().safety(RetrySafety::Never).deadline(Duration::from_secs(2));
/// # for options in [get, create, once] { let _ = policy.begin(options, Duration::ZERO); }
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct CallOptions<'a> {
    idempotent: bool,
    grpc_method: Option<&'a str>,
    safety: Option<RetrySafety>,
    deadline: Option<Duration>,
}

impl<'a> CallOptions<'a> {
    /// Creates the options of an idempotent request without a deadline.
    pub const fn new() -> Self {
        Self { idempotent: true, grpc_method: None, safety: None, deadline: None }
    }

    /// Sets whether sending the request twice has the same effect as sending it once.
    ///
    /// A request that is not idempotent is sent again only after the faults that the policy's
    /// [`non_idempotent`](crate::RetryPolicyBuilder::non_idempotent) allows. A safety of `Always`
    /// or `Never` takes precedence, and so does a [`grpc_method`](Self::grpc_method).
    /// **Default**: `true`.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets the gRPC method that the request calls, as `/package.Service/Method`.
    ///
    /// The request then counts as idempotent only if the policy's
    /// [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods) list the method.
    /// **Default**: none, and [`idempotent`](Self::idempotent) applies.
    pub const fn grpc_method(mut self, method: &'a str) -> Self {
        self.grpc_method = Some(method);
        self
    }

    /// Sets whether the request may be sent more than once, in place of the policy's
    /// [`safety`](crate::RetryPolicyBuilder::safety).
    ///
    /// With [`RetrySafety::ByRequest`] and [`RetrySafety::ByMethod`], the two settings above
    /// decide. **Default**: none, and the policy's safety applies.
    pub const fn safety(mut self, safety: RetrySafety) -> Self {
        self.safety = Some(safety);
        self
    }

    /// Sets the time from the beginning of the call to its deadline.
    ///
    /// No retry starts at the deadline or later. **Default**: none.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl Default for CallOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The decision after an attempt, returned by [`RetryCall::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the decision says whether to send the request again"]
pub enum Decision {
    /// Wait, and then send the request again.
    Retry {
        /// The delay before the next attempt. It may be zero.
        delay: Duration,
    },
    /// Return the outcome of the attempt, which is a fault. The call is over.
    GiveUp(GiveUp),
    /// Return the outcome of the attempt, which is a success. The call is over.
    Done,
}

/// The state of one call: its attempts, time and backoff, and its use of the budget.
///
/// It is returned by [`RetryPolicy::begin`].
///
/// # Budget
///
/// The first outcome of a call makes the deposit. A retry makes a withdrawal when it is decided on.
/// The outcome of the retry settles its [`Ticket`]. [`cancel_retry`](Self::cancel_retry) and drop
/// return to the budget what its kind returns for a retry that was not sent or was cancelled.
///
/// Keep the policy, or a handle to its budget, for as long as the call: see
/// [`Budget`](crate::Budget#lifetime).
///
/// # Clones
///
/// A clone has the state of the original, including its random numbers. It has no [`Ticket`]: only
/// the original settles the withdrawal of the retry that is in progress.
#[derive(Clone)]
pub struct RetryCall {
    config: CallConfig,
    budget_ref: Option<BudgetRef>,
    randomness: Randomness,
    /// In nanoseconds on the caller's clock. `None`: the time of the call starts when the layer
    /// first reads its clock.
    started: Option<u64>,
    /// In nanoseconds since the start.
    deadline: Option<u64>,
    /// Includes the attempt in progress, or the scheduled retry.
    attempts: u32,
    resend_after: ResendAfter,
    position: Position,
    retry: RetryInProgress,
}

/// A reading of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    Exact,
    /// A time that is not before the exact one, and cheaper to read.
    UpperBound,
}

/// The retry that is scheduled or was sent, with its ticket if there is a budget.
#[derive(Default)]
enum RetryInProgress {
    #[default]
    None,
    Some(Option<Ticket>),
}

/// A clone of a call has no ticket, because one withdrawal is settled once.
impl Clone for RetryInProgress {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Some(_) => Self::Some(None),
        }
    }
}

impl RetryCall {
    #[expect(
        clippy::inline_always,
        reason = "otherwise the call is built here and then moved, right after the stores that built it"
    )]
    #[inline(always)]
    pub(crate) fn new(
        policy: &RetryPolicy,
        resend_after: ResendAfter,
        started: Option<u64>,
        deadline: Option<Duration>,
        randomness: Randomness,
    ) -> Self {
        let RetryPolicy { config, budget_ref, .. } = policy;
        Self {
            config: config.clone(),
            budget_ref: *budget_ref,
            randomness,
            started,
            deadline: deadline.map(nanos),
            attempts: 1,
            resend_after,
            position: Position::START,
            retry: RetryInProgress::None,
        }
    }

    /// Records the outcome of an attempt that ended at `now`, and decides what follows.
    ///
    /// The limits are checked in this order, and the first one that forbids a retry is returned:
    ///
    /// | [`GiveUp`] | if |
    /// |---|---|
    /// | `Rejected`, `NotRetryable` | the fault is [`Retryable::Never`](crate::fault_classify::Retryable::Never) |
    /// | `NotIdempotent` | the request must not be sent again after this fault |
    /// | `Attempts` | [`max_attempts`](crate::RetryPolicyBuilder::max_attempts) are made |
    /// | `Deadline`, `MaxElapsed` | no time is left |
    /// | `HintTooLong` | the server's hint exceeds [`max_retry_after`](crate::RetryPolicyBuilder::max_retry_after) |
    /// | `Deadline`, `MaxElapsed` | the delay does not fit into the time that is left |
    /// | `Stopped` | the condition of [`retry_while`](crate::RetryPolicyBuilder::retry_while) is `false` |
    /// | `Budget` | the budget does not grant the withdrawal |
    ///
    /// After [`Decision::GiveUp`] and [`Decision::Done`] the call is over: record no other outcome.
    ///
    /// A `now` before the beginning of the call counts as its beginning.
    pub fn record(&mut self, verdict: &Verdict, now: Duration) -> Decision {
        self.record_unless(verdict, |_| nanos(now), || None)
    }

    /// Records the outcome of an attempt that no other attempt follows.
    ///
    /// Use it in place of [`record`](Self::record) if the request cannot be sent again, for example
    /// because its body was consumed. The outcome still reaches the budget, without a withdrawal.
    /// The call is over: record no other outcome.
    pub fn record_last(&mut self, verdict: &Verdict) {
        self.settle(verdict);
    }

    /// Records that the scheduled retry is not sent, for example because it would be too late.
    ///
    /// The retry no longer counts as an attempt, and the budget gets back what its kind returns for
    /// a retry that was not sent. The call is over: return the outcome of the attempt before.
    ///
    /// Without a scheduled retry, nothing changes.
    pub fn cancel_retry(&mut self) {
        if let RetryInProgress::Some(ticket) = mem::take(&mut self.retry) {
            // A ticket that is dropped unsettled means that the retry was not sent.
            drop(ticket);
            self.attempts -= 1;
        }
    }

    /// Returns the time from `now` in which a retry may start, or `None` if there is no limit.
    ///
    /// # Errors
    ///
    /// Returns the limit that is exceeded if no retry may start any more: [`GiveUp::Deadline`] or
    /// [`GiveUp::MaxElapsed`].
    pub fn time_left(&self, now: Duration) -> Result<Option<Duration>, GiveUp> {
        self.time_left_at(|| nanos(now))
    }

    /// Returns the number of attempts, including the one in progress or scheduled.
    ///
    /// It is 1 during the first attempt.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

// The layer reads its clock only when the time is needed. It therefore passes functions.
impl RetryCall {
    /// Records that the first attempt was a success.
    #[expect(clippy::inline_always, reason = "a call without a budget then makes no function call")]
    #[inline(always)]
    pub(crate) fn record_first_success(&self) {
        self.deposit(&Verdict::Success);
    }

    /// Records that the first attempt was rejected on this side and must not be retried.
    #[inline]
    pub(crate) fn record_first_rejection(&self, verdict: &Verdict) {
        self.deposit(verdict);
    }

    /// Records the verdict on an attempt, and decides what follows.
    ///
    /// `blocked` returns why a retry that the policy allows cannot be made. It is called before the
    /// withdrawal from the budget.
    #[inline]
    pub(crate) fn record_unless(
        &mut self,
        verdict: &Verdict,
        now: impl Fn(Reading) -> u64,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Decision {
        self.settle(verdict);
        let Verdict::Fault(fault) = verdict else { return Decision::Done };
        match self.schedule_retry(fault, now, blocked) {
            Ok(delay) => Decision::Retry { delay },
            Err(reason) => Decision::GiveUp(reason),
        }
    }

    /// Reports the verdict on an attempt to the budget.
    #[expect(clippy::inline_always, reason = "the layer's calls then need no function call for it")]
    #[inline(always)]
    fn settle(&mut self, verdict: &Verdict) {
        if self.attempts == 1 {
            self.deposit(verdict);
        } else if let RetryInProgress::Some(Some(ticket)) = mem::take(&mut self.retry) {
            ticket.settle(verdict);
        }
    }

    /// Schedules a retry. Returns its delay.
    #[inline]
    fn schedule_retry(
        &mut self,
        fault: &Fault,
        now: impl Fn(Reading) -> u64,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<Duration, GiveUp> {
        self.limits().permits(fault, self.attempts, self.resend_after)?;
        if let Some(reason) = blocked() {
            return Err(reason);
        }
        let delay = if self.limits().delay_is_zero(fault) && self.may_retry_now(&now) {
            Duration::ZERO
        } else {
            Duration::from_nanos(self.draw_delay(fault, &now)?)
        };
        if self.budget_ref.is_some() || self.cold().is_some() {
            self.pay_for_retry(fault)?;
        } else {
            self.retry = RetryInProgress::Some(None);
        }
        self.attempts += 1;
        Ok(delay)
    }

    /// Checks the condition, and withdraws from the budget.
    #[inline(never)]
    fn pay_for_retry(&mut self, fault: &Fault) -> Result<(), GiveUp> {
        if self.condition().is_some_and(|condition| !condition.holds()) {
            return Err(GiveUp::Stopped);
        }
        self.retry = RetryInProgress::Some(self.withdraw(fault)?);
        Ok(())
    }

    /// Returns whether a cheap reading of the clock shows that a retry may start now. Starts the
    /// time if it has not started.
    #[expect(clippy::inline_always, reason = "out of line, the clock is passed through memory")]
    #[inline(always)]
    fn may_retry_now(&mut self, now: &impl Fn(Reading) -> u64) -> bool {
        let elapsed = if let Some(started) = self.started {
            now(Reading::UpperBound).saturating_sub(started)
        } else {
            self.started = Some(now(Reading::Exact));
            0
        };
        self.limits().time_left(elapsed, self.deadline).is_ok_and(|left| left > 0)
    }

    /// Draws the delay before a retry, in nanoseconds.
    #[inline(never)]
    fn draw_delay(&mut self, fault: &Fault, now: &impl Fn(Reading) -> u64) -> Result<u64, GiveUp> {
        let now = now(Reading::Exact);
        let elapsed = now.saturating_sub(*self.started.get_or_insert(now));
        let mut progress = CallProgress { elapsed, deadline: self.deadline, position: self.position };
        let randomness = &mut self.randomness;
        let uniform = |range: RangeInclusive<u64>| randomness.uniform(range);
        let delay = self.config.limits().delay(fault, &mut progress, uniform)?;
        self.position = progress.position;
        Ok(delay)
    }

    /// Reports the verdict on the first attempt to the budget.
    #[inline]
    fn deposit(&self, verdict: &Verdict) {
        if let Some(budget_ref) = self.budget_ref {
            budget_ref.deposit(verdict);
        } else if self.cold().is_some() {
            self.deposit_custom(verdict);
        }
    }

    #[inline(never)]
    fn deposit_custom(&self, verdict: &Verdict) {
        if let Some(budget) = self.custom_budget() {
            budget.deposit(verdict);
        }
    }

    /// Withdraws from the budget for a retry.
    fn withdraw(&self, fault: &Fault) -> Result<Option<Ticket>, GiveUp> {
        let ticket = match (self.budget_ref, self.custom_budget()) {
            (Some(budget_ref), _) => budget_ref.withdraw(fault),
            (None, Some(budget)) => budget.withdraw(fault),
            (None, None) => return Ok(None),
        };
        ticket.map(Some).ok_or(GiveUp::Budget)
    }

    fn condition(&self) -> Option<&Condition> {
        self.cold()?.condition.as_ref()
    }

    fn custom_budget(&self) -> Option<&Arc<dyn RetryBudget>> {
        self.cold()?.budget.as_ref()
    }

    /// Starts the time of the call, unless it has already started.
    #[inline]
    pub(crate) fn start_time(&mut self, now: impl FnOnce() -> u64) {
        if self.started.is_none() {
            self.started = Some(now());
        }
    }

    /// Sets the time from the start of the call to its deadline.
    pub(crate) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = Some(nanos(deadline));
    }

    /// Returns the nanoseconds since the start of the call's time, or 0 before it.
    #[inline]
    pub(crate) fn elapsed_at(&self, now: impl FnOnce() -> u64) -> u64 {
        self.started.map_or(0, |started| now().saturating_sub(started))
    }

    /// Returns whether a retry may start.
    #[inline]
    pub(crate) fn may_start_at(&self, now: impl FnOnce() -> u64) -> bool {
        self.limits().time_left(self.elapsed_at(now), self.deadline).is_ok()
    }

    /// See [`time_left`](Self::time_left).
    pub(crate) fn time_left_at(&self, now: impl FnOnce() -> u64) -> Result<Option<Duration>, GiveUp> {
        let left = self.limits().time_left(self.elapsed_at(now), self.deadline)?;
        Ok((left < u64::MAX).then(|| Duration::from_nanos(left)))
    }

    /// Returns the limit that ends the call's time first.
    pub(crate) fn time_limit(&self) -> GiveUp {
        self.limits().time_limit(self.deadline).limit
    }

    /// Returns the deadline, in nanoseconds since the start.
    #[inline]
    pub(crate) const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Returns the faults after which the request may be sent again.
    #[inline]
    pub(crate) const fn resend_after(&self) -> ResendAfter {
        self.resend_after
    }

    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        self.config.limits()
    }

    #[inline]
    pub(crate) fn cold(&self) -> Option<&ColdConfig> {
        self.config.cold()
    }
}

impl fmt::Debug for RetryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryCall").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::cell::Cell;

    use tower_fault_classify::{Health, Kind, Origin, Retryable};

    use super::*;

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

    /// Fails twice: the time starts at the first failure, and the second failure is at `elapsed`.
    /// Returns the second decision, and the number of exact readings of the clock.
    fn second_decision(initial_backoff: u64, fault: Fault, elapsed: u64) -> (bool, u32) {
        let second = Duration::from_secs(1);
        let policy = RetryPolicy::builder()
            .budget(None)
            .max_elapsed(10 * second)
            .initial_backoff(Duration::from_nanos(initial_backoff));
        let policy = policy.build().unwrap();
        let mut call = RetryCall::new(&policy, ResendAfter::Any, None, None, policy.randomness());
        let (time, exact) = (Cell::new(0), Cell::new(0));
        let now = |reading| match reading {
            Reading::Exact => {
                exact.set(exact.get() + 1);
                time.get()
            }
            Reading::UpperBound => time.get() + nanos(second),
        };
        let mut record = || call.record_unless(&Verdict::Fault(fault), now, || None);
        assert!(matches!(record(), Decision::Retry { .. }));
        time.set(elapsed);
        (matches!(record(), Decision::Retry { .. }), exact.get())
    }

    #[test]
    fn clock_upper_bound_decides_only_while_much_time_is_left() {
        let second = 1_000_000_000;
        assert_eq!(second_decision(0, FAULT, second), (true, 1));
        assert_eq!(second_decision(0, FAULT, 9 * second - 1), (true, 1));
        assert_eq!(second_decision(0, FAULT, 9 * second), (true, 2), "the bound is at the end");
        assert_eq!(second_decision(0, FAULT, 10 * second - 1), (true, 2));
        assert_eq!(second_decision(0, FAULT, 10 * second), (false, 2));
        assert_eq!(second_decision(1, FAULT, second), (true, 2), "a delay is cut at the exact time");
        let hinted = FAULT.with_retry_after(Duration::ZERO);
        assert_eq!(second_decision(0, hinted, second), (true, 2));
    }
}
