//! The circuit: a concurrent state around the decisions of `machine/`, and the handles to it.
//!
//! A call runs through the files in this order:
//!
//! | file | content |
//! |---|---|
//! | `permit.rs` | [`Permit`], which a call acquires and which records its outcome; [`CircuitRef`], the permit's reference to the circuit |
//! | `core/mod.rs` | [`Core`]: the fast path, which is a successful call through a closed circuit; the cost of each case; why no transition is missed |
//! | `state_word.rs` | the word that every call reads: state, epoch, consecutive failures |
//! | `hot_config.rs` | the configuration that calls read without a lock |
//! | `window/mod.rs` | the time window or count window in which the outcome is recorded |
//! | `core/admit.rs` | admission by a circuit that is not closed; reservations; waiting tasks |
//! | `core/record.rs` | failures, slow calls, cancelled calls and probes; opens the circuit |
//! | `locked.rs` | the data of transitions and probes, behind the circuit's lock |
//! | `core/transition.rs` | publishes a new state and notifies tasks, metrics and observers |
//! | `core/emit.rs` | metrics and logs of calls |
//!
//! A call uses only one-line accessors of these two files:
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | [`Circuit`], the handle: status, manual control, configuration |
//! | `static_store.rs` | the storage of a circuit that is not one of a keyed map, and the reuse of that storage |
//!
//! A call does not use the other files:
//!
//! | file | content |
//! |---|---|
//! | `status.rs` | [`Status`] |
//! | `core/control.rs` | manual control, health reports, the status |
//! | `command.rs`, `core/command.rs` | the commands of a coordinator, and the signals to it |
//! | `snapshot.rs`, `core/snapshot.rs` | snapshots, and their restore |
//! | `wait.rs` | [`Circuit::acquire`] and [`Circuit::ready`], which wait for the circuit |
//! | `weak.rs` | [`WeakCircuit`], a handle that does not keep its circuit alive |
//! | `wakers.rs` | the tasks that wait for a change of the circuit |
//! | `window/packed.rs` | the compact cells of a keyed circuit, whose storage is in `keyed/core.rs` |
//!
//! `config/mod.rs` describes how a configuration reaches these files.

mod command;
mod core;
mod hot_config;
mod locked;
mod permit;
mod snapshot;
mod state_word;
mod static_store;
mod status;
#[cfg(feature = "tokio")]
mod wait;
mod wakers;
mod weak;
mod window;

#[cfg(all(test, loom_models, feature = "keyed"))]
pub(crate) use self::core::models::{CONFIG, FAILURE, model};
pub(crate) use self::core::{CallDuration, Core, Denied, PendingNotification};
#[cfg(feature = "keyed")]
pub(crate) use self::core::{FailureTime, Store};
#[cfg(feature = "keyed")]
pub(crate) use self::hot_config::{Events, Flags, HotConfig};
#[cfg(feature = "keyed")]
pub(crate) use self::locked::Locked;
pub(crate) use self::permit::Reservation;
pub use self::permit::{CircuitRef, Permit, Static};
#[cfg(feature = "keyed")]
pub(crate) use self::state_word::StateWord;
pub(crate) use self::static_store::StaticCore;
pub use self::status::Status;
#[cfg(feature = "keyed")]
pub(crate) use self::status::StatusValues;
#[cfg(feature = "tokio")]
pub use self::wait::{Acquire, Ready};
pub(crate) use self::wakers::{WakeOn, WakerKey};
pub use self::weak::WeakCircuit;
#[cfg(feature = "keyed")]
pub(crate) use self::window::{Due, NewestBucket, PackedCells, StripedWindow, Window};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::{CircuitRecord, ConfigError, PoolHandle, StripedCounter};
use tower_fault_classify::Verdict;

use crate::config::{BreakerConfig, DURATIONS};
use crate::error::{ControlError, Rejection};
pub(crate) use crate::machine::{Arrival, CircuitState};
use crate::machine::{Force, HealthReport};
use crate::telemetry::{Failure, ObserverId, Observers, Transition};

/// A handle to a circuit: shows its status, controls it manually, and admits calls.
///
/// All services of a [`BreakerLayer`](crate::BreakerLayer) share the layer's circuit.
/// [`BreakerLayer::circuit`](crate::BreakerLayer::circuit) returns a handle to it. Clones of a
/// handle refer to the same circuit.
///
/// Each layer, service and handle keeps the circuit alive. When the last of them is dropped, the
/// circuit ends. The outcome of a call that is still running has no effect after that. A keyed
/// circuit is kept alive by its map, its handles and its running calls.
///
/// The type parameter `R` selects how the circuit is stored. `Circuit` without a parameter is the
/// circuit of a layer or of a registry, or one made with [`Circuit::new`]. The circuit of a key has
/// the type `KeyedCircuit` (feature `keyed`).
///
/// # Examples
///
/// Code without a tower service, such as a worker or a database pool, can use a circuit directly:
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
    record: &'static CircuitRecord,
}

impl Circuit {
    /// Creates a circuit that is closed and has an empty window.
    ///
    /// With [`Mode::Disabled`](crate::Mode::Disabled) the circuit starts disabled.
    #[allow(clippy::needless_pass_by_value, reason = "a configuration is given away, as everywhere in tower")]
    pub fn new(config: BreakerConfig) -> Self {
        let owner = PoolHandle::acquire(|| {
            Core::with_successes(config.fitted_clock(), StripedCounter::new(), &config)
        });
        owner.adopt(&config);
        Self { owner, record: CircuitRecord::of(config.name()) }
    }

    /// Returns another handle, for a service or a registry that keeps it.
    ///
    /// As long as there is such a handle, the drop of any other handle takes the shortest path.
    pub(crate) fn root(&self) -> Self {
        Self { owner: self.owner.root(), record: self.record }
    }

    /// Adds an observer, which is called after every transition.
    ///
    /// The circuit keeps the observer until it ends, or until
    /// [`remove_observer`](Self::remove_observer) is called with the returned identifier.
    ///
    /// The thread that caused the transition calls the observer, outside of every lock. An observer
    /// should be quick: one that does not return blocks only the operation that caused the
    /// transition.
    ///
    /// Two threads may report two transitions concurrently. [`Transition::epoch`] gives the order
    /// of the transitions.
    ///
    /// A panic of the observer is caught. It affects neither the call nor other observers.
    ///
    /// An observer that needs its own circuit should hold a
    /// [`WeakCircuit`](crate::handle::WeakCircuit). An observer that holds a `Circuit` keeps the
    /// circuit alive for as long as the circuit keeps the observer: the circuit never ends.
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> ObserverId {
        self.owner.observers().on_transition(observer)
    }

    /// Adds an observer, which is called after every call that the circuit counts as a failure.
    ///
    /// | call | a failure |
    /// |---|---|
    /// | an unhealthy fault, a panic | yes |
    /// | a cancelled call | if the [`CancelledPolicy`](crate::CancelledPolicy) counts it as a failure |
    /// | a slow call | if it also failed |
    /// | a retry that fails in a closed circuit | with [`count_failed_retries`](crate::BreakerConfigBuilder::count_failed_retries) |
    /// | a call that was admitted before the last transition | no |
    /// | a call through a circuit that is forced closed or disabled | no |
    ///
    /// The observer is called on the thread of the call, outside of every lock. If the failure
    /// opens the circuit, the observers of transitions are called first. A panic of the observer is
    /// caught.
    ///
    /// Without such an observer, a failure costs one comparison more. An observer adds nothing to a
    /// success.
    ///
    /// As for [`on_transition`](Self::on_transition), an observer that needs its own circuit should
    /// hold a [`WeakCircuit`](crate::handle::WeakCircuit), and
    /// [`remove_observer`](Self::remove_observer) removes the observer.
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// circuit.on_failure(|failure| {
    ///     eprintln!("{}: {} ({} in a row)", failure.circuit, failure.fault, failure.consecutive_failures);
    /// });
    /// ```
    pub fn on_failure(&self, observer: impl Fn(&Failure) + Send + Sync + 'static) -> ObserverId {
        let id = self.owner.observers().on_failure(observer);
        self.owner.publish_observes_failures();
        id
    }

    /// Removes an observer of this circuit. Returns `false` if the circuit has no such observer.
    ///
    /// A notification that has begun on another thread may still call the observer afterwards.
    pub fn remove_observer(&self, id: ObserverId) -> bool {
        let removed = self.owner.observers().remove(id);
        self.owner.publish_observes_failures();
        removed
    }

    /// Sets the registry whose observers are notified, too.
    pub(crate) fn set_registry(&self, observers: Arc<Observers>) {
        self.owner.observers().set_registry(observers);
        self.owner.publish_observes_failures();
    }

    pub(crate) fn publish_observes_failures(&self) {
        self.owner.publish_observes_failures();
    }

    /// Returns a stream of all transitions from now on.
    ///
    /// A slow reader never blocks the circuit. It misses the oldest transitions instead.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::telemetry::Transitions {
        self.owner.observers().stream()
    }

    /// Replaces the configuration of the circuit while it runs.
    ///
    /// The circuit keeps its state, epoch, deadline and consecutive failures. Acquired permits stay
    /// valid.
    ///
    /// | setting | applies from |
    /// |---|---|
    /// | limits that open the circuit, cancelled calls | the next outcome |
    /// | a slow-call limit or [`FailureAfter`](crate::CancelledPolicy::FailureAfter), if neither was set before | calls that begin afterwards, and the next outcome of a probe |
    /// | `consecutive_failures_span`, if it was zero before | the next outcome; the time of the current failures starts now |
    /// | open time | the next time that the circuit opens |
    /// | another seed | the next time that the circuit opens; with the seed that it has, the circuit continues its stream |
    /// | number of probes | the next time that the circuit half-opens |
    /// | successes to close | the next successful probe |
    /// | probe lease | the next lease or renewal of a probe; for calls of a slow start, its next slow start |
    /// | slow start | the next time that the circuit closes after probes |
    /// | a window of another kind or size | immediately: the window starts empty |
    /// | [`Mode::Disabled`](crate::Mode::Disabled) | immediately: all calls are admitted |
    /// | any other mode, if the circuit was disabled | immediately: the circuit starts closed |
    /// | [`Mode::Enforce`](crate::Mode::Enforce), [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) | the next call |
    ///
    /// A manual override stays in force:
    ///
    /// - `Mode::Disabled` applies after [`release`](Self::release), or when the override ends.
    /// - `Mode::ObserveOnly` applies immediately: even a circuit that is forced open admits calls.
    ///
    /// A circuit that is [open until it is reset](crate::BreakerConfigBuilder::open_until_reset)
    /// stays open, even if the new configuration has an open time. Call [`reset`](Self::reset) to
    /// close it.
    ///
    /// # Name and clock
    ///
    /// A configuration without a name or without a clock, such as one from a file, keeps the
    /// circuit's name or clock. A circuit on [`Clock::coarse`](crate::Clock::coarse) reads
    /// [`Clock::precise`](crate::Clock::precise) while one of its configured times is under 100 ms.
    /// It changes between the two when a new configuration requires it.
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if `config` has another name, or another
    /// [clock](crate::BreakerConfigBuilder::clock) than the circuit. The name and the clock of a
    /// circuit never change.
    #[allow(clippy::needless_pass_by_value, reason = "a configuration is given away, as everywhere in tower")]
    pub fn reconfigure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        if let Some(other) = config.name.filter(|other| *other != self.name()) {
            return Err(ConfigError::new("name", other, format!("{:?}, the circuit's own", self.name())));
        }
        let own = self.owner.configured_clock();
        if let Some(clock) = config.clock.filter(|clock| *clock != own) {
            return Err(ConfigError::new("clock", clock, format!("{own:?}, the circuit's own")));
        }
        self.owner.reconfigure(&config);
        Ok(())
    }

    /// Returns the rejection of a call by a circuit that stays open for `left` nanoseconds.
    #[inline]
    pub(crate) fn open_rejection(&self, left: u64) -> Rejection {
        let slack = self.owner.clock().resolution().as_nanos() as u64;
        Rejection::open_for(self.record, left.saturating_add(slack))
    }

    #[inline]
    pub(crate) fn core(&self) -> &'static StaticCore {
        self.owner.as_static()
    }
}

/// Operations on every circuit, of a layer or of a key.
impl<R: CircuitRef> Circuit<R> {
    #[cfg(feature = "keyed")]
    pub(crate) const fn of(owner: R::Owner, record: &'static CircuitRecord) -> Self {
        Self { owner, record }
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn owner(&self) -> &R::Owner {
        &self.owner
    }

    /// Returns the name from the configuration.
    pub const fn name(&self) -> &'static str {
        self.record.name()
    }

    /// Returns the current configuration.
    ///
    /// After [`reconfigure`](Circuit::reconfigure) it is the new configuration. If that has no name
    /// or no clock, the returned configuration has the one that the circuit was given before.
    /// Passing it to `reconfigure` changes nothing.
    pub fn config(&self) -> BreakerConfig {
        self.owner.config()
    }

    /// Returns the status of the circuit at this moment.
    pub fn status(&self) -> Status {
        Status::of(self.name(), self.owner.key(), self.owner.snapshot(), self.owner.clock().resolution())
    }

    /// Acquires a permit for one call.
    ///
    /// Record the outcome of the call with [`Permit::record`].
    ///
    /// If the circuit is open and its open time is over, the circuit half-opens, and the call is a
    /// probe.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if the circuit:
    ///
    /// - is open or forced open;
    /// - is half-open and has no free probe slot;
    /// - is in a slow start that does not admit this call.
    ///
    /// With [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) no call is rejected. A call that would
    /// have been rejected gets a permit, but its outcome does not affect the circuit.
    pub fn try_acquire(&self) -> Result<Permit<R>, Rejection> {
        self.admit().map_err(|denied| {
            self.owner.emit_rejection(self.name(), denied.state);
            self.rejection(denied)
        })
    }

    /// Records the outcome of a call that did not run through the circuit.
    ///
    /// Use it for outcomes that other code observes, such as a client with its own connection
    /// handling, a message consumer, or a monitor of traffic.
    ///
    /// | state of the circuit | effect |
    /// |---|---|
    /// | closed | counts as the outcome of a call; in a slow start, it takes no slot and no share |
    /// | open | ignored |
    /// | open, and the open time is over | the circuit half-opens, and the outcome counts as that of a probe |
    /// | half-open | counts as the outcome of a probe, but takes no probe slot: also while all slots are taken |
    /// | forced, or disabled by the configuration | ignored |
    ///
    /// [`Permit::record`] says how a verdict counts. Metrics count an outcome unless it is ignored.
    /// The outcome is never slow, because its duration is not known: see
    /// [`record_with_duration`](Self::record_with_duration).
    ///
    /// The circuit cannot see when the call began. A failure of a call from before the circuit
    /// opened can therefore open a half-open circuit again. If the call's duration is known, use
    /// `record_with_duration`, which prevents that.
    ///
    /// If your code can ask the circuit before the call, use [`try_acquire`](Self::try_acquire)
    /// instead: otherwise an open circuit stops no call.
    ///
    /// ```
    /// use tower_breaker::fault_classify::classify_error;
    /// use tower_breaker::{BreakerConfig, Circuit, Verdict};
    ///
    /// /// A consumer reports the result of each delivery.
    /// fn on_delivery(circuit: &Circuit, result: &std::io::Result<()>) {
    ///     let verdict = match result {
    ///         Ok(()) => Verdict::Success,
    ///         Err(error) => classify_error(error).into(),
    ///     };
    ///     circuit.record(verdict);
    /// }
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// on_delivery(&circuit, &Err(std::io::ErrorKind::ConnectionRefused.into()));
    /// assert_eq!(circuit.status().window.failures, 1);
    /// ```
    pub fn record(&self, verdict: Verdict) {
        self.owner.record_unadmitted(&verdict, None);
    }

    /// Records the outcome of a call that did not run through the circuit, and took `duration`.
    ///
    /// The call ended just now. It works like [`record`](Self::record), with two differences:
    ///
    /// - The [slow-call limit](crate::BreakerConfigBuilder::slow_call_rate) applies to `duration`.
    /// - While the circuit is open or half-open, the outcome is ignored if the call began before
    ///   the circuit entered that state.
    pub fn record_with_duration(&self, verdict: Verdict, duration: Duration) {
        self.owner.record_unadmitted(&verdict, Some(duration));
    }

    pub(crate) fn admit(&self) -> Result<Permit<R>, Denied> {
        Permit::acquire(R::of(&self.owner)).map_err(|(_, denied)| denied)
    }

    #[inline]
    pub(crate) fn rejection(&self, denied: Denied) -> Rejection {
        self.owner.rejection(self.record, denied)
    }

    /// Returns how long a task waits before it polls the circuit again, unless a change of the
    /// circuit wakes it earlier. `None`: only a change wakes it.
    ///
    /// A slow start by time admits some calls all the time. So the task polls again before the slow
    /// start ends. In a slow start by successes, a slot that becomes free wakes the task, and the
    /// timer covers the end of a lease.
    pub(crate) fn retry_timer(&self, Denied { state, left }: Denied) -> Option<Duration> {
        const POLLS_IN_SLOW_START: u32 = 16;

        let left = self.with_slack(left?);
        Some(if state == CircuitState::Closed { left / POLLS_IN_SLOW_START } else { left })
    }

    /// Returns how long to wait until `left` nanoseconds are over on the circuit's clock. The clock
    /// may be late by its resolution, which is added.
    #[inline]
    fn with_slack(&self, left: u64) -> Duration {
        Duration::from_nanos(left) + self.owner.clock().resolution()
    }

    /// Opens the circuit now; it recovers as usual.
    ///
    /// To open it for another time than the configured one, use [`trip_for`](Self::trip_for).
    ///
    /// An open circuit does not change, even if its open time is over and no call has arrived
    /// since.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is forced, or disabled by its configuration. Both take
    /// precedence.
    pub fn trip(&self) -> Result<(), ControlError> {
        self.owner.trip_manually().map_err(|state| self.forced(state))
    }

    /// Opens the circuit now, for exactly `time`; it then recovers as usual.
    ///
    /// **Range**: 1 ms to 365 days.
    ///
    /// The time has no jitter, and it is no part of a growing open time: the next open period is as
    /// long as without it.
    ///
    /// An open circuit stays open for `time` from now, instead of its remaining time. So a second
    /// `trip_for` can extend or shorten an open period, and it gives an end to a circuit that is
    /// open until it is reset. This is no transition: observers are not notified.
    ///
    /// # Errors
    ///
    /// Returns an error if `time` is out of its range, or if the circuit is forced, or disabled by
    /// its configuration.
    pub fn trip_for(&self, time: Duration) -> Result<(), ControlError> {
        let period = self.period("trip_for", time)?;
        self.owner.trip_for(period).map_err(|state| self.forced(state))
    }

    /// Half-opens an open circuit now: the next call is a probe.
    ///
    /// It applies also to a circuit that is
    /// [open until it is reset](crate::BreakerConfigBuilder::open_until_reset). A closed or
    /// half-open circuit does not change.
    ///
    /// A [`HealthReport::Recovered`] has the same effect, but ignores a circuit that is forced or
    /// disabled.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is forced, or disabled by its configuration. Both take
    /// precedence. To end a manual override, use [`release`](Self::release).
    pub fn probe_now(&self) -> Result<(), ControlError> {
        self.owner.probe_now().map_err(|state| self.forced(state))
    }

    /// Closes the circuit now, with an empty window and without a slow start.
    ///
    /// A growing open time starts again at its initial value. The last failure is removed from the
    /// status. Resetting a closed circuit empties its window, and is a transition, too.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is forced, or disabled by its configuration. Both take
    /// precedence.
    pub fn reset(&self) -> Result<(), ControlError> {
        self.owner.reset().map_err(|state| self.forced(state))
    }

    /// Forces the circuit open: it rejects every call until [`release`](Self::release).
    ///
    /// It replaces every other override, also one by [`force_open_for`](Self::force_open_for). With
    /// [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) no call is rejected.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is disabled by its configuration.
    pub fn force_open(&self) -> Result<(), ControlError> {
        self.owner.force(Force::Open, None).map_err(|state| self.forced(state))
    }

    /// Forces the circuit open for `time`: it rejects every call, and then half-opens.
    ///
    /// **Range**: 1 ms to 365 days.
    ///
    /// It is [`force_open`](Self::force_open) with an end. The first call or readiness poll after
    /// the time acts as [`release`](Self::release), and the call is a probe. The circuit has no
    /// timer of its own: until then it stays in the state
    /// [`ForcedOpen`](crate::CircuitState::ForcedOpen), with a
    /// [`retry_after`](crate::Status::retry_after) of zero. A service that waits because it is not
    /// ready when open wakes at the end.
    ///
    /// It replaces every other override. If the circuit is forced open already, only its end
    /// changes, which is no transition.
    ///
    /// # Errors
    ///
    /// Returns an error if `time` is out of its range, or if the circuit is disabled by its
    /// configuration.
    pub fn force_open_for(&self, time: Duration) -> Result<(), ControlError> {
        let period = self.period("force_open_for", time)?;
        self.owner.force(Force::Open, Some(period)).map_err(|state| self.forced(state))
    }

    /// Forces the circuit closed: it admits every call until [`release`](Self::release).
    ///
    /// The calls are not counted in the window. It replaces every other override, also one by
    /// [`force_closed_for`](Self::force_closed_for).
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is disabled by its configuration.
    pub fn force_closed(&self) -> Result<(), ControlError> {
        self.owner.force(Force::Closed, None).map_err(|state| self.forced(state))
    }

    /// Forces the circuit closed for `time`: it admits every call, and then closes.
    ///
    /// **Range**: 1 ms to 365 days.
    ///
    /// It is [`force_closed`](Self::force_closed) with an end. The first call or readiness poll
    /// after the time acts as [`release`](Self::release): the circuit closes with an empty window,
    /// and counts the call. Until then it stays in the state
    /// [`ForcedClosed`](crate::CircuitState::ForcedClosed). A call that began before the end is not
    /// counted.
    ///
    /// It replaces every other override. If the circuit is forced closed already, only its end
    /// changes, which is no transition.
    ///
    /// # Errors
    ///
    /// Returns an error if `time` is out of its range, or if the circuit is disabled by its
    /// configuration.
    pub fn force_closed_for(&self, time: Duration) -> Result<(), ControlError> {
        let period = self.period("force_closed_for", time)?;
        self.owner.force(Force::Closed, Some(period)).map_err(|state| self.forced(state))
    }

    /// Ends a manual override.
    ///
    /// [`force_open`](Self::force_open), [`force_closed`](Self::force_closed) and their variants
    /// for a time set an override. [`Status::override_ends_in`] is its remaining time.
    ///
    /// | state | after `release` |
    /// |---|---|
    /// | forced open | half-open: the next calls are probes |
    /// | forced closed | closed, with an empty window |
    /// | forced, and disabled by the configuration meanwhile | disabled |
    /// | not forced | unchanged |
    pub fn release(&self) {
        self.owner.release();
    }

    /// Applies the report of a health checker; see [`HealthReport`].
    ///
    /// A circuit that is forced, or disabled by its configuration, ignores the report.
    pub fn report(&self, report: HealthReport) {
        self.owner.report(report);
    }

    /// Returns a duration in nanoseconds, or an error if it is out of its range.
    fn period(&self, field: &'static str, time: Duration) -> Result<u64, ControlError> {
        if DURATIONS.contains(&time) {
            return Ok(time.as_nanos() as u64);
        }
        Err(ControlError::OutOfRange { circuit: self.name(), field, value: time, allowed: DURATIONS })
    }

    fn forced(&self, state: CircuitState) -> ControlError {
        ControlError::new(self.name(), state)
    }
}

impl<R: CircuitRef> Clone for Circuit<R> {
    #[inline]
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), record: self.record }
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
    fn clock_is_precise_while_a_configured_time_is_short() {
        let config = |clock: Option<Clock>, millis| {
            let config = BreakerConfig::builder().open_for(Duration::from_millis(millis)).build().unwrap();
            BreakerConfig { clock, ..config }
        };
        let (manual, _time) = Clock::manual();
        let (coarse, precise) = (Clock::coarse(), Clock::precise());
        for (set, short, long) in [
            (None, precise, coarse),
            (Some(coarse), precise, coarse),
            (Some(precise), precise, precise),
            (Some(manual), manual, manual),
        ] {
            let circuit = Circuit::new(config(set, 99));
            assert_eq!(circuit.core().clock(), short, "{set:?}");
            for (new, millis, expected) in
                [(None, 100, long), (set, 99, short), (set, 100, long), (None, 99, short)]
            {
                circuit.reconfigure(config(new, millis)).unwrap();
                assert_eq!(circuit.core().clock(), expected, "{set:?}, then {new:?} and {millis} ms");
            }
        }
    }

    #[test]
    fn rejection_retry_after_includes_clock_resolution() {
        for clock in [Clock::coarse(), Clock::precise()] {
            let slack = clock.resolution();
            let circuit = Circuit::new(BreakerConfig::builder().clock(clock).build().unwrap());
            let rejection = circuit.rejection(Denied { state: CircuitState::Open, left: Some(7) });
            assert_eq!(rejection.retry_after(), Some(Duration::from_nanos(7) + slack));
        }
        assert_eq!(Clock::coarse().resolution().is_zero(), cfg!(not(target_os = "linux")));
    }
}
