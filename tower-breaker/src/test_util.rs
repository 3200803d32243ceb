//! Helpers for tests of code that uses this crate (feature `test-util`).
//!
//! Enable the feature in `[dev-dependencies]`. It also enables the feature `test-util` of tokio.
//!
//! Circuits are real: they admit and reject calls as after real failures and probes. The functions
//! work with any [`Circuit`]: of [`Circuit::new`], of a layer
//! ([`BreakerLayer::circuit`](crate::BreakerLayer::circuit)), of a registry, or of one key.
//!
//! | a circuit that is | call |
//! |---|---|
//! | closed, and counts no call | [`Circuit::new`], [`Circuit::reset`] |
//! | open, for exactly this time | [`Circuit::trip_for`] |
//! | half-open, with free or running probes | [`half_open`] |
//! | in its slow start | [`slow_start`] |
//! | forced open, forced closed | [`Circuit::force_open`], [`Circuit::force_closed`] |
//! | disabled | [`Mode::Disabled`](crate::Mode::Disabled) in its configuration |
//!
//! | a value | of |
//! |---|---|
//! | [`status`], [`transition`], [`failure`], [`last_failure`] | a dashboard or an observer |
//! | [`Rejection::open`], [`Rejection::in_state`], `rejection_by_key` (feature `keyed`), [`TimedOut::new`](crate::TimedOut::new) | code that handles errors |
//!
//! [`clock`] creates a clock that advances together with tokio's paused time:
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_breaker::{BreakerConfig, BreakerError, Circuit, test_util};
//!
//! async fn hang() -> Result<String, std::io::Error> {
//!     std::future::pending().await
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (clock, time) = test_util::clock();
//! let circuit = Circuit::new(BreakerConfig::builder().clock(clock).build()?);
//!
//! // The timeout takes no real time, and the circuit's clock shows it.
//! let timed_out = circuit.call_within(Duration::from_secs(5), hang()).await;
//! assert!(matches!(timed_out, Err(BreakerError::TimedOut(_))));
//! assert_eq!(circuit.status().lasted, Duration::from_secs(5));
//!
//! circuit.trip_for(Duration::from_secs(30))?;
//! time.advance(Duration::from_secs(30)).await;
//! assert!(!circuit.status().rejects_calls());
//! # Ok(())
//! # }
//! ```
//!
//! [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) shows how
//! to use them.

use std::error::Error;
use std::time::{Duration, SystemTime};

#[doc(inline)]
pub use tower_fault_classify::__internals::{TestClock, test_clock as clock};
use tower_fault_classify::{Fault, Verdict, classify_error};

use crate::circuit::{Circuit, CircuitRef, Permit, Status};
#[cfg(feature = "keyed")]
use crate::error::Rejection;
use crate::machine::{CircuitState, Counts, HalfOpen, Reason};
use crate::telemetry::{Cause, Failure, LastFailure, Transition};

/// Half-opens a circuit, and returns the permits of `running_probes` probes.
///
/// The round of probes has just begun: a half-open circuit is opened first. A manual override is
/// released. Observers are notified of the transitions.
///
/// Each permit holds a slot until it is recorded or dropped, or until its
/// [lease](crate::BreakerConfigBuilder::probe_lease) ends. With as many running probes as the
/// circuit has [`probes`](crate::BreakerConfigBuilder::probes), the next call is rejected.
///
/// # Panics
///
/// Panics if the configuration disables the circuit, or if `running_probes` is more than the
/// circuit's `probes`.
///
/// ```
/// use tower_breaker::{BreakerConfig, Circuit, CircuitState, Verdict, test_util};
///
/// let config = BreakerConfig::builder().probes(2).successes_to_close(1).build()?;
/// let circuit = Circuit::new(config);
///
/// let mut probes = test_util::half_open(&circuit, 2);
/// assert!(circuit.try_acquire().is_err(), "no slot is free");
///
/// // A probe ends, and closes the circuit.
/// let probe = probes.pop().expect("there are two probes");
/// probe.record(Verdict::Success);
/// assert_eq!(circuit.status().state, CircuitState::Closed);
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
#[track_caller]
pub fn half_open<R: CircuitRef>(circuit: &Circuit<R>, running_probes: u32) -> Vec<Permit<R>> {
    let slots = circuit.config().probes();
    assert!(
        running_probes <= slots,
        "circuit breaker `{}` has {slots} probe slots, and {running_probes} probes are to run",
        circuit.name()
    );
    circuit.release();
    if let Err(error) = circuit.trip().and_then(|()| circuit.probe_now()) {
        panic!("{error}");
    }
    let probe = |_| circuit.try_acquire().expect("a new round of probes must have free slots");
    (0..running_probes).map(probe).collect()
}

/// Closes a circuit by successful probes, so that its slow start begins now.
///
/// The configuration must have a [`slow_start`](crate::BreakerConfigBuilder::slow_start) or
/// [`slow_start_successes`](crate::BreakerConfigBuilder::slow_start_successes). A manual override
/// is released. Observers are notified of the transitions.
///
/// # Panics
///
/// Panics if the configuration has no slow start, or disables the circuit.
///
/// ```
/// use std::time::Duration;
///
/// use tower_breaker::{BreakerConfig, Circuit, Clock, test_util};
///
/// let (clock, time) = Clock::manual();
/// let config = BreakerConfig::builder().slow_start(Duration::from_secs(60)).clock(clock).build()?;
/// let circuit = Circuit::new(config);
///
/// test_util::slow_start(&circuit);
/// assert_eq!(circuit.status().slow_start, Some(0.0));
/// time.advance(Duration::from_secs(30));
/// assert_eq!(circuit.status().slow_start, Some(0.5));
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
#[track_caller]
pub fn slow_start<R: CircuitRef>(circuit: &Circuit<R>) {
    half_open(circuit, 0);
    for _ in 0..circuit.config().successes_to_close() {
        circuit.record(Verdict::Success);
    }
    assert!(
        circuit.status().slow_start.is_some(),
        "circuit breaker `{}` has no slow start; configure one first",
        circuit.name()
    );
}

/// Creates the status of a circuit in `state`, for which nothing else has happened.
///
/// Counts and times are zero, and there is no transition. Set the fields that the test needs. A
/// circuit that is open or forced open has no [`retry_after`](Status::retry_after): it stays in
/// that state until it is reset or released. To get a status whose fields match, take the
/// [`status`](Circuit::status) of a circuit.
///
/// ```
/// use std::time::Duration;
///
/// use tower_breaker::{CircuitState, Status, test_util};
///
/// /// The code under test.
/// fn line(status: &Status) -> String {
///     let failures = status.window.failures;
///     format!("{} {} ({failures} failures)", status.circuit, status.state)
/// }
///
/// let mut status = test_util::status("users", CircuitState::Open);
/// status.retry_after = Some(Duration::from_secs(12));
/// status.window.failures = 7;
/// assert_eq!(line(&status), "users open (7 failures)");
/// ```
pub fn status(circuit: &'static str, state: CircuitState) -> Status {
    Status {
        circuit,
        key: None,
        state,
        slow_start: None,
        lasted: Duration::ZERO,
        consecutive_failures: 0,
        window: Counts::default(),
        half_open: (state == CircuitState::HalfOpen).then(HalfOpen::default),
        rejected_calls: 0,
        rejected_since_transition: 0,
        since_last_success: None,
        since_last_failure: None,
        retry_after: None,
        override_ends_in: None,
        last_transition: None,
        last_trip: None,
        last_failure: None,
    }
}

/// Creates a transition, as an observer or a stream receives it.
///
/// Its counts are zero, it has no fault, its [`epoch`](Transition::epoch) is 1, and its
/// [time](Transition::at) is the Unix epoch. Set the fields that the test needs.
///
/// To test that an observer is called, use a circuit: [`Circuit::trip`] causes a transition.
///
/// ```
/// use tower_breaker::telemetry::Transition;
/// use tower_breaker::{CircuitState, Reason, test_util};
///
/// /// The code under test.
/// fn is_alert(transition: &Transition) -> bool {
///     transition.to == CircuitState::Open && transition.reason != Reason::Tripped
/// }
///
/// let (closed, open) = (CircuitState::Closed, CircuitState::Open);
/// assert!(is_alert(&test_util::transition("users", closed, open, Reason::FailureRate)));
/// assert!(!is_alert(&test_util::transition("users", closed, open, Reason::Tripped)));
/// ```
pub fn transition(circuit: &'static str, from: CircuitState, to: CircuitState, reason: Reason) -> Transition {
    Transition {
        circuit,
        key: None,
        from,
        to,
        reason,
        fault: None,
        counts: (from == CircuitState::Closed).then(Counts::default),
        consecutive_failures: 0,
        half_open: (from == CircuitState::HalfOpen).then(HalfOpen::default),
        at: SystemTime::UNIX_EPOCH,
        epoch: 1,
    }
}

/// Creates the first failure of a closed circuit, as an observer of failures receives it.
///
/// Its [time](Failure::at) is the Unix epoch. Set the fields that the test needs.
///
/// ```
/// use tower_breaker::fault_classify::classify_error;
/// use tower_breaker::test_util;
///
/// let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// let failure = test_util::failure("users", classify_error(&reset));
/// assert_eq!((failure.circuit, failure.consecutive_failures), ("users", 1));
/// ```
pub fn failure(circuit: &'static str, fault: Fault) -> Failure {
    Failure {
        circuit,
        key: None,
        fault,
        state: CircuitState::Closed,
        consecutive_failures: 1,
        at: SystemTime::UNIX_EPOCH,
    }
}

/// Creates the record of a call that failed with `error`, for
/// [`Status::last_failure`](crate::Status::last_failure).
///
/// `subject` is what the call was about, such as its path. The fault, the text and the name of the
/// type are those that a circuit records. The [time](LastFailure::at) is the Unix epoch.
///
/// ```
/// use tower_breaker::{CircuitState, test_util};
///
/// let reset = std::io::Error::other("the server has closed the connection");
/// let mut status = test_util::status("users", CircuitState::Closed);
/// status.last_failure = Some(test_util::last_failure(&reset, "/users/7"));
/// ```
pub fn last_failure(error: &(dyn Error + 'static), subject: &str) -> LastFailure {
    let failure = LastFailure::new(classify_error(error), &Cause::Error(error, None), &subject);
    LastFailure { at: SystemTime::UNIX_EPOCH, ..failure }
}

/// Creates the rejection of a circuit by key, in the given state.
///
/// It is [`Rejection::in_state`] with a key: the `Debug` text of the key, without the surrounding
/// quotes of a string. Each call uses memory for the key that is never freed.
///
/// ```
/// use std::time::Duration;
///
/// use tower_breaker::{CircuitState, test_util};
///
/// let retry_after = Some(Duration::from_secs(1));
/// let rejection = test_util::rejection_by_key("tenants", "7", CircuitState::HalfOpen, retry_after);
/// assert_eq!(
///     rejection.to_string(),
///     "circuit breaker `tenants` for key `7` is half-open; retry after 1 s"
/// );
/// ```
#[cfg(feature = "keyed")]
pub fn rejection_by_key(
    circuit: &'static str,
    key: &str,
    state: CircuitState,
    retry_after: Option<Duration>,
) -> Rejection {
    use tower_fault_classify::__internals::CircuitRecord;

    let label = crate::label::KeptLabel::new(circuit, key.to_owned());
    let rejection = Rejection::new(CircuitRecord::of(circuit), Some(label.label()), state, retry_after);
    // A rejection finds its key only as long as the label is kept.
    std::mem::forget(label);
    rejection
}
