//! The breaker's errors.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tower_fault_classify::{Fault, Health, Judged, Kind, Origin, Retryable};

use crate::machine::CircuitState;

/// A call that the circuit did not let through.
///
/// The request was not sent. Its [`source`](Error::source) is a [`Judged`] of kind `rejected`, so that every layer above, in any
/// order of stacking, knows what happened without knowing the breaker: it is not sent again, and it says nothing of the
/// server's health.
#[derive(Debug)]
pub struct Rejection {
    circuit: &'static str,
    state: CircuitState,
    judged: Judged,
}

impl Rejection {
    #[inline]
    pub(crate) const fn new(
        circuit: &'static str,
        state: CircuitState,
        retry_after: Option<Duration>,
    ) -> Self {
        let fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        let fault = match retry_after {
            Some(delay) => fault.with_retry_after(delay),
            None => fault,
        };
        Self { circuit, state, judged: Judged::bare_by(fault, circuit) }
    }

    /// Takes it apart. What has to lie in memory for a while does so as parts: loading in one piece what was stored in several stalls.
    #[inline]
    pub(crate) const fn parts(&self) -> (&'static str, CircuitState, Option<Duration>) {
        (self.circuit, self.state, self.retry_after())
    }

    /// The name of the circuit.
    pub const fn circuit(&self) -> &'static str {
        self.circuit
    }

    /// The state of the circuit. A closed circuit rejects calls only in its slow start, which admits a share of them.
    pub const fn state(&self) -> CircuitState {
        self.state
    }

    /// How long to wait before the next call.
    ///
    /// | state | time |
    /// |---|---|
    /// | open | until the circuit admits a probe: a task that sleeps this long finds the open time over |
    /// | half-open | 1 s, or until the first probe's lease ends if that is sooner: most probes end in milliseconds |
    /// | closed, in its slow start | 1 s, or until the slow start ends if that is sooner |
    /// | forced open, or open until it is reset | `None` |
    ///
    /// Responses carry it in `Retry-After`, rounded up to whole seconds, and in `grpc-retry-pushback-ms`.
    #[inline]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.judged.fault().retry_after()
    }

    /// The verdict.
    pub const fn fault(&self) -> &Fault {
        self.judged.fault()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            CircuitState::Closed => "in slow start",
            state => state.as_str(),
        };
        write!(f, "circuit `{}` is {state}, the request was not sent", self.circuit)?;
        match self.retry_after() {
            Some(delay) => write!(f, "; try again in {delay:.1?}"),
            None => f.write_str(" and will not be until the circuit is reset or released"),
        }
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.judged)
    }
}

/// A control call that the circuit does not take, for it is forced, or disabled by its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    circuit: &'static str,
    state: CircuitState,
}

impl Forced {
    pub(crate) const fn new(circuit: &'static str, state: CircuitState) -> Self {
        Self { circuit, state }
    }

    /// The name of the circuit.
    pub const fn circuit(&self) -> &'static str {
        self.circuit
    }

    /// What it is forced to.
    pub const fn state(&self) -> CircuitState {
        self.state
    }
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { circuit, state } = self;
        let remedy = match state {
            CircuitState::Disabled => "configure it anew",
            _ => "release it",
        };
        write!(f, "circuit `{circuit}` is {state}: {remedy} first")
    }
}

impl Error for Forced {}

/// The error of a [`Breaker`](crate::Breaker) whose inner error is a type of its own.
///
/// Over an inner error that is boxed (`BoxError`, `anyhow::Error`) the type stays as it is, and a [`Rejection`] is boxed straight
/// in: `error.is::<Rejection>()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum BreakerError<E> {
    /// The circuit did not let the call through.
    Rejected(Rejection),
    /// The inner service failed.
    Inner(E),
    /// The call took too long. Only [`Circuit::call_within`](crate::Circuit) returns it.
    TimedOut(TimedOut),
}

impl<E> BreakerError<E> {
    /// The rejection, if it is one.
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(_) | Self::TimedOut(_) => None,
        }
    }

    /// The inner service's error, if it is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Rejected(_) | Self::TimedOut(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<E> fmt::Display for BreakerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(_) => f.write_str("rejected by the circuit breaker"),
            Self::Inner(_) => f.write_str("the call behind the circuit breaker failed"),
            Self::TimedOut(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for BreakerError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(error) => Some(error),
            Self::TimedOut(error) => Some(error),
        }
    }
}

/// A call that [`Circuit::call_within`](crate::Circuit) stopped because its time was over. It counts as a failure.
///
/// Its [`source`](Error::source) is a [`Judged`] of kind `timeout`, so that every layer above knows what happened.
#[derive(Debug)]
pub struct TimedOut {
    after: Duration,
    judged: Judged,
}

impl TimedOut {
    #[cfg(feature = "tokio")]
    pub(crate) const fn new(after: Duration, fault: Fault) -> Self {
        Self { after, judged: Judged::bare(fault) }
    }

    /// How long the call was allowed to take.
    pub const fn after(&self) -> Duration {
        self.after
    }

    /// The verdict.
    pub const fn fault(&self) -> &Fault {
        self.judged.fault()
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call timed out after {:?}", self.after)
    }
}

impl Error for TimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.judged)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::judge_error;

    use super::*;

    #[test]
    fn a_rejection_says_what_to_do_and_carries_its_verdict() {
        let rejection = Rejection::new("billing", CircuitState::Open, Some(Duration::from_millis(2_340)));
        let text = "circuit `billing` is open, the request was not sent; try again in 2.3s";
        assert_eq!(rejection.to_string(), text);
        let error: BreakerError<fmt::Error> = BreakerError::Rejected(rejection);
        let fault = judge_error(&error);
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Rejected, Retryable::Never, Health::Neutral)
        );
        assert_eq!(fault.retry_after(), Some(Duration::from_millis(2_340)));
    }

    #[test]
    fn a_rejection_without_an_end_says_who_must_act() {
        let rejection = Rejection::new("billing", CircuitState::ForcedOpen, None);
        let text = "circuit `billing` is forced open, the request was not sent and will not be until the circuit is reset or released";
        assert_eq!(rejection.to_string(), text);
        let text = "circuit `billing` is forced open: release it first";
        assert_eq!(Forced::new("billing", CircuitState::ForcedOpen).to_string(), text);
    }

    #[test]
    fn an_inner_error_is_found_through_the_source_and_printed_once() {
        let error = BreakerError::Inner(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(judge_error(&error).kind(), Kind::Unavailable);
        assert!(!error.to_string().contains("refused"));
        assert!(error.source().is_some_and(<dyn Error>::is::<std::io::Error>));
    }
}
