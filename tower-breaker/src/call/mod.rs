//! Futures of calls through a [`Circuit`], without tower.
//!
//! [`Call`] is returned by [`Circuit::call`] and [`Circuit::call_nested`], `CallWithin` by
//! `Circuit::call_within` (feature `tokio`).

#[cfg(feature = "tokio")]
mod within;

#[cfg(feature = "tokio")]
pub use within::CallWithin;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::{AsError, ErrorsOnly, NestedErrors};

use crate::circuit::{Circuit, Permit};
use crate::error::BreakerError;

impl Circuit {
    /// Runs a future through the circuit, such as a worker's job or a query to a pool.
    ///
    /// **Every `Ok` counts as a success, even an `Ok` that contains an error.** A future that
    /// returns a result within a result hides its failures from the circuit:
    ///
    /// ```
    /// # #[cfg(feature = "tokio")] {
    /// # use std::time::Duration;
    /// # use tower_breaker::{BreakerConfig, Circuit};
    /// # async fn query() -> std::io::Result<u32> { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    /// # tokio_test::block_on(async {
    /// # let circuit = Circuit::new(BreakerConfig::default());
    /// # let limit = Duration::from_secs(1);
    /// // Wrong: a refused connection is an `Ok(Err(_))`, and counts as a success.
    /// let _ = circuit.call(tokio::time::timeout(limit, query())).await;
    /// assert_eq!(circuit.status().window.failures, 0);
    ///
    /// // Right: a refused connection and an elapsed timeout are failures.
    /// let _ = circuit.call_within(limit, query()).await;
    /// assert_eq!(circuit.status().window.failures, 1);
    /// # });
    /// # }
    /// ```
    ///
    /// Use [`call_within`](Self::call_within) for a timeout. Use [`call_nested`](Self::call_nested)
    /// for any other result within a result, such as that of a `JoinHandle`.
    ///
    /// An error is classified by its chain of sources. The circuit admits or rejects the call when
    /// the returned future is first polled. The future runs on any executor.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # async fn query() -> Result<u32, std::io::Error> { Ok(1) }
    /// # tokio_test::block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// match circuit.call(query()).await {
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
    /// - [`BreakerError::Rejected`]: the circuit rejected the call.
    /// - [`BreakerError::Inner`]: the call failed; this is its error.
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller.
    pub fn call<F, T, E, K>(&self, call: F) -> Call<F, ErrorsOnly<K>>
    where
        F: Future<Output = Result<T, E>>,
        E: AsError<K>,
    {
        Call::new(self, call, ErrorsOnly::new())
    }

    /// Runs a future that returns a result within a result through the circuit.
    ///
    /// It works like [`call`](Self::call), but an `Ok(Err(error))` is classified by `error`. The
    /// output keeps its shape.
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// # async fn query() -> Result<u32, std::io::Error> { Err(std::io::ErrorKind::ConnectionRefused.into()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let answer = circuit.call_nested(tokio::spawn(query())).await;
    /// assert!(matches!(answer, Ok(Err(_))), "the task ended, and its query failed");
    /// assert_eq!(circuit.status().window.failures, 1);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// - [`BreakerError::Rejected`]: the circuit rejected the call.
    /// - [`BreakerError::Inner`]: the outer result is an error; this is it. The inner error is
    ///   inside of the `Ok`.
    ///
    /// # Panics
    ///
    /// See [`call`](Self::call).
    pub fn call_nested<F, T, E, O, K, J>(&self, call: F) -> Call<F, NestedErrors<(K, J)>>
    where
        F: Future<Output = Result<Result<T, E>, O>>,
        E: AsError<J>,
        O: AsError<K>,
    {
        Call::new(self, call, NestedErrors::new())
    }

    /// Runs a closure through the circuit, on this thread.
    ///
    /// An `Ok` is a success; an error is classified by its chain of sources. For a result within a
    /// result, use [`call_blocking_nested`](Self::call_blocking_nested).
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
    pub fn call_blocking<T, E, K>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, BreakerError<E>>
    where
        E: AsError<K>,
    {
        self.run(call, &ErrorsOnly::new())
    }

    /// Runs a closure that returns a result within a result through the circuit, on this thread.
    ///
    /// It works like [`call_blocking`](Self::call_blocking), but an `Ok(Err(error))` is classified
    /// by `error`.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let (answers, answer) = mpsc::channel();
    /// answers.send(Err::<u32, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)))?;
    /// let answer = circuit.call_blocking_nested(|| answer.recv_timeout(Duration::from_secs(1)));
    /// assert!(matches!(answer, Ok(Err(_))), "an answer arrived, and it is an error");
    /// assert_eq!(circuit.status().window.failures, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`call_nested`](Self::call_nested).
    ///
    /// # Panics
    ///
    /// See [`call_blocking`](Self::call_blocking).
    pub fn call_blocking_nested<T, E, O, K, J>(
        &self,
        call: impl FnOnce() -> Result<Result<T, E>, O>,
    ) -> Result<Result<T, E>, BreakerError<O>>
    where
        E: AsError<J>,
        O: AsError<K>,
    {
        self.run(call, &NestedErrors::new())
    }

    fn run<T, E, C>(&self, call: impl FnOnce() -> Result<T, E>, classify: &C) -> Result<T, BreakerError<E>>
    where
        C: Classify<T, E>,
    {
        let mut permit = Some(self.try_acquire().map_err(BreakerError::Rejected)?);
        let result = Permit::guard(&mut permit, call);
        record(&mut permit, &result, classify);
        result.map_err(BreakerError::Inner)
    }
}

fn record<T, E, C: Classify<T, E>>(permit: &mut Option<Permit>, result: &Result<T, E>, classify: &C) {
    if let Some(permit) = permit.take() {
        permit.record(classify.classify(result.as_ref()));
    }
}

pin_project! {
    /// The future of [`Circuit::call`] and [`Circuit::call_nested`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<F, C> {
        // Before the permit: the inner future must be dropped before the slot is free again.
        #[pin]
        inner: F,
        permit: Option<Permit>,
        circuit: Circuit,
        classify: C,
    }
}

impl<F, C> Call<F, C> {
    fn new(circuit: &Circuit, inner: F, classify: C) -> Self {
        Self { inner, circuit: circuit.clone(), permit: None, classify }
    }
}

impl<F, T, E, C> Future for Call<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, BreakerError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.permit.is_none() {
            match this.circuit.try_acquire() {
                Ok(permit) => *this.permit = Some(permit),
                Err(rejection) => return Poll::Ready(Err(BreakerError::Rejected(rejection))),
            }
        }
        let result = ready!(Permit::guard(this.permit, || this.inner.poll(cx)));
        record(this.permit, &result, this.classify);
        Poll::Ready(result.map_err(BreakerError::Inner))
    }
}

impl<F, C> fmt::Debug for Call<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("circuit", &self.circuit.name()).finish_non_exhaustive()
    }
}
