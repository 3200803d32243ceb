//! The circuit: the decisions of `machine/` made concurrent, and the handles to it.
//!
//! A call meets the files in this order:
//!
//! | file | content |
//! |---|---|
//! | `permit.rs` | [`Permit`], which a call acquires and which records its outcome; [`CircuitRef`], how it refers to the circuit |
//! | `core/mod.rs` | [`Core`]: the usual call, admitted by a closed circuit and successful; the costs of each case, and why no transition is missed |
//! | `state_word.rs` | the one word that every call reads: state, epoch, consecutive failures |
//! | `hot_config.rs` | the configuration that calls read without a lock |
//! | `window/mod.rs` | the window in which the outcome is recorded, over time or over calls |
//! | `core/admit.rs` | admission by a circuit that is not closed; reservations; waiting tasks |
//! | `core/record.rs` | failures, slow and cancelled calls, probes; whether the circuit opens |
//! | `locked.rs` | what transitions and probes touch, behind the lock |
//! | `core/transition.rs` | publishes a new state, and notifies others |
//! | `core/emit.rs` | metrics and logs of calls |
//!
//! A call passes two more files, through accessors of one line:
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | [`Circuit`], the handle: status, manual control, configuration |
//! | `static_store.rs` | the storage of a circuit that is not one of many, and its reuse |
//!
//! The other files are not on the way of a call:
//!
//! | file | content |
//! |---|---|
//! | `status.rs` | [`Status`], a snapshot |
//! | `core/control.rs` | manual control, health reports, the snapshot |
//! | `wakers.rs` | the tasks that wait for a change of the circuit |
//! | `window/packed.rs` | the compact cells of a circuit by key, whose storage is `keyed/core.rs` |
//!
//! How a configuration gets here is in `config/mod.rs`.

mod core;
mod hot_config;
mod locked;
mod permit;
mod state_word;
mod static_store;
mod status;
mod wakers;
mod window;

#[cfg(feature = "keyed")]
pub(crate) use self::core::Store;
#[cfg(all(test, loom_models, feature = "keyed"))]
pub(crate) use self::core::models::{CONFIG, FAILURE, model};
pub(crate) use self::core::{CallDuration, Core, Denied};
#[cfg(feature = "keyed")]
pub(crate) use self::hot_config::HotConfig;
#[cfg(feature = "keyed")]
pub(crate) use self::locked::Locked;
pub(crate) use self::permit::Reservation;
pub use self::permit::{CircuitRef, Permit, Static};
#[cfg(feature = "keyed")]
pub(crate) use self::state_word::StateWord;
pub(crate) use self::static_store::StaticCore;
pub use self::status::Status;
pub(crate) use self::wakers::{WakeOn, WakerKey};
#[cfg(feature = "keyed")]
pub(crate) use self::window::{LastCalls, NO_BUCKET, NewestBucket, PackedCells, Window, WindowSpan};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::{ConfigError, PoolHandle, StripedCounter};

use crate::config::BreakerConfig;
use crate::error::{ControlError, Rejection};
pub(crate) use crate::machine::{Arrival, CircuitState};
use crate::machine::{Force, HealthReport};
use crate::telemetry::Transition;

/// The handle to a circuit.
///
/// All services that a [`BreakerLayer`](crate::BreakerLayer) makes share the layer's circuit, and so
/// do all clones of this handle. [`BreakerLayer::circuit`](crate::BreakerLayer::circuit) returns it.
/// Dropping the last handle ends the circuit; calls that still run then have no effect.
///
/// The parameter `R` says how the circuit is stored. `Circuit` alone is the circuit of a layer, of a
/// registry, or of its own; the circuit of a key is a `KeyedCircuit`.
///
/// A worker, a thread or a database pool can guard its calls with the circuit alone:
///
/// ```
/// use tower_breaker::{BreakerConfig, Circuit, Verdict};
///
/// let circuit = Circuit::new(BreakerConfig::builder().name("billing").build()?);
/// let permit = circuit.try_acquire()?;
/// // ... the call ...
/// permit.record(Verdict::Success);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Circuit<R: CircuitRef = Static> {
    owner: R::Owner,
    name: &'static str,
}

impl Circuit {
    /// Creates a closed circuit with an empty window.
    #[allow(clippy::needless_pass_by_value, reason = "a configuration is given away, as everywhere in tower")]
    pub fn new(config: BreakerConfig) -> Self {
        let owner =
            PoolHandle::acquire(|| Core::with_stripes(config.fitted_clock(), StripedCounter::new(), &config));
        owner.adopt(&config);
        Self { owner, name: config.name() }
    }

    /// Adds an observer, which is notified of every transition until the circuit ends.
    ///
    /// It is called outside of every lock, by the call that caused the transition, so it should be
    /// quick: an observer that does not return blocks that call, and no other. Two transitions in
    /// quick succession may be reported by two threads concurrently; [`Transition::epoch`] gives
    /// their order. A panic of the observer is caught.
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.owner.observers().add(Arc::new(observer));
    }

    /// Returns a stream of the transitions from now on. It never blocks the circuit.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::telemetry::Transitions {
        self.owner.observers().stream()
    }

    /// Changes the limits of the circuit while it runs.
    ///
    /// - State, epoch, deadline and consecutive failures stay, and acquired permits stay valid.
    /// - The new limits apply from the next outcome. Those of the open time and of the slow start
    ///   apply from the next opening and closing, the number of probes from the next half-open
    ///   state.
    /// - A window of another shape starts empty.
    /// - A circuit that becomes disabled admits all calls. A circuit that was disabled starts closed.
    ///
    /// A configuration whose clock was not set keeps the circuit's clock: so does every
    /// configuration from a file. A circuit on [`Clock::coarse`](crate::Clock::coarse) reads
    /// [`Clock::precise`](crate::Clock::precise) as long as one of its times is under 100 ms, and
    /// changes between the two as the configurations require.
    ///
    /// # Errors
    ///
    /// `config` has another name, or a [clock](crate::BreakerConfigBuilder::clock) was set that is
    /// not the circuit's. Name and clock of a circuit never change.
    #[allow(clippy::needless_pass_by_value, reason = "a configuration is given away, as everywhere in tower")]
    pub fn reconfigure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        if config.name != self.name {
            return Err(ConfigError::new("name", config.name, format!("{:?}, the circuit's own", self.name)));
        }
        let own = self.owner.configured_clock();
        if let Some(clock) = config.clock.filter(|clock| *clock != own) {
            return Err(ConfigError::new("clock", clock, format!("{own:?}, the circuit's own")));
        }
        self.owner.reconfigure(&config);
        Ok(())
    }

    /// The rejection of a call by a circuit that stays open for `left` nanoseconds.
    #[inline]
    pub(crate) fn open_rejection(&self, left: u64) -> Rejection {
        Rejection::new(self.name, None, CircuitState::Open, Some(self.with_slack(left)))
    }

    /// How long a service that is not ready waits before it asks the circuit again, if nothing wakes
    /// it. A slow start admits calls all the time, so the service asks before its end.
    pub(crate) fn retry_timer(&self, Denied { state, left }: Denied) -> Option<Duration> {
        const POLLS_IN_SLOW_START: u32 = 16;

        let left = self.with_slack(left?);
        Some(if state == CircuitState::Closed { left / POLLS_IN_SLOW_START } else { left })
    }

    /// How long to wait so that `left` nanoseconds are over on the circuit's clock, which may be a
    /// little behind.
    #[inline]
    fn with_slack(&self, left: u64) -> Duration {
        Duration::from_nanos(left) + self.owner.clock().resolution()
    }

    #[inline]
    pub(crate) fn core(&self) -> &'static StaticCore {
        self.owner.as_static()
    }
}

/// Operations on any circuit: of a layer, or of one key.
impl<R: CircuitRef> Circuit<R> {
    #[cfg(feature = "keyed")]
    pub(crate) const fn of(owner: R::Owner, name: &'static str) -> Self {
        Self { owner, name }
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn owner(&self) -> &R::Owner {
        &self.owner
    }

    /// The name from the configuration.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a snapshot of the circuit.
    pub fn status(&self) -> Status {
        Status::of(self.name, self.owner.key(), self.owner.snapshot(), self.owner.clock().resolution())
    }

    /// Acquires a permit for a call.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] while the circuit is open, or half-open without a free probe slot.
    pub fn try_acquire(&self) -> Result<Permit<R>, Rejection> {
        self.admit().map_err(|denied| {
            self.owner.emit_rejection(self.name, denied.state);
            self.rejection(denied)
        })
    }

    pub(crate) fn admit(&self) -> Result<Permit<R>, Denied> {
        Permit::acquire(R::of(&self.owner)).map_err(|(_, denied)| denied)
    }

    #[inline]
    pub(crate) fn rejection(&self, denied: Denied) -> Rejection {
        self.owner.rejection(self.name, denied)
    }

    /// Opens the circuit now. It recovers as usual. An open circuit stays as it is, even if its open
    /// time is over and there was no call since.
    ///
    /// # Errors
    ///
    /// The circuit is forced, or disabled by its configuration. Both take precedence.
    pub fn trip(&self) -> Result<(), ControlError> {
        self.owner.trip_manually().map_err(|state| self.forced(state))
    }

    /// Closes the circuit now, with an empty window, without a slow start, and without a memory of
    /// earlier open periods. A closed circuit starts over, which is a transition, too.
    ///
    /// # Errors
    ///
    /// See [`trip`](Self::trip).
    pub fn reset(&self) -> Result<(), ControlError> {
        self.owner.reset().map_err(|state| self.forced(state))
    }

    /// Rejects every call until [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// The circuit is disabled by its configuration.
    pub fn force_open(&self) -> Result<(), ControlError> {
        self.owner.force(Force::Open).map_err(|state| self.forced(state))
    }

    /// Admits every call, uncounted, until [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// The circuit is disabled by its configuration.
    pub fn force_closed(&self) -> Result<(), ControlError> {
        self.owner.force(Force::Closed).map_err(|state| self.forced(state))
    }

    /// Ends a forced state. After forced open the next calls are probes; after forced closed the
    /// circuit is closed with an empty window. A circuit that is not forced stays as it is.
    pub fn release(&self) {
        self.owner.release();
    }

    /// Applies the report of a health checker: see [`HealthReport`]. A circuit that is forced, or
    /// disabled by its configuration, does not change.
    pub fn report(&self, report: HealthReport) {
        self.owner.report(report);
    }

    fn forced(&self, state: CircuitState) -> ControlError {
        ControlError::new(self.name, state)
    }
}

impl<R: CircuitRef> Clone for Circuit<R> {
    #[inline]
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), name: self.name }
    }
}

impl<R: CircuitRef> fmt::Debug for Circuit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(R::HANDLE).field("status", &self.status()).finish()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::__internals::Clock;

    use super::*;

    #[test]
    fn circuit_reads_precise_clock_while_a_time_is_short() {
        let config = |clock: Option<Clock>, millis| {
            let config = BreakerConfig::builder().open_for(Duration::from_millis(millis)).build().unwrap();
            BreakerConfig { clock, ..config }
        };
        let (manual, _hand) = Clock::manual();
        let (coarse, precise) = (Clock::coarse(), Clock::precise());
        for (set, short, long) in [
            (None, precise, coarse),
            (Some(coarse), precise, coarse),
            (Some(precise), precise, precise),
            (Some(manual), manual, manual),
        ] {
            let circuit = Circuit::new(config(set, 99));
            assert_eq!(circuit.core().clock(), short, "{set:?}");
            for (again, millis, reads) in
                [(None, 100, long), (set, 99, short), (set, 100, long), (None, 99, short)]
            {
                circuit.reconfigure(config(again, millis)).unwrap();
                assert_eq!(circuit.core().clock(), reads, "{set:?}, then {again:?} and {millis} ms");
            }
        }
    }

    #[test]
    fn rejection_adds_the_resolution_of_the_clock() {
        for clock in [Clock::coarse(), Clock::precise()] {
            let slack = clock.resolution();
            let circuit = Circuit::new(BreakerConfig::builder().clock(clock).build().unwrap());
            let rejection = circuit.rejection(Denied { state: CircuitState::Open, left: Some(7) });
            assert_eq!(rejection.retry_after(), Some(Duration::from_nanos(7) + slack));
        }
        assert_eq!(Clock::coarse().resolution().is_zero(), cfg!(not(target_os = "linux")));
    }
}
