//! A call through a circuit, without tower.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::{AsError, Classify, ErrorsOnly};

use crate::circuit::{Circuit, Permit};
use crate::error::BreakerError;

impl Circuit {
    /// Runs a future through the circuit: a worker's job, a query to a pool. An `Ok` is a success, an error is judged by its chain of
    /// sources.
    ///
    /// The circuit is asked when the future is polled first. Dropping it drops the call, which is then an abandoned one. It runs on any
    /// executor.
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
    /// # Errors
    ///
    /// [`BreakerError::Rejected`] if the circuit does not let the call through, [`BreakerError::Inner`] with the call's own error.
    ///
    /// # Panics
    ///
    /// A panic of the call goes on to the caller. It counts as a failure.
    pub fn call<F, T, E, K>(&self, call: F) -> Call<F, K>
    where
        F: Future<Output = Result<T, E>>,
        E: AsError<K>,
    {
        Call { inner: call, circuit: self.clone(), permit: None, kind: PhantomData }
    }

    /// Runs a closure through the circuit, on this thread. An `Ok` is a success, an error is judged by its chain of sources.
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
    /// A panic of the closure goes on to the caller. It counts as a failure.
    pub fn call_blocking<T, E, K>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, BreakerError<E>>
    where
        E: AsError<K>,
    {
        let mut permit = Some(self.try_acquire().map_err(BreakerError::Rejected)?);
        let result = Permit::guard(&mut permit, call);
        settle(&mut permit, &result);
        result.map_err(BreakerError::Inner)
    }
}

fn settle<T, E: AsError<K>, K>(permit: &mut Option<Permit>, result: &Result<T, E>) {
    if let Some(permit) = permit.take() {
        permit.settle(ErrorsOnly::<K>::new().classify(result.as_ref()));
    }
}

pin_project! {
    /// A future that runs through a circuit. Made by [`Circuit::call`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<F, K> {
        // Before the permit: it must be gone when the place is free again.
        #[pin]
        inner: F,
        permit: Option<Permit>,
        circuit: Circuit,
        kind: PhantomData<fn() -> K>,
    }
}

impl<F, T, E, K> Future for Call<F, K>
where
    F: Future<Output = Result<T, E>>,
    E: AsError<K>,
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
        settle(this.permit, &result);
        Poll::Ready(result.map_err(BreakerError::Inner))
    }
}

impl<F, K> fmt::Debug for Call<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("circuit", &self.circuit.name()).finish_non_exhaustive()
    }
}
