//! The errors of the breaker.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::{
    CircuitCondition, CircuitRecord, CircuitRejection, DisplayDuration, error_chain,
};
use tower_fault_classify::{ClassifiedError, Fault, Health, Kind, Origin, Retryable};

use crate::label::Label;
use crate::machine::CircuitState;

/// The error of a call that the circuit rejected.
///
/// The request was not sent. A rejection contains the circuit's [name](Self::circuit) and
/// [key](Self::key), the circuit's [state](Self::state), and [how long to wait](Self::retry_after).
/// Its text:
///
/// ```text
/// circuit breaker `search` is open; retry after 30 s
/// circuit breaker `search` is in slow start; retry after 1 s
/// circuit breaker `search` is forced open until it is released
/// circuit breaker `search` is forced open; retry after 1200 s
/// circuit breaker `tenants` for key `7` is half-open; retry after 1 s
/// ```
///
/// Its [`source`](Error::source) is a [`ClassifiedError`] of the kind `rejected`. With it, every
/// layer above recognizes the rejection without depending on this crate, in any layer order: a
/// retry layer does not send the request again, and a breaker does not count it.
///
/// With the feature `tonic`, the source of the `ClassifiedError` is a `tonic::Status` with the code
/// `UNAVAILABLE`. A generated client returns this status. Without the feature there is no source.
pub struct Rejection {
    /// Made from a [`CircuitRejection`], so that it is also the source of this error.
    classified: ClassifiedError,
}

impl Rejection {
    /// Finds a rejection in an error, or in its sources.
    ///
    /// Use it for a boxed error, and for an error that another library has wrapped. For a
    /// `BreakerError`, [`BreakerError::rejection`] needs no search.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerError, Rejection};
    ///
    /// let rejection = Rejection::open("search", Duration::from_secs(1));
    /// let error = BreakerError::<std::io::Error>::Rejected(rejection);
    /// let boxed = Box::<dyn std::error::Error + Send + Sync>::from(error);
    /// assert_eq!(Rejection::of(&*boxed).map(Rejection::circuit), Some("search"));
    /// ```
    pub fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        error_chain(error).find_map(|error| error.downcast_ref())
    }

    /// Creates the rejection of an open circuit, for tests.
    ///
    /// Use it to test code that handles rejections:
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
    pub fn open(circuit: &'static str, retry_after: Duration) -> Self {
        Self::in_state(circuit, CircuitState::Open, Some(retry_after))
    }

    /// Creates the rejection of a circuit in the given state, for tests.
    ///
    /// [`retry_after`](Self::retry_after) lists the states and their times. No value is checked.
    /// Each name uses memory that is never freed.
    pub fn in_state(circuit: &'static str, state: CircuitState, retry_after: Option<Duration>) -> Self {
        Self::new(CircuitRecord::of(circuit), None, state, retry_after)
    }

    #[inline]
    pub(crate) const fn new(
        circuit: &'static CircuitRecord,
        key: Option<Label>,
        state: CircuitState,
        retry_after: Option<Duration>,
    ) -> Self {
        let nanos = match retry_after {
            Some(delay) => Some(saturating_nanos(delay)),
            None => None,
        };
        let rejection = CircuitRejection::new(circuit, condition(state, nanos.is_some()), nanos);
        #[cfg(feature = "keyed")]
        let rejection = match key {
            Some(label) => rejection.with_label(label),
            None => rejection,
        };
        #[cfg(not(feature = "keyed"))]
        let _ = key;
        Self { classified: ClassifiedError::from_rejection(rejection) }
    }

    /// Creates the rejection of a circuit without a key that stays open for `nanos` nanoseconds.
    #[inline]
    pub(crate) const fn open_for(circuit: &'static CircuitRecord, nanos: u64) -> Self {
        let rejection = CircuitRejection::new(circuit, CircuitCondition::Open, Some(nanos));
        Self { classified: ClassifiedError::from_rejection(rejection) }
    }

    #[inline]
    const fn rejection(&self) -> &CircuitRejection {
        match self.classified.rejection() {
            Some(rejection) => rejection,
            None => unreachable!(),
        }
    }

    /// Returns the name of the circuit.
    #[inline]
    pub const fn circuit(&self) -> &'static str {
        self.rejection().name()
    }

    /// Returns the label of the circuit's key.
    ///
    /// The label is the key's `Debug` text, without the surrounding quotes of a string. The label
    /// of the overflow circuit is `(overflow)`.
    ///
    /// `None`: the circuit has no key, the key's `Debug` panicked, or the circuit was evicted after
    /// the rejection.
    ///
    /// The text of the rejection contains the key. Responses and statuses that are made from a
    /// rejection do not, because they may leave the process.
    pub fn key(&self) -> Option<Arc<str>> {
        self.rejection().label()
    }

    /// Returns the state of the circuit when it rejected the call.
    ///
    /// A closed circuit rejects calls only during its slow start, which admits a share of the
    /// calls, or a limited number of concurrent calls.
    #[inline]
    pub const fn state(&self) -> CircuitState {
        state(self.rejection().condition())
    }

    /// Returns how long to wait before the next call.
    ///
    /// `None`: the circuit does not admit calls by itself.
    ///
    /// | state | time |
    /// |---|---|
    /// | open | until the circuit admits a probe: after this time, the open duration is over |
    /// | open by [command](crate::control::Command::Open) | what remains of its `remaining`; after that 1 s, or until the takeover ends if that is sooner |
    /// | half-open | 1 s, or until the first probe's lease ends if that is sooner: most probes end in milliseconds |
    /// | closed, during a slow start by time | 1 s, or until the slow start ends if that is sooner |
    /// | closed, during a slow start by successes | 1 s, or until the first call's lease ends if that is sooner: most calls end in milliseconds |
    /// | forced open for a time | until the manual override ends: after this time, the circuit admits a probe |
    /// | forced open until it is released, or open until it is reset | `None` |
    ///
    /// A rejection keeps the time in nanoseconds. A time of more than 584 years, which no circuit
    /// has, is shortened to that time.
    ///
    /// Responses carry this time in `Retry-After`, rounded up to whole seconds, and in
    /// `grpc-retry-pushback-ms`.
    #[inline]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.rejection().retry_after()
    }

    /// Returns the fault: kind `rejected`, never retryable, neutral for the server's health.
    pub const fn fault(&self) -> Fault {
        self.rejection().fault()
    }

    /// Returns the text without the key, for responses that may leave the process.
    pub(crate) fn public_text(&self) -> String {
        PublicText(self).to_string()
    }
}

impl Clone for Rejection {
    #[inline]
    fn clone(&self) -> Self {
        Self { classified: ClassifiedError::from_rejection(self.rejection().clone()) }
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("circuit", &self.circuit())
            .field("key", &self.key())
            .field("state", &self.state())
            .field("classified", &self.classified)
            .finish()
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
    write!(f, "circuit breaker `{}`", rejection.circuit())?;
    if let Some(key) = key {
        write!(f, " for key `{key}`")?;
    }
    write!(f, " is {}", rejection.rejection().condition().as_str())?;
    match rejection.retry_after() {
        Some(delay) => write!(f, "; retry after {}", DisplayDuration(delay)),
        None => Ok(()),
    }
}

const fn saturating_nanos(delay: Duration) -> u64 {
    delay.as_secs().saturating_mul(1_000_000_000).saturating_add(delay.subsec_nanos() as u64)
}

/// Returns why a circuit in this state rejects calls. `ends`: it admits calls again by itself.
///
/// Circuits that are forced closed or disabled reject no calls; `Rejection::in_state` accepts any
/// state.
#[inline]
const fn condition(state: CircuitState, ends: bool) -> CircuitCondition {
    match state {
        CircuitState::Closed => CircuitCondition::SlowStart,
        CircuitState::Open if !ends => CircuitCondition::OpenUntilReset,
        CircuitState::Open => CircuitCondition::Open,
        CircuitState::HalfOpen => CircuitCondition::HalfOpen,
        CircuitState::ForcedOpen if !ends => CircuitCondition::ForcedOpenUntilReleased,
        CircuitState::ForcedOpen => CircuitCondition::ForcedOpen,
        CircuitState::ForcedClosed => CircuitCondition::ForcedClosed,
        CircuitState::Disabled => CircuitCondition::Disabled,
    }
}

/// Returns the state that [`condition`] was made from.
#[inline]
const fn state(condition: CircuitCondition) -> CircuitState {
    match condition {
        CircuitCondition::SlowStart => CircuitState::Closed,
        CircuitCondition::Open | CircuitCondition::OpenUntilReset => CircuitState::Open,
        CircuitCondition::HalfOpen => CircuitState::HalfOpen,
        CircuitCondition::ForcedOpen | CircuitCondition::ForcedOpenUntilReleased => CircuitState::ForcedOpen,
        CircuitCondition::ForcedClosed => CircuitState::ForcedClosed,
        CircuitCondition::Disabled => CircuitState::Disabled,
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.classified)
    }
}

/// The error of a manual override or another control operation.
///
/// The circuit is unchanged. The texts name the next step:
///
/// ```text
/// no circuit `biling` in the registry; check the name, or create the circuit first
/// circuit breaker `billing` is forced open; release it first
/// circuit breaker `billing` is disabled; configure another mode first
/// `trip_for` of circuit breaker `billing` is 0ns; allowed is 1ms to 31536000s
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// The registry has no circuit with this name.
    #[non_exhaustive]
    Unknown {
        /// The name that was looked up.
        circuit: String,
    },
    /// The circuit is forced. Call [`release`](crate::Circuit::release) first.
    #[non_exhaustive]
    Forced {
        /// The name of the circuit.
        circuit: &'static str,
        /// The state to which the circuit is forced.
        state: CircuitState,
    },
    /// The configuration disables the circuit. Configure another [`Mode`](crate::Mode) first.
    #[non_exhaustive]
    Disabled {
        /// The name of the circuit.
        circuit: &'static str,
    },
    /// The duration of an operation is out of its range. Use one from 1 ms to 365 days.
    #[non_exhaustive]
    OutOfRange {
        /// The name of the circuit.
        circuit: &'static str,
        /// The name of the operation, such as `trip_for`.
        field: &'static str,
        /// The duration that was given.
        value: Duration,
        /// The allowed durations.
        allowed: RangeInclusive<Duration>,
    },
}

impl ControlError {
    /// Returns the error of a circuit in `state`, which is forced or disabled.
    pub(crate) const fn new(circuit: &'static str, state: CircuitState) -> Self {
        match state {
            CircuitState::Disabled => Self::Disabled { circuit },
            state => Self::Forced { circuit, state },
        }
    }

    /// Returns the name of the circuit.
    pub fn circuit(&self) -> &str {
        match self {
            Self::Unknown { circuit } => circuit,
            Self::Forced { circuit, .. } | Self::Disabled { circuit } | Self::OutOfRange { circuit, .. } => {
                circuit
            }
        }
    }

    /// Returns the state that does not allow the operation; `None` if the state is not the reason.
    pub const fn state(&self) -> Option<CircuitState> {
        match self {
            Self::Unknown { .. } | Self::OutOfRange { .. } => None,
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
            Self::OutOfRange { circuit, field, value, allowed } => {
                let (shortest, longest) = (allowed.start(), allowed.end());
                write!(
                    f,
                    "`{field}` of circuit breaker `{circuit}` is {value:?}; \
                     allowed is {shortest:?} to {longest:?}"
                )
            }
        }
    }
}

impl Error for ControlError {}

/// The error of a call through a [`Breaker`](crate::Breaker) or a [`Circuit`](crate::Circuit).
///
/// It is the error type if the inner error is a concrete type.
///
/// | variant | error | request |
/// |---|---|---|
/// | [`Rejected`](Self::Rejected) | the circuit rejected the call | was not sent |
/// | [`Inner`](Self::Inner) | the inner service failed | depends on the inner error |
/// | [`TimedOut`](Self::TimedOut) | `Circuit::call_within` stopped the call | may have been sent |
///
/// The error prints the text of the error in it, which is also its [`source`](Error::source). To
/// print the whole chain, use [`ErrorChain`](tower_fault_classify::ErrorChain): it prints no text
/// twice.
///
/// If the inner error is boxed (`BoxError`, `anyhow::Error`), a `Breaker` and a `Circuit` keep that
/// error type, and box a [`Rejection`] or a [`TimedOut`] directly: `error.is::<Rejection>()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BreakerError<E> {
    /// The circuit rejected the call.
    Rejected(Rejection),
    /// The inner service failed.
    Inner(E),
    /// The call timed out. Only `Circuit::call_within` (feature `tokio`) returns it.
    TimedOut(TimedOut),
}

impl<E> BreakerError<E> {
    /// Returns the rejection, if the error is one.
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(_) | Self::TimedOut(_) => None,
        }
    }

    /// Returns the inner service's error, if the error is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Rejected(_) | Self::TimedOut(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<E> From<Rejection> for BreakerError<E> {
    #[inline]
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
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
    #[inline]
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(error) => Some(error),
            Self::TimedOut(error) => Some(error),
        }
    }
}

/// The error of a call that `Circuit::call_within` stopped because its time was over.
///
/// It counts as a failure. Exception: if the request's body was waiting for its source at that
/// time, the caller is at fault, and the call is not counted.
///
/// Its [`source`](Error::source) is a [`ClassifiedError`] of the kind `timeout`, which every layer
/// above recognizes.
#[derive(Clone, Debug)]
pub struct TimedOut(Box<TimedOutParts>);

/// The parts of a [`TimedOut`]. They are boxed, because a large error makes each `Result` large.
#[derive(Debug)]
struct TimedOutParts {
    after: Duration,
    classified: ClassifiedError,
}

impl TimedOut {
    /// Creates the error of a call that was allowed to take `after`, for tests.
    pub fn new(after: Duration) -> Self {
        let fault = Fault::new(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy, Origin::Transport);
        Self::with_fault(after, fault)
    }

    /// Creates the error with the fault of a classified timeout. The fault differs from that of
    /// [`new`](Self::new) if the request's body was waiting for its source.
    pub(crate) fn with_fault(after: Duration, fault: Fault) -> Self {
        Self(Box::new(TimedOutParts { after, classified: ClassifiedError::from_fault(fault) }))
    }

    /// Returns how long the call was allowed to take.
    pub const fn after(&self) -> Duration {
        self.0.after
    }

    /// Returns the fault: normally kind `timeout`, retryable if idempotent, and unhealthy.
    pub const fn fault(&self) -> Fault {
        self.0.classified.fault()
    }
}

impl Clone for TimedOutParts {
    fn clone(&self) -> Self {
        let classified = ClassifiedError::from_fault(self.classified.fault()).with_note_of(&self.classified);
        Self { after: self.after, classified }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call timed out after {}", DisplayDuration(self.0.after))
    }
}

impl Error for TimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0.classified)
    }
}

#[cfg(all(test, not(loom_models), feature = "keyed"))]
mod tests {
    use tower_fault_classify::{ErrorChain, classify_error};

    use super::*;
    use crate::label::KeptLabel;

    fn rejection(key: Option<Label>, state: CircuitState, retry_after: Option<Duration>) -> Rejection {
        Rejection::new(CircuitRecord::of("billing"), key, state, retry_after)
    }

    #[test]
    fn rejection_text_names_circuit_key_condition_and_time() {
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
                CircuitState::ForcedOpen,
                Some(Duration::from_secs(1_200)),
                "circuit breaker `billing` is forced open; retry after 1200 s",
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
            let kept = key.map(|key| KeptLabel::new("billing", key.to_owned()));
            let rejection = rejection(kept.as_ref().map(KeptLabel::label), state, retry_after);
            assert_eq!(rejection.to_string(), text);
            assert_eq!(rejection.public_text(), text.replace(" for key `7`", ""));
        }
    }

    /// Each `Result` of a call contains the size of these errors.
    #[test]
    fn error_sizes_are_small() {
        // With the feature `tonic`, a rejection contains the cell of its status.
        let words = if cfg!(feature = "tonic") { 5 } else { 3 };
        assert_eq!(size_of::<Rejection>(), words * 8);
        assert_eq!(size_of::<BreakerError<std::io::Error>>(), words * 8);
        assert_eq!(size_of::<Result<(), BreakerError<std::io::Error>>>(), words * 8);
        assert_eq!(size_of::<TimedOut>(), 8);
    }

    #[test]
    fn rejection_debug_and_clone_keep_parts() {
        let kept = KeptLabel::new("billing", "7".to_owned());
        let delay = Some(Duration::from_nanos(2_340_000_001));
        let rejection = rejection(Some(kept.label()), CircuitState::HalfOpen, delay);
        let text = format!("{rejection:?}");
        for part in ["circuit: \"billing\"", "key: Some(\"7\")", "state: HalfOpen", "2.340000001s"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(format!("{:?}", rejection.clone()), text);
        assert_eq!(rejection.retry_after(), delay);
    }

    #[test]
    fn rejection_keeps_every_state_and_longest_time() {
        for state in [
            CircuitState::Closed,
            CircuitState::Open,
            CircuitState::HalfOpen,
            CircuitState::ForcedOpen,
            CircuitState::ForcedClosed,
            CircuitState::Disabled,
        ] {
            for retry_after in [None, Some(Duration::ZERO), Some(Duration::from_secs(365 * 86_400))] {
                let rejection = rejection(None, state, retry_after);
                assert_eq!((rejection.state(), rejection.retry_after()), (state, retry_after));
            }
        }
        let longest = Duration::from_nanos(u64::MAX - 1);
        assert_eq!(rejection(None, CircuitState::Open, Some(Duration::MAX)).retry_after(), Some(longest));
    }

    #[test]
    fn breaker_error_carries_verdict_of_rejection() {
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
    fn control_error_text_names_next_step() {
        let text = "circuit breaker `billing` is forced open; release it first";
        assert_eq!(ControlError::new("billing", CircuitState::ForcedOpen).to_string(), text);
        let text = "circuit breaker `billing` is disabled; configure another mode first";
        assert_eq!(ControlError::new("billing", CircuitState::Disabled).to_string(), text);
    }

    #[test]
    fn breaker_error_prints_and_returns_its_source() {
        let error = BreakerError::Inner(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(classify_error(&error).kind(), Kind::Unavailable);
        assert_eq!(error.to_string(), "connection refused");
        assert!(error.source().is_some_and(<dyn Error>::is::<std::io::Error>));
        assert_eq!(ErrorChain(&error).to_string(), "connection refused");
    }
}
