//! The guard: a circuit with a classifier.

use std::fmt;
use std::future::Future;
#[cfg(feature = "tokio")]
use std::time::Duration;

use tower_fault_classify::classifiers::{Auto, RuleFirst};
use tower_fault_classify::{Classify, Fault, Health};

#[cfg(feature = "tokio")]
use super::CallWithin;
use super::future::record;
use super::{Call, CallError};
use crate::circuit::{Circuit, CircuitRef, Permit, Static};
use crate::classifier::HealthBy;
use crate::telemetry::{FailureKeeper, KeepError, NoLastFailure};

/// A circuit with a classifier: guards futures and closures, and classifies their outcomes.
///
/// Create a guard with [`classify`](Circuit::classify), [`errors_only`](Circuit::errors_only),
/// [`rule`](Circuit::rule), [`health`](Circuit::health) or
/// [`keep_last_failure`](Circuit::keep_last_failure) of a circuit. A clone costs as much as a
/// clone of the circuit and of the classifier. All guards and clones of one circuit open and close
/// together.
///
/// | method | runs | what counts as a failure |
/// |---|---|---|
/// | [`call`](Self::call) | a future, on any executor | by its verdict |
/// | `call_within` (feature `tokio`) | a future, with a timeout | by its verdict; the elapsed timeout |
/// | [`call_blocking`](Self::call_blocking) | a closure, on this thread | by its verdict |
/// | [`protect`](Self::protect) | nothing: returns a guarded function | as `call` |
///
/// The type parameters are the classifier, the reference to the circuit, and whether the last
/// failure is kept.
///
/// # Example
///
/// A worker that calls an API. The API returns 404 for an empty result, and a 401 must stop the
/// worker:
///
/// ```
/// use tower_breaker::fault_classify::rules::StatusRules;
/// use tower_breaker::{BreakerConfig, BreakerError, Circuit, Health, Kind, Verdict};
///
/// # async fn search(_: &str) -> Result<http::Response<String>, std::io::Error> {
/// #     Ok(http::Response::builder().status(401).body(String::new()).unwrap())
/// # }
/// # tokio_test::block_on(async {
/// let circuit = Circuit::new(BreakerConfig::single_flight().consecutive_failures(1).build()?);
/// let guard = circuit
///     .rule(StatusRules::new().status(404, Verdict::Success))
///     .health(|fault| if fault.kind() == Kind::Auth { Health::Unhealthy } else { fault.health() });
///
/// let response = guard.call(search("rust")).await?;
/// assert_eq!(response.status(), 401);
///
/// // The 401 has opened the circuit: this call is rejected.
/// let error = guard.call(search("rust")).await.unwrap_err();
/// assert!(matches!(error, BreakerError::Rejected(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Guard<C = Auto, R: CircuitRef = Static, L = NoLastFailure> {
    circuit: Circuit<R>,
    classify: C,
    last_failure: L,
}

impl<C, R: CircuitRef> Guard<C, R> {
    pub(super) const fn new(circuit: Circuit<R>, classify: C) -> Self {
        Self { circuit, classify, last_failure: NoLastFailure }
    }

    /// Keeps the last failure for [`Status::last_failure`](crate::Status::last_failure).
    ///
    /// It contains the fault, the type and the text of its error, the time, and the text of
    /// `subject`: what the calls are about. See [`LastFailure`](crate::telemetry::LastFailure).
    /// **Default**: the last failure is not kept.
    ///
    /// The verdict is that of the whole classifier, so rules may be added before or after this
    /// call. An elapsed timeout of `call_within` is kept, too.
    ///
    /// For a subject of each call, such as the item of a worker, clone the guard:
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// # async fn import(_: u32) -> std::io::Result<()> { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    /// # tokio_test::block_on(async {
    /// let guard = Circuit::new(BreakerConfig::default()).errors_only();
    /// for item in [7, 8] {
    ///     let result = guard.clone().keep_last_failure(item).call(import(item)).await;
    ///     assert!(result.is_err());
    /// }
    /// let last = guard.circuit().status().last_failure.expect("a call has failed");
    /// assert_eq!((&*last.subject, &*last.message), ("8", "connection refused"));
    /// # });
    /// ```
    ///
    /// # Costs
    ///
    /// A failure costs a lock, and the texts of its errors and of `subject`. Each call clones
    /// `subject`. The texts are made outside of the lock. A panic of their `Display` is caught.
    pub fn keep_last_failure<T, K>(self, subject: T) -> Guard<C, R, FailureKeeper<T, K>>
    where
        T: fmt::Display,
    {
        let Self { circuit, classify, .. } = self;
        Guard { circuit, classify, last_failure: FailureKeeper::new(Some(subject)) }
    }
}

impl<C, R: CircuitRef, L> Guard<C, R, L> {
    /// Returns the circuit.
    pub const fn circuit(&self) -> &Circuit<R> {
        &self.circuit
    }

    /// Adds a rule that is checked before the classifier and the existing rules.
    ///
    /// A rule classifies an outcome, or returns `None` to leave it to the rules that were added
    /// before it, and then to the classifier.
    pub fn rule<N>(self, rule: N) -> Guard<RuleFirst<N, C>, R, L> {
        let Self { circuit, classify, last_failure } = self;
        Guard { circuit, classify: RuleFirst::new(rule, classify), last_failure }
    }

    /// Sets how the health of a fault is derived, instead of the fault's own health axis.
    ///
    /// It applies to the classifier and to the rules that were added before it. The faults of a
    /// rule that is added later keep their own health. An elapsed timeout of `call_within` is
    /// always unhealthy.
    pub fn health<F>(self, health: F) -> Guard<HealthBy<C, F>, R, L>
    where
        F: Fn(&Fault) -> Health,
    {
        let Self { circuit, classify, last_failure } = self;
        Guard { circuit, classify: HealthBy::new(classify, health), last_failure }
    }

    /// Runs a future through the circuit, on any executor.
    ///
    /// The circuit admits or rejects the call when the returned future is first polled. The
    /// returned future does not borrow the guard.
    ///
    /// # Cancellation
    ///
    /// Dropping the returned future drops `call`, which then counts as a cancelled call: see
    /// [`CancelledPolicy`](crate::CancelledPolicy). A future that was never polled is not counted.
    ///
    /// # Errors
    ///
    /// [`CallError`] has the error types. The error is one of these:
    ///
    /// - a [`Rejection`](crate::Rejection): the circuit rejected the call;
    /// - the error of the call.
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller.
    pub fn call<F, T, E, K>(&self, call: F) -> Call<F, C, K, R, L>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<T, E> + Clone,
        E: CallError<K>,
        L: KeepError<E> + Clone,
    {
        Call::new(&self.circuit, call, self.classify.clone(), self.last_failure.clone())
    }

    /// Runs a future through the circuit, with a timeout.
    ///
    /// The time starts at the first poll, when the circuit admits the call. When the time is over,
    /// the future is dropped, and the call counts as a failure. The classifier and its rules do not
    /// get an elapsed timeout.
    ///
    /// # Cancellation
    ///
    /// See [`call`](Self::call).
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), or [`TimedOut`](crate::TimedOut): the time was over.
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller. The returned future
    /// panics if it is polled outside of a tokio runtime with an enabled timer.
    #[cfg(feature = "tokio")]
    pub fn call_within<F, T, E, K>(&self, time: Duration, call: F) -> CallWithin<F, C, K, R, L>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<T, E> + Clone,
        E: CallError<K>,
        L: KeepError<E> + Clone,
    {
        CallWithin::new(&self.circuit, time, call, self.classify.clone(), self.last_failure.clone())
    }

    /// Runs a closure through the circuit, on this thread.
    ///
    /// There is no variant with a timeout, because a closure cannot be stopped. Set a timeout on
    /// the client that the closure uses.
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
        C: Classify<T, E>,
        E: CallError<K>,
        L: KeepError<E>,
    {
        call_blocking(&self.circuit, &self.classify, &self.last_failure, call)
    }

    /// Returns a function that calls `function` and runs its future through the circuit.
    ///
    /// The returned function owns a clone of the guard. Each call of it is a
    /// [`call`](Self::call). `function` itself is called before the circuit decides, and its future
    /// only runs if the circuit admits the call. An `async fn` and an async closure do nothing
    /// before their future runs.
    ///
    /// For a function with several arguments, pass a tuple. For a timeout, write the closure
    /// `|query| guard.call_within(limit, search(query))` instead.
    ///
    /// ```
    /// use tower_breaker::fault_classify::classifiers::Auto;
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # async fn send(query: &str) -> std::io::Result<http::Response<String>> {
    /// #     Ok(http::Response::new(query.to_owned()))
    /// # }
    /// # tokio_test::block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let search = circuit.classify(Auto::new()).protect(async |query: String| send(&query).await);
    ///
    /// let response = search("rust".to_owned()).await?;
    /// assert_eq!(response.body(), "rust");
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
    /// A panic of `function` propagates to the caller, and the circuit does not record it. A panic
    /// of its future counts as a failure.
    pub fn protect<A, F, Fut, T, E, K>(
        &self,
        function: F,
    ) -> impl Fn(A) -> Call<Fut, C, K, R, L> + Clone + use<A, F, Fut, T, E, K, C, R, L>
    where
        F: Fn(A) -> Fut + Clone,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E> + Clone,
        E: CallError<K>,
        L: KeepError<E> + Clone,
    {
        let guard = self.clone();
        move |argument| guard.call(function(argument))
    }
}

/// Runs a closure through a circuit.
pub(super) fn call_blocking<T, E, C, K, R, L>(
    circuit: &Circuit<R>,
    classify: &C,
    last_failure: &L,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, E::Returned>
where
    C: Classify<T, E>,
    E: CallError<K>,
    R: CircuitRef,
    L: KeepError<E>,
{
    let mut permit = Some(circuit.try_acquire().map_err(E::rejected)?);
    let result = Permit::guard(&mut permit, call);
    record(&mut permit, &result, classify, last_failure);
    result.map_err(E::into_returned)
}

impl<C: Clone, R: CircuitRef, L: Clone> Clone for Guard<C, R, L> {
    fn clone(&self) -> Self {
        Self {
            circuit: self.circuit.clone(),
            classify: self.classify.clone(),
            last_failure: self.last_failure.clone(),
        }
    }
}

impl<C: fmt::Debug, R: CircuitRef, L> fmt::Debug for Guard<C, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("circuit", &self.circuit.name())
            .field("classify", &self.classify)
            .finish_non_exhaustive()
    }
}
