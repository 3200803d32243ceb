//! The breaker's errors.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::DisplayDuration;
use tower_fault_classify::{ClassifiedError, Fault, Health, Kind, Origin, Retryable};

use crate::label::Label;
use crate::machine::CircuitState;

/// A call that the circuit did not let through. The request was not sent.
///
/// ```text
/// circuit breaker `search` is open; retry after 30 s
/// circuit breaker `search` is in slow start; retry after 1 s
/// circuit breaker `search` is forced open until it is released
/// circuit breaker `tenants` for key `7` is half-open; retry after 1 s
/// ```
///
/// Its [`source`](Error::source) is a [`ClassifiedError`] of kind `rejected`, so that every layer above, in
/// any order of stacking, knows what happened without knowing the breaker: the request is not sent
/// again, and the server's health is not affected.
#[derive(Debug)]
pub struct Rejection {
    circuit: &'static str,
    key: Option<Label>,
    state: CircuitState,
    classified: ClassifiedError,
}

/// A rejection in parts: name of the circuit, key, state, time to wait.
pub(crate) type RejectionParts = (&'static str, Option<Label>, CircuitState, Option<Duration>);

impl Rejection {
    /// Creates the rejection of an open circuit, for tests of code that handles rejections.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerError, CircuitState, Rejection};
    ///
    /// fn is_worth_waiting(error: &BreakerError<std::io::Error>) -> bool {
    ///     error.rejection().and_then(Rejection::retry_after).is_some_and(|time| time < Duration::from_secs(5))
    /// }
    ///
    /// let soon = BreakerError::Rejected(Rejection::open("search", Duration::from_secs(1)));
    /// assert!(is_worth_waiting(&soon));
    /// let forced = BreakerError::Rejected(Rejection::in_state("search", CircuitState::ForcedOpen, None));
    /// assert!(!is_worth_waiting(&forced));
    /// ```
    pub const fn open(circuit: &'static str, retry_after: Duration) -> Self {
        Self::in_state(circuit, CircuitState::Open, Some(retry_after))
    }

    /// Creates the rejection of a circuit in a given state, for tests of code that handles
    /// rejections. [`retry_after`](Self::retry_after) lists the states and their times.
    pub const fn in_state(circuit: &'static str, state: CircuitState, retry_after: Option<Duration>) -> Self {
        Self::new(circuit, None, state, retry_after)
    }

    #[inline]
    pub(crate) const fn new(
        circuit: &'static str,
        key: Option<Label>,
        state: CircuitState,
        retry_after: Option<Duration>,
    ) -> Self {
        let fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        let fault = match retry_after {
            Some(delay) => fault.with_retry_after(delay),
            None => fault,
        };
        let condition = condition(state, retry_after.is_some());
        Self {
            circuit,
            key,
            state,
            classified: ClassifiedError::circuit_rejection(fault, circuit, condition),
        }
    }

    /// Takes it apart. What has to lie in memory for a while does so as parts: loading in one piece what was stored in several stalls.
    #[inline]
    pub(crate) const fn parts(&self) -> RejectionParts {
        let retry_after = self.retry_after();
        (self.circuit, self.key, self.state, retry_after)
    }

    /// The name of the circuit.
    pub const fn circuit(&self) -> &'static str {
        self.circuit
    }

    /// The key of the circuit, as its layer labels it. `None`: the circuit has no key, or was
    /// evicted meanwhile.
    ///
    /// The text of the rejection names the key. Responses and statuses that are made of a rejection
    /// do not, because they may leave the process.
    pub fn key(&self) -> Option<Arc<str>> {
        self.key.and_then(Label::text)
    }

    /// The state of the circuit. A closed circuit rejects calls only in its slow start, which
    /// admits a share of them.
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
    /// Responses carry it in `Retry-After`, rounded up to whole seconds, and in
    /// `grpc-retry-pushback-ms`.
    #[inline]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.classified.fault().retry_after()
    }

    /// The verdict.
    pub const fn fault(&self) -> &Fault {
        self.classified.fault()
    }

    /// The text without the key, for what may leave the process.
    pub(crate) fn public_text(&self) -> String {
        PublicText(self).to_string()
    }
}

impl Clone for Rejection {
    fn clone(&self) -> Self {
        let (circuit, key, state, retry_after) = self.parts();
        let mut clone = Self::new(circuit, key, state, retry_after);
        clone.classified = clone.classified.with_note_of(&self.classified);
        clone
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rejection(f, self, self.key().as_deref())
    }
}

struct PublicText<'a>(&'a Rejection);

impl fmt::Display for PublicText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rejection(f, self.0, None)
    }
}

fn write_rejection(f: &mut fmt::Formatter<'_>, rejection: &Rejection, key: Option<&str>) -> fmt::Result {
    write!(f, "circuit breaker `{}`", rejection.circuit)?;
    if let Some(key) = key {
        write!(f, " for key `{key}`")?;
    }
    let retry_after = rejection.retry_after();
    write!(f, " is {}", condition(rejection.state, retry_after.is_some()))?;
    match retry_after {
        Some(delay) => write!(f, "; retry after {}", DisplayDuration(delay)),
        None => Ok(()),
    }
}

/// Why a circuit in this state rejects calls. `ends`: it admits calls again by itself.
const fn condition(state: CircuitState, ends: bool) -> &'static str {
    match state {
        CircuitState::Closed => "in slow start",
        CircuitState::Open if !ends => "open until it is reset",
        CircuitState::Open => "open",
        CircuitState::HalfOpen => "half-open",
        CircuitState::ForcedOpen => "forced open until it is released",
        // These two reject no calls; `Rejection::in_state` takes any state.
        CircuitState::ForcedClosed => "forced closed until it is released",
        CircuitState::Disabled => "disabled",
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.classified)
    }
}

/// Why a manual override, or another control call, was refused. The circuit is unchanged.
///
/// ```text
/// no circuit `biling` in the registry; check the name, or create the circuit first
/// circuit breaker `billing` is forced open; release it first
/// circuit breaker `billing` is disabled; configure another mode first
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// The registry has no circuit of this name.
    #[non_exhaustive]
    Unknown {
        /// The name.
        circuit: String,
    },
    /// A manual override takes precedence until [`release`](crate::Circuit::release).
    #[non_exhaustive]
    Forced {
        /// The name of the circuit.
        circuit: &'static str,
        /// The state to which the circuit is forced.
        state: CircuitState,
    },
    /// The circuit is disabled by its configuration.
    #[non_exhaustive]
    Disabled {
        /// The name of the circuit.
        circuit: &'static str,
    },
}

impl ControlError {
    /// The error of a circuit in `state`, which is forced or disabled.
    pub(crate) const fn new(circuit: &'static str, state: CircuitState) -> Self {
        match state {
            CircuitState::Disabled => Self::Disabled { circuit },
            state => Self::Forced { circuit, state },
        }
    }

    /// The name of the circuit.
    pub fn circuit(&self) -> &str {
        match self {
            Self::Unknown { circuit } => circuit,
            Self::Forced { circuit, .. } | Self::Disabled { circuit } => circuit,
        }
    }

    /// The state of the circuit, if there is one.
    pub const fn state(&self) -> Option<CircuitState> {
        match self {
            Self::Unknown { .. } => None,
            Self::Forced { state, .. } => Some(*state),
            Self::Disabled { .. } => Some(CircuitState::Disabled),
        }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { circuit } => {
                write!(
                    f,
                    "no circuit `{circuit}` in the registry; check the name, or create the circuit first"
                )
            }
            Self::Forced { circuit, state: CircuitState::ForcedClosed } => {
                write!(f, "circuit breaker `{circuit}` is forced closed; release it first")
            }
            Self::Forced { circuit, .. } => {
                write!(f, "circuit breaker `{circuit}` is forced open; release it first")
            }
            Self::Disabled { circuit } => {
                write!(f, "circuit breaker `{circuit}` is disabled; configure another mode first")
            }
        }
    }
}

impl Error for ControlError {}

/// The error of a [`Breaker`](crate::Breaker) whose inner error is a type of its own, and of a
/// [`Circuit`](crate::Circuit)'s calls.
///
/// It prints what the error in it prints, which is also its [`source`](Error::source). To print the
/// causes too, use
/// [`ErrorChain`](tower_fault_classify::ErrorChain), which prints no text twice.
///
/// Over an inner error that is boxed (`BoxError`, `anyhow::Error`) the type stays as it is, and a [`Rejection`] is boxed straight
/// in: `error.is::<Rejection>()`.
#[derive(Clone, Debug)]
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

impl<E: fmt::Display> fmt::Display for BreakerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Inner(error) => error.fmt(f),
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

/// A call that [`Circuit::call_within`](crate::Circuit) stopped because its time was over. It
/// counts as a failure, unless the request's body waited for its source: that is the caller's
/// fault.
///
/// Its [`source`](Error::source) is a [`ClassifiedError`] of kind `timeout`, so that every layer above knows
/// what happened.
#[derive(Debug)]
pub struct TimedOut {
    after: Duration,
    classified: ClassifiedError,
}

impl TimedOut {
    /// Creates the error of a call that was allowed to take `after`, for tests of code that
    /// handles timeouts.
    pub const fn new(after: Duration) -> Self {
        let fault = Fault::new(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy, Origin::Transport);
        Self::with_fault(after, fault)
    }

    /// Creates the error with the fault that the timeout was classified as. The fault differs from
    /// that of [`new`](Self::new) while the request's body waits for its source.
    pub(crate) const fn with_fault(after: Duration, fault: Fault) -> Self {
        Self { after, classified: ClassifiedError::from_fault(fault) }
    }

    /// How long the call was allowed to take.
    pub const fn after(&self) -> Duration {
        self.after
    }

    /// The verdict.
    pub const fn fault(&self) -> &Fault {
        self.classified.fault()
    }
}

impl Clone for TimedOut {
    fn clone(&self) -> Self {
        let classified = ClassifiedError::from_fault(*self.fault()).with_note_of(&self.classified);
        Self { after: self.after, classified }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call timed out after {}", DisplayDuration(self.after))
    }
}

impl Error for TimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.classified)
    }
}

#[cfg(all(test, not(loom_models), feature = "keyed"))]
mod tests {
    use tower_fault_classify::{ErrorChain, classify_error};

    use super::*;
    use crate::label::KeptLabel;

    fn rejection(key: Option<Label>, state: CircuitState, retry_after: Option<Duration>) -> Rejection {
        Rejection::new("billing", key, state, retry_after)
    }

    #[test]
    fn rejection_names_circuit_key_condition_and_time() {
        let delay = Some(Duration::from_millis(2_340));
        let second = Some(Duration::from_secs(1));
        let cases = [
            (None, CircuitState::Open, delay, "circuit breaker `billing` is open; retry after 2.3 s"),
            (None, CircuitState::Open, None, "circuit breaker `billing` is open until it is reset"),
            (None, CircuitState::HalfOpen, second, "circuit breaker `billing` is half-open; retry after 1 s"),
            (
                None,
                CircuitState::Closed,
                second,
                "circuit breaker `billing` is in slow start; retry after 1 s",
            ),
            (
                None,
                CircuitState::ForcedOpen,
                None,
                "circuit breaker `billing` is forced open until it is released",
            ),
            (
                None,
                CircuitState::ForcedClosed,
                None,
                "circuit breaker `billing` is forced closed until it is released",
            ),
            (None, CircuitState::Disabled, None, "circuit breaker `billing` is disabled"),
            (
                Some("7"),
                CircuitState::Open,
                delay,
                "circuit breaker `billing` for key `7` is open; retry after 2.3 s",
            ),
        ];
        for (key, state, retry_after, text) in cases {
            let kept = key.map(|key| KeptLabel::new(key.to_owned()));
            let rejection = rejection(kept.as_ref().map(KeptLabel::label), state, retry_after);
            assert_eq!(rejection.to_string(), text);
            assert_eq!(rejection.public_text(), text.replace(" for key `7`", ""));
        }
    }

    #[test]
    fn rejection_carries_its_verdict_through_the_breaker_error() {
        let delay = Some(Duration::from_millis(2_340));
        let error: BreakerError<fmt::Error> =
            BreakerError::Rejected(rejection(None, CircuitState::Open, delay));
        let fault = classify_error(&error);
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Rejected, Retryable::Never, Health::Neutral)
        );
        assert_eq!(fault.retry_after(), delay);
    }

    #[test]
    fn control_error_names_the_next_step() {
        let text = "circuit breaker `billing` is forced open; release it first";
        assert_eq!(ControlError::new("billing", CircuitState::ForcedOpen).to_string(), text);
        let text = "circuit breaker `billing` is disabled; configure another mode first";
        assert_eq!(ControlError::new("billing", CircuitState::Disabled).to_string(), text);
    }

    #[test]
    fn breaker_error_prints_the_error_in_it_and_leads_to_it() {
        let error = BreakerError::Inner(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(classify_error(&error).kind(), Kind::Unavailable);
        assert_eq!(error.to_string(), "connection refused");
        assert!(error.source().is_some_and(<dyn Error>::is::<std::io::Error>));
        assert_eq!(ErrorChain(&error).to_string(), "connection refused");
    }
}
