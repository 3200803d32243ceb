//! Calls through a [`Circuit`] without tower: guards, and the futures of their calls.
//!
//! A circuit classifies outcomes as a [`BreakerLayer`](crate::BreakerLayer) does:
//!
//! | method of the circuit | classifies |
//! |---|---|
//! | [`call`](Circuit::call), `call_within`, [`call_blocking`](Circuit::call_blocking), [`protect`](Circuit::protect) | with [`Auto`]: a response by its status, an error by its chain of sources |
//! | [`errors_only`](Circuit::errors_only) | errors only: every returned value is a success, and may have any type |
//! | [`rule`](Circuit::rule), [`health`](Circuit::health) | with `Auto`, and a change of some verdicts |
//! | [`classify`](Circuit::classify) | with a classifier of your own, or [`NestedErrors`](tower_fault_classify::classifiers::NestedErrors) |
//!
//! The last three rows return a [`Guard`]. Create it once, and share it by reference or by clone.
//!
//! [`keep_last_failure`](Circuit::keep_last_failure) of a circuit or a guard keeps the last failure
//! for the status, with a subject.
//!
//! [`CallError`] has the error types: an `anyhow::Error` or a `BoxError` keeps its type.
//!
//! To record the outcome of a call that does not run through the circuit, use
//! [`Circuit::record`].

mod error;
mod future;
mod guard;
#[cfg(feature = "tokio")]
mod within;

pub use error::CallError;
pub use future::Call;
pub use guard::Guard;
#[cfg(feature = "tokio")]
pub use within::CallWithin;

use std::fmt;
use std::future::Future;
#[cfg(feature = "tokio")]
use std::time::Duration;

use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst};
use tower_fault_classify::{Fault, Health, Outcome};

use crate::circuit::{Circuit, CircuitRef};
use crate::classifier::HealthBy;
use crate::telemetry::{FailureKeeper, NoLastFailure};

/// Calls without tower.
impl<R: CircuitRef> Circuit<R> {
    /// Runs a future through the circuit, such as a worker's job or a query to a pool.
    ///
    /// The outcome is classified by [`Auto`], as in a layer: a response by its status, an error by
    /// its chain of sources. If the future returns a value that is not an [`Outcome`], such as a
    /// database row or a file, use [`errors_only`](Self::errors_only).
    ///
    /// The circuit admits or rejects the call when the returned future is first polled. The future
    /// runs on any executor. For a timeout, use `call_within` (feature `tokio`).
    ///
    /// # Example
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # async fn count() -> Result<u32, std::io::Error> { Ok(1) }
    /// # tokio_test::block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// match circuit.call(count()).await {
    ///     Ok(rows) => println!("{rows} rows"),
    ///     Err(BreakerError::Rejected(rejection)) => println!("{rejection}"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the returned future drops `call`, which then counts as a cancelled call: see
    /// [`CancelledPolicy`](crate::CancelledPolicy). A future that was never polled is not counted.
    ///
    /// # Errors
    ///
    /// - [`BreakerError::Rejected`](crate::BreakerError::Rejected): the circuit rejected the call.
    /// - [`BreakerError::Inner`](crate::BreakerError::Inner): the call failed; this is its error.
    ///
    /// If the call's error is boxed, it keeps its type, and a rejection is boxed: see
    /// [`CallError`].
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller.
    pub fn call<F, T, E, K>(&self, call: F) -> Call<F, Auto<K>, K, R>
    where
        F: Future<Output = Result<T, E>>,
        T: Outcome,
        E: CallError<K>,
    {
        Call::new(self, call, Auto::new(), NoLastFailure)
    }

    /// Runs a future through the circuit, with a timeout.
    ///
    /// The time starts at the first poll, when the circuit admits the call. When the time is over,
    /// the future is dropped, and the call counts as a failure. Other outcomes are classified as by
    /// [`call`](Self::call).
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # async fn count() -> Result<u32, std::io::Error> { std::future::pending().await }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// match circuit.call_within(Duration::from_secs(5), count()).await {
    ///     Ok(rows) => println!("{rows} rows"),
    ///     Err(BreakerError::Rejected(rejection)) => println!("{rejection}"),
    ///     Err(BreakerError::TimedOut(error)) => println!("{error}"),
    ///     Err(BreakerError::Inner(error)) => println!("{error}"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// assert_eq!(circuit.status().window.failures, 1);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), or [`BreakerError::TimedOut`](crate::BreakerError::TimedOut): the
    /// time was over.
    ///
    /// # Cancellation
    ///
    /// See [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller. The returned future
    /// panics if it is polled outside of a tokio runtime with an enabled timer.
    #[cfg(feature = "tokio")]
    pub fn call_within<F, T, E, K>(&self, time: Duration, call: F) -> CallWithin<F, Auto<K>, K, R>
    where
        F: Future<Output = Result<T, E>>,
        T: Outcome,
        E: CallError<K>,
    {
        CallWithin::new(self, time, call, Auto::new(), NoLastFailure)
    }

    /// Runs a closure through the circuit, on this thread.
    ///
    /// The outcome is classified as by [`call`](Self::call).
    ///
    /// There is no variant with a timeout, because a closure cannot be stopped. Set a timeout on
    /// the client that the closure uses.
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let text = circuit.call_blocking(|| std::fs::read_to_string("/dev/null"))?;
    /// # Ok::<(), tower_breaker::BreakerError<std::io::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// A panic of the closure counts as a failure, and propagates to the caller.
    pub fn call_blocking<T, E, K>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, E::Returned>
    where
        T: Outcome,
        E: CallError<K>,
    {
        guard::call_blocking(self, &Auto::new(), &NoLastFailure, call)
    }

    /// Returns a function that calls `function` and runs its future through the circuit.
    ///
    /// See [`Guard::protect`]. The outcome is classified as by [`call`](Self::call).
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// async fn count(table: &str) -> std::io::Result<usize> {
    ///     Ok(table.len())
    /// }
    ///
    /// # tokio_test::block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let count = circuit.protect(count);
    /// assert_eq!(count("users").await?, 5);
    /// # Ok::<(), BreakerError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The future of a call returns the errors of [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// See [`Guard::protect`].
    pub fn protect<A, F, Fut, T, E, K>(
        &self,
        function: F,
    ) -> impl Fn(A) -> Call<Fut, Auto<K>, K, R> + Clone + use<A, F, Fut, T, E, K, R>
    where
        F: Fn(A) -> Fut + Clone,
        Fut: Future<Output = Result<T, E>>,
        T: Outcome,
        E: CallError<K>,
    {
        self.classify(Auto::new()).protect(function)
    }

    /// Returns a guard with a classifier, instead of [`Auto`].
    ///
    /// Use [`NestedErrors`](tower_fault_classify::classifiers::NestedErrors) for a result within a
    /// result whose inner error is boxed, or whose inner value is not an [`Outcome`]:
    ///
    /// ```
    /// use tower_breaker::fault_classify::classifiers::NestedErrors;
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// # struct Rows;
    /// # async fn query() -> Result<Rows, std::io::Error> { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let answer = circuit.classify(NestedErrors::new()).call(tokio::spawn(query())).await;
    /// assert!(matches!(answer, Ok(Err(_))), "the task ended, and its query failed");
    /// assert_eq!(circuit.status().window.failures, 1);
    /// # });
    /// ```
    pub fn classify<C>(&self, classify: C) -> Guard<C, R> {
        Guard::new(self.clone(), classify)
    }

    /// Returns a guard that classifies errors only: a returned value is a success, and may have any
    /// type.
    ///
    /// Errors are classified as by [`Auto`].
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # struct Rows;
    /// # async fn query() -> Result<Rows, std::io::Error> { Ok(Rows) }
    /// # tokio_test::block_on(async {
    /// let database = Circuit::new(BreakerConfig::default()).errors_only();
    /// let rows = database.call(query()).await?;
    /// # Ok::<(), BreakerError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Caution: a value that is itself a `Result`, such as that of `tokio::time::timeout`, is then
    /// a success even if it is an `Err`. Use [`call`](Self::call), `call_within`, or
    /// [`classify`](Self::classify) with `NestedErrors`.
    pub fn errors_only<K>(&self) -> Guard<ErrorsOnly<K>, R> {
        self.classify(ErrorsOnly::new())
    }

    /// Returns a guard with a rule that is checked before [`Auto`].
    ///
    /// See [`Guard::rule`]. For values that are not an [`Outcome`], use
    /// `circuit.errors_only().rule(…)`.
    pub fn rule<N, K>(&self, rule: N) -> Guard<RuleFirst<N, Auto<K>>, R> {
        self.classify(Auto::new()).rule(rule)
    }

    /// Returns a guard that derives the health of the faults of [`Auto`] with a function.
    ///
    /// See [`Guard::health`].
    pub fn health<F, K>(&self, health: F) -> Guard<HealthBy<Auto<K>, F>, R>
    where
        F: Fn(&Fault) -> Health,
    {
        self.classify(Auto::new()).health(health)
    }

    /// Returns a guard that keeps the last failure, with a subject.
    ///
    /// See [`Guard::keep_last_failure`]. The outcome is classified as by [`call`](Self::call).
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let settings = circuit.keep_last_failure("settings");
    /// let text = settings.call_blocking(|| std::fs::read_to_string("/no/such/file"));
    /// assert!(text.is_err());
    /// ```
    pub fn keep_last_failure<T, C, L>(&self, subject: T) -> Guard<Auto<C>, R, FailureKeeper<T, L>>
    where
        T: fmt::Display,
    {
        self.classify(Auto::new()).keep_last_failure(subject)
    }
}
