//! The future of a call through a circuit, with a timeout.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::error::Elapsed;
use tokio::time::{Timeout, timeout};
use tower_fault_classify::classifiers::{AsError, NestedErrors, TypedError};
use tower_fault_classify::classify_error;

use super::Call;
use crate::circuit::Circuit;
use crate::error::{BreakerError, TimedOut};

impl Circuit {
    /// Runs a future through the circuit, with a timeout.
    ///
    /// The time starts at the first poll, when the circuit admits the call. When the time is over,
    /// the future is dropped, and the call counts as a failure. An error is classified by its chain
    /// of sources.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit};
    ///
    /// # async fn query() -> Result<u32, std::io::Error> { std::future::pending().await }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// match circuit.call_within(Duration::from_secs(5), query()).await {
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
    /// - [`BreakerError::Rejected`]: the circuit rejected the call.
    /// - [`BreakerError::TimedOut`]: the time was over.
    /// - [`BreakerError::Inner`]: the call failed; this is its error.
    ///
    /// # Cancellation
    ///
    /// Dropping the returned future drops `call`, as with [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates to the caller. The returned future
    /// panics if it is polled outside of a tokio runtime with an enabled timer.
    pub fn call_within<F, T, E, K>(&self, time: Duration, call: F) -> CallWithin<F, K>
    where
        F: Future<Output = Result<T, E>>,
        E: AsError<K>,
    {
        let limited = Limited::Unpolled { call: Some(call), time };
        CallWithin { call: Call::new(self, limited, NestedErrors::new()), time }
    }
}

pin_project! {
    /// The future of [`Circuit::call_within`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CallWithin<F, K> {
        #[pin]
        call: Call<Limited<F>, NestedErrors<(TypedError, K)>>,
        time: Duration,
    }
}

impl<F, T, E, K> Future for CallWithin<F, K>
where
    F: Future<Output = Result<T, E>>,
    E: AsError<K>,
{
    type Output = Result<T, BreakerError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match ready!(this.call.poll(cx)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(BreakerError::Inner(error)),
            // Classified inside of the poll, where it is known whether the request's body waits.
            Err(BreakerError::Inner(elapsed)) => {
                let fault = classify_error(&elapsed);
                Err(BreakerError::TimedOut(TimedOut::with_fault(*this.time, fault)))
            }
            Err(BreakerError::TimedOut(error)) => Err(BreakerError::TimedOut(error)),
            Err(BreakerError::Rejected(rejection)) => Err(BreakerError::Rejected(rejection)),
        };
        Poll::Ready(result)
    }
}

impl<F, K> fmt::Debug for CallWithin<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWithin").field("call", &self.call).field("time", &self.time).finish()
    }
}

pin_project! {
    /// A timeout whose time starts at the first poll.
    #[project = LimitedProj]
    enum Limited<F> {
        Unpolled {
            call: Option<F>,
            time: Duration,
        },
        Polled {
            #[pin]
            call: Timeout<F>,
        },
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let LimitedProj::Unpolled { call, time } = self.as_mut().project()
            && let Some(call) = call.take()
        {
            let call = timeout(*time, call);
            self.set(Self::Polled { call });
        }
        let LimitedProj::Polled { call } = self.as_mut().project() else {
            panic!("`CallWithin` polled after completion");
        };
        let result = ready!(call.poll(cx));
        // The call is dropped before its outcome is recorded, so that it has ended when a probe's
        // slot is free again.
        self.set(Self::Unpolled { call: None, time: Duration::ZERO });
        Poll::Ready(result)
    }
}
