//! Circuits by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_fault_classify::__internals::ConfigError;

use crate::circuit::{Circuit, Status};
use crate::config::BreakerConfig;
use crate::error::ControlError;
use crate::machine::HealthReport;
use crate::telemetry::{Observers, Transition};

/// The circuits of a program, by name: for a dashboard, a health page, a hand that has to act.
///
/// A clone is another handle to the same registry. A circuit that was made stays until it is
/// [removed](Self::remove); so names are to be few: for keys of requests there is
/// `KeyedBreakerLayer` (feature `keyed`). Its lock is not held while a circuit is made or called.
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
/// assert!(registry.trip("biling").is_err(), "it is not made by a slip of the pen");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CircuitRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    default: BreakerConfig,
    entries: Mutex<Entries>,
    observers: Arc<Observers>,
}

type Entries = BTreeMap<&'static str, Entry>;

/// How to come by the circuit of a name.
enum Plan {
    Get(Circuit),
    Make(BreakerConfig),
}

/// What is known of a name.
enum Entry {
    /// How its circuit is to be, once it is asked for.
    Configured(BreakerConfig),
    Made(Circuit),
}

impl CircuitRegistry {
    /// An empty registry. Circuits that are not configured are made by `default`, each with its own name.
    pub fn new(default: BreakerConfig) -> Self {
        let inner = Inner { default, entries: Mutex::default(), observers: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The circuit of a name, made if there is none yet. A name that is made at run time is kept for as long as the program runs, once.
    pub fn circuit(&self, name: impl Into<Cow<'static, str>>) -> Circuit {
        let default = self.inner.default.clone().named(name.into());
        let name = default.name();
        let plan = |entries: &Entries| match entries.get(name) {
            Some(Entry::Made(circuit)) => Plan::Get(circuit.clone()),
            Some(Entry::Configured(config)) => Plan::Make(config.clone()),
            None => Plan::Make(default.clone()),
        };
        let mut planned = plan(&self.entries());
        loop {
            let config = match planned {
                Plan::Get(circuit) => return circuit,
                Plan::Make(config) => config,
            };
            // A circuit registers its instruments with the program's recorder, which may run
            // anything: not under the lock.
            let circuit = Circuit::new(config.clone());
            let observers = Arc::clone(&self.inner.observers);
            circuit.on_transition(move |transition| observers.notify(transition));
            let mut entries = self.entries();
            planned = plan(&entries);
            if matches!(&planned, Plan::Make(still) if *still == config) {
                entries.insert(name, Entry::Made(circuit.clone()));
                return circuit;
            }
            // Another thread made or configured it meanwhile. The lock is released before the
            // circuit ends.
            drop(entries);
        }
    }

    /// Sets the limits of the circuit with the name in `config`: immediately if the circuit exists,
    /// otherwise when it is created. See [`Circuit::reconfigure`].
    ///
    /// If the clock of `config` was not set, an existing circuit keeps its clock. A circuit that is
    /// created later reads the clock of the configuration that `config` replaces, or that of the
    /// registry's default configuration.
    ///
    /// # Errors
    ///
    /// The circuit exists, and a clock was set that is not the circuit's.
    pub fn configure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        let mut entries = self.entries();
        if let Some(Entry::Made(circuit)) = entries.get(config.name()) {
            let circuit = circuit.clone();
            drop(entries);
            return circuit.reconfigure(config);
        }
        let clock = match entries.get(config.name()) {
            Some(Entry::Configured(replaced)) => replaced.clock,
            _ => self.inner.default.clock,
        };
        let config = BreakerConfig { clock: config.clock.or(clock), ..config };
        entries.insert(config.name(), Entry::Configured(config));
        Ok(())
    }

    /// The circuit of a name, if it was made.
    pub fn get(&self, name: &str) -> Option<Circuit> {
        match self.entries().get(name) {
            Some(Entry::Made(circuit)) => Some(circuit.clone()),
            _ => None,
        }
    }

    /// The circuits that were made, by name.
    pub fn circuits(&self) -> Vec<Circuit> {
        let entries = self.entries();
        let made = entries.values().filter_map(|entry| match entry {
            Entry::Made(circuit) => Some(circuit.clone()),
            Entry::Configured(_) => None,
        });
        made.collect()
    }

    /// Where each of them stands, by name.
    pub fn statuses(&self) -> Vec<Status> {
        self.circuits().iter().map(Circuit::status).collect()
    }

    /// Forgets a name, with its configuration. Its circuit goes on for those who hold it, and the registry's observers still hear of it; the next
    /// who asks for the name gets a new one.
    pub fn remove(&self, name: &str) -> Option<Circuit> {
        let removed = self.entries().remove(name);
        match removed {
            Some(Entry::Made(circuit)) => Some(circuit),
            _ => None,
        }
    }

    /// Tells `observer` of every change of every circuit's state; see [`Circuit::on_transition`].
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.inner.observers.add(Arc::new(observer));
    }

    /// The changes of every circuit's state from now on, as a stream that never holds a circuit up.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::telemetry::Transitions {
        self.inner.observers.stream()
    }

    /// Closes every circuit that no hand has forced.
    pub fn reset_all(&self) {
        for circuit in self.circuits() {
            // A forced one stays as it is.
            let _ = circuit.reset();
        }
    }

    /// See [`Circuit::trip`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name, or the circuit is forced or disabled.
    pub fn trip(&self, name: &str) -> Result<(), ControlError> {
        self.known(name)?.trip()
    }

    /// See [`Circuit::reset`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name, or the circuit is forced or disabled.
    pub fn reset(&self, name: &str) -> Result<(), ControlError> {
        self.known(name)?.reset()
    }

    /// See [`Circuit::force_open`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name, or the circuit is disabled.
    pub fn force_open(&self, name: &str) -> Result<(), ControlError> {
        self.known(name)?.force_open()
    }

    /// See [`Circuit::force_closed`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name, or the circuit is disabled.
    pub fn force_closed(&self, name: &str) -> Result<(), ControlError> {
        self.known(name)?.force_closed()
    }

    /// See [`Circuit::release`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name.
    pub fn release(&self, name: &str) -> Result<(), ControlError> {
        self.known(name)?.release();
        Ok(())
    }

    /// See [`Circuit::report`].
    ///
    /// # Errors
    ///
    /// The registry has no circuit of this name.
    pub fn report(&self, name: &str, report: HealthReport) -> Result<(), ControlError> {
        self.known(name)?.report(report);
        Ok(())
    }

    fn known(&self, name: &str) -> Result<Circuit, ControlError> {
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
