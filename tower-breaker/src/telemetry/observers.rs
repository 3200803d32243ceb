//! The observers of a circuit: closures that it calls after a transition or a failure.

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stream::Broadcast;
use super::{Failure, Transition};
use crate::control::Signal;

/// The identifier of an observer, with which it can be removed.
///
/// [`Circuit::on_transition`](crate::Circuit::on_transition) returns it, and
/// [`Circuit::remove_observer`](crate::Circuit::remove_observer) takes it. No two observers of a
/// program have the same identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObserverId(u64);

impl ObserverId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An observer of events of the type `E`.
pub(crate) struct Observer<E> {
    id: ObserverId,
    observe: Arc<Observe<E>>,
}

impl<E> Observer<E> {
    pub(crate) fn new(observe: impl Fn(&E) + Send + Sync + 'static) -> Self {
        Self { id: ObserverId::next(), observe: Arc::new(observe) }
    }

    pub(crate) const fn id(&self) -> ObserverId {
        self.id
    }

    /// Removes and returns an observer of a list.
    pub(crate) fn take(list: &mut Vec<Self>, id: ObserverId) -> Option<Self> {
        let place = list.iter().position(|observer| observer.id == id)?;
        Some(list.remove(place))
    }

    /// Calls the observer, outside of every lock. A panic of the observer affects neither the code
    /// that caused the event nor other observers.
    pub(crate) fn call(&self, event: &E) {
        // The panic hook has already reported the panic.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.observe)(event)));
    }
}

impl<E> Clone for Observer<E> {
    fn clone(&self) -> Self {
        Self { id: self.id, observe: Arc::clone(&self.observe) }
    }
}

type Observe<E> = dyn Fn(&E) + Send + Sync;

/// The observers of one circuit or of several circuits.
#[derive(Default)]
pub struct Observers {
    lists: Mutex<Lists>,
    broadcast: Broadcast,
}

#[derive(Default)]
struct Lists {
    transitions: Vec<Observer<Transition>>,
    failures: Vec<Observer<Failure>>,
    /// Shared, so that a signal copies no list.
    signals: Arc<[Observer<Signal>]>,
    /// The observers of the registry that created the circuit.
    registry: Option<Arc<Observers>>,
}

impl Observers {
    /// Adds an observer of transitions.
    pub(crate) fn on_transition(&self, observe: impl Fn(&Transition) + Send + Sync + 'static) -> ObserverId {
        add(&mut self.lists().transitions, Observer::new(observe))
    }

    /// Adds an observer of failures. The caller then calls
    /// [`publish_observes_failures`](Self::publish_observes_failures).
    pub(crate) fn on_failure(&self, observe: impl Fn(&Failure) + Send + Sync + 'static) -> ObserverId {
        add(&mut self.lists().failures, Observer::new(observe))
    }

    /// Adds an observer of signals. `arm` arms the signals that are sent once. It is called with
    /// the lock held, and must not run user code.
    pub(crate) fn on_signal(
        &self,
        observe: impl Fn(&Signal) + Send + Sync + 'static,
        arm: impl FnOnce(),
    ) -> ObserverId {
        let added = Observer::new(observe);
        let id = added.id;
        let mut lists = self.lists();
        let signals = lists.signals.iter().cloned().chain([added]).collect();
        let former = mem::replace(&mut lists.signals, signals);
        arm();
        drop(lists);
        drop(former);
        id
    }

    /// Removes an observer. Returns `false` if there is no such observer. The caller then calls
    /// [`publish_observes_failures`](Self::publish_observes_failures).
    pub(crate) fn remove(&self, id: ObserverId) -> bool {
        let mut lists = self.lists();
        let transition = Observer::take(&mut lists.transitions, id);
        let failure = Observer::take(&mut lists.failures, id);
        let signals = lists.signals.iter().any(|observer| observer.id == id).then(|| {
            let others = lists.signals.iter().filter(|observer| observer.id != id).cloned().collect();
            mem::replace(&mut lists.signals, others)
        });
        // The observer is dropped after the lock was released: its `Drop` may run any code.
        drop(lists);
        transition.is_some() || failure.is_some() || signals.is_some()
    }

    /// Sets the observers of the registry that created the circuit, which are notified, too.
    pub(crate) fn set_registry(&self, registry: Arc<Self>) {
        let former = self.lists().registry.replace(registry);
        drop(former);
    }

    /// Calls `publish` with whether there is an observer of failures.
    ///
    /// The lock is held, so that of two concurrent changes the later one publishes last. `publish`
    /// must not run user code.
    pub(crate) fn publish_observes_failures(&self, publish: impl FnOnce(bool)) {
        let lists = self.lists();
        publish(lists.observes_failures());
    }

    /// Returns a stream of the transitions from now on.
    #[cfg(feature = "stream")]
    pub(crate) fn stream(&self) -> super::Transitions {
        self.broadcast.subscribe()
    }

    /// Notifies all observers of a transition, outside of every lock.
    pub(crate) fn notify(&self, transition: &Transition) {
        let (observers, registry) = self.lists().cloned(|lists| &lists.transitions);
        self.broadcast.send(transition);
        call_all(&observers, transition);
        if let Some(registry) = registry {
            registry.notify(transition);
        }
    }

    /// Notifies all observers of a failure, outside of every lock.
    pub(crate) fn notify_failure(&self, failure: &Failure) {
        let (observers, registry) = self.lists().cloned(|lists| &lists.failures);
        call_all(&observers, failure);
        if let Some(registry) = registry {
            registry.notify_failure(failure);
        }
    }

    /// Sends a signal to its observers, outside of every lock. Allocates nothing.
    pub(crate) fn signal(&self, signal: Signal) {
        let observers = Arc::clone(&self.lists().signals);
        call_all(&observers, &signal);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn observes_failures(&self) -> bool {
        // The lock of a circuit's observers is always taken before the lock of its registry's.
        let registry = || self.registry.as_ref().is_some_and(|registry| registry.lists().observes_failures());
        !self.failures.is_empty() || registry()
    }

    /// Returns the observers of one list, and those of the registry.
    fn cloned<E>(
        &self,
        list: impl FnOnce(&Self) -> &Vec<Observer<E>>,
    ) -> (Vec<Observer<E>>, Option<Arc<Observers>>) {
        (list(self).clone(), self.registry.clone())
    }
}

fn add<E>(list: &mut Vec<Observer<E>>, observer: Observer<E>) -> ObserverId {
    let id = observer.id;
    list.push(observer);
    id
}

fn call_all<E>(observers: &[Observer<E>], event: &E) {
    for observer in observers {
        observer.call(event);
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}
