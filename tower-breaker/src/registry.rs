//! A registry of circuits by name.

mod creation;
mod snapshots;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tower_fault_classify::__internals::ConfigError;
use tower_fault_classify::Verdict;

use crate::circuit::{Circuit, Status, WeakCircuit};
use crate::config::BreakerConfig;
use crate::error::ControlError;
use crate::machine::HealthReport;
use crate::telemetry::{Failure, Observer, ObserverId, Observers, Transition};
use creation::{Entries, Entry};

/// The circuits of a program, by name.
///
/// Use it for a dashboard, a health page, or manual control. The registry lists its circuits, gives
/// each its own configuration, and controls a circuit by its name.
///
/// A clone is another handle to the same registry. A circuit stays in the registry until it is
/// [removed](Self::remove), so the number of names should be small. For keys of requests, use
/// `KeyedBreakerLayer` (feature `keyed`).
///
/// The registry's lock is not held while a circuit is created, called or controlled.
///
/// ```
/// use tower_breaker::{BreakerConfig, BreakerLayer, CircuitRegistry};
///
/// let registry = CircuitRegistry::new(BreakerConfig::default());
/// registry.configure(BreakerConfig::builder().name("search").consecutive_failures(3).build()?)?;
///
/// let search = BreakerLayer::with_circuit(registry.circuit("search"));
/// let billing = BreakerLayer::with_circuit(registry.circuit("billing"));
/// # let service = tower::ServiceBuilder::new().layer(search).layer(billing)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// registry.force_open("billing")?;
/// for status in registry.statuses() {
///     println!("{} is {}", status.circuit, status.state);
/// }
/// assert!(registry.trip("biling").is_err(), "a misspelled name creates no circuit");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CircuitRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    default: BreakerConfig,
    entries: Mutex<Entries>,
    /// Notified when the listeners have been called for a new circuit, and when it is removed.
    settled: Condvar,
    observers: Arc<Observers>,
}

impl CircuitRegistry {
    /// Creates an empty registry.
    ///
    /// `default` is the configuration of every circuit without a [configuration](Self::configure)
    /// of its own. Each circuit has its own name.
    pub fn new(default: BreakerConfig) -> Self {
        let inner =
            Inner { default, entries: Mutex::default(), settled: Condvar::new(), observers: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the circuit with this name, and creates it if it does not exist.
    ///
    /// A new circuit has the configuration of [`configure`](Self::configure), or the registry's
    /// default configuration. A name that is built at run time is leaked: the program keeps one
    /// copy of each distinct name until it ends.
    pub fn circuit(&self, name: impl Into<Cow<'static, str>>) -> Circuit {
        self.get_or_create(&self.inner.default.clone().named(name.into()))
    }

    /// Sets the configuration of the circuit whose name is in `config`.
    ///
    /// If the circuit exists, the configuration applies immediately: see [`Circuit::reconfigure`].
    /// Otherwise it applies when the circuit is created.
    ///
    /// If the clock of `config` was not set, an existing circuit keeps its clock. A circuit that is
    /// created later reads the clock of the configuration that `config` replaces, or the clock of
    /// the registry's default configuration.
    ///
    /// # Errors
    ///
    /// - The name of `config` was not set.
    /// - The circuit exists, and the clock of `config` was set and is not the circuit's clock.
    pub fn configure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        if config.name.is_none() {
            return Err(ConfigError::new("name", format_args!("not set"), "the name of a circuit"));
        }
        let mut entries = self.entries();
        if let Some(circuit) = entries.by_name.get(config.name()).and_then(Entry::circuit) {
            let circuit = circuit.clone();
            drop(entries);
            return circuit.reconfigure(config);
        }
        let clock = match entries.by_name.get(config.name()) {
            Some(Entry::Configured(replaced)) => replaced.clock,
            _ => self.inner.default.clock,
        };
        let config = BreakerConfig { clock: config.clock.or(clock), ..config };
        entries.by_name.insert(config.name(), Entry::Configured(Box::new(config)));
        Ok(())
    }

    /// Returns the circuit with this name; `None` if it has not been created.
    pub fn get(&self, name: &str) -> Option<Circuit> {
        match self.entries().by_name.get(name) {
            Some(Entry::Created(circuit)) => Some(circuit.clone()),
            _ => None,
        }
    }

    /// Returns all circuits that have been created, sorted by name.
    pub fn circuits(&self) -> Vec<Circuit> {
        self.entries().created().collect()
    }

    /// Returns the status of every circuit, sorted by name.
    pub fn statuses(&self) -> Vec<Status> {
        self.circuits().iter().map(Circuit::status).collect()
    }

    /// Removes a circuit and its configuration, and returns the circuit if it was created.
    ///
    /// A snapshot that is kept for the name is removed, too.
    ///
    /// The circuit continues for all services and handles that use it, and the registry's observers
    /// are still notified of its transitions and failures, also observers that are added later. The
    /// next [`circuit`](Self::circuit) with this name creates a new circuit.
    pub fn remove(&self, name: &str) -> Option<Circuit> {
        let mut entries = self.settled(name);
        entries.snapshots.remove(name);
        let circuit = entries.by_name.remove(name)?.circuit()?.clone();
        // In the same critical section, so that no change of the observers misses the circuit.
        let removed: Vec<_> = entries.removed.iter().filter_map(WeakCircuit::upgrade).collect();
        entries.removed = removed.iter().chain([&circuit]).map(Circuit::downgrade).collect();
        // The lock is released first: the drop of a circuit's last handle may run any code.
        drop(entries);
        self.inner.settled.notify_all();
        drop(removed);
        Some(circuit)
    }

    /// Adds an observer of the transitions of all circuits: see [`Circuit::on_transition`].
    ///
    /// An observer that holds this registry keeps the registry and its circuits alive until
    /// [`remove_observer`](Self::remove_observer) removes it.
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> ObserverId {
        self.inner.observers.on_transition(observer)
    }

    /// Adds an observer of the failures of all circuits: see [`Circuit::on_failure`].
    pub fn on_failure(&self, observer: impl Fn(&Failure) + Send + Sync + 'static) -> ObserverId {
        let id = self.inner.observers.on_failure(observer);
        self.publish_observes_failures();
        id
    }

    /// Adds a listener, which is called once for each new circuit of this registry.
    ///
    /// It is called before the circuit's first call: [`circuit`](Self::circuit) returns a new
    /// circuit after all listeners have returned, on every thread. Until then, the circuit is in
    /// no list of the registry. A panic of the listener is caught.
    ///
    /// The listener is not called for circuits that exist already. To treat all circuits, add the
    /// listener first, and then visit [`circuits`](Self::circuits). A circuit that is created
    /// between the two is seen twice, and none is missed.
    ///
    /// The listener runs outside of every lock, and may use the registry. It must not wait for
    /// another thread that calls `circuit` or [`remove`](Self::remove) with the name of the new
    /// circuit. A listener that calls `circuit` itself gets a circuit immediately, even if the
    /// listeners have not been called for that circuit yet.
    pub fn on_create(&self, listener: impl Fn(&Circuit) + Send + Sync + 'static) -> ObserverId {
        let listener = Observer::new(listener);
        let id = listener.id();
        self.entries().listeners.push(listener);
        id
    }

    /// Removes an observer of this registry. Returns `false` if the registry has no such observer.
    ///
    /// Observers of a single circuit are removed with [`Circuit::remove_observer`].
    pub fn remove_observer(&self, id: ObserverId) -> bool {
        let mut entries = self.entries();
        let listener = Observer::take(&mut entries.listeners, id);
        // The listener is dropped after the lock was released: its `Drop` may run any code.
        drop(entries);
        let removed = self.inner.observers.remove(id);
        self.publish_observes_failures();
        removed || listener.is_some()
    }

    fn publish_observes_failures(&self) {
        let circuits = self.entries().all();
        circuits.iter().for_each(Circuit::publish_observes_failures);
    }

    /// Returns a stream of the transitions of all circuits from now on. It never blocks a circuit.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::telemetry::Transitions {
        self.inner.observers.stream()
    }

    /// Closes every circuit that is neither forced nor disabled: see [`Circuit::reset`].
    pub fn reset_all(&self) {
        for circuit in self.circuits() {
            // A forced or disabled circuit does not change.
            let _ = circuit.reset();
        }
    }

    /// Opens the circuit with this name: see [`Circuit::trip`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, or the circuit is forced or disabled.
    pub fn trip(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.trip()
    }

    /// Opens the circuit with this name for a time: see [`Circuit::trip_for`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, the circuit is forced or disabled, or `time` is
    /// not from 1 ms to 365 days.
    pub fn trip_for(&self, name: &str, time: Duration) -> Result<(), ControlError> {
        self.existing(name)?.trip_for(time)
    }

    /// Half-opens the circuit with this name if it is open: see [`Circuit::probe_now`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, or the circuit is forced or disabled.
    pub fn probe_now(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.probe_now()
    }

    /// Closes the circuit with this name: see [`Circuit::reset`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, or the circuit is forced or disabled.
    pub fn reset(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.reset()
    }

    /// Forces the circuit with this name open: see [`Circuit::force_open`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, or the circuit is disabled.
    pub fn force_open(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.force_open()
    }

    /// Forces the circuit with this name open for a time: see [`Circuit::force_open_for`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, the circuit is disabled, or `time` is not from
    /// 1 ms to 365 days.
    pub fn force_open_for(&self, name: &str, time: Duration) -> Result<(), ControlError> {
        self.existing(name)?.force_open_for(time)
    }

    /// Forces the circuit with this name closed: see [`Circuit::force_closed`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, or the circuit is disabled.
    pub fn force_closed(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.force_closed()
    }

    /// Forces the circuit with this name closed for a time: see [`Circuit::force_closed_for`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name, the circuit is disabled, or `time` is not from
    /// 1 ms to 365 days.
    pub fn force_closed_for(&self, name: &str, time: Duration) -> Result<(), ControlError> {
        self.existing(name)?.force_closed_for(time)
    }

    /// Releases the circuit with this name: see [`Circuit::release`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name.
    pub fn release(&self, name: &str) -> Result<(), ControlError> {
        self.existing(name)?.release();
        Ok(())
    }

    /// Applies a health report to the circuit with this name: see [`Circuit::report`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name.
    pub fn report(&self, name: &str, report: HealthReport) -> Result<(), ControlError> {
        self.existing(name)?.report(report);
        Ok(())
    }

    /// Records an outcome in the circuit with this name: see [`Circuit::record`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name.
    pub fn record(&self, name: &str, verdict: Verdict) -> Result<(), ControlError> {
        self.existing(name)?.record(verdict);
        Ok(())
    }

    /// Records an outcome and its duration in the circuit with this name: see
    /// [`Circuit::record_with_duration`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit with this name.
    pub fn record_with_duration(
        &self,
        name: &str,
        verdict: Verdict,
        duration: Duration,
    ) -> Result<(), ControlError> {
        self.existing(name)?.record_with_duration(verdict, duration);
        Ok(())
    }

    fn existing(&self, name: &str) -> Result<Circuit, ControlError> {
        self.get(name).ok_or_else(|| ControlError::Unknown { circuit: name.to_owned() })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CircuitRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitRegistry").field("circuits", &self.circuits()).finish_non_exhaustive()
    }
}
