//! The observers of a circuit: closures that the circuit calls after a transition.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Transition;
use super::stream::Broadcast;

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
struct Observer<E> {
    id: ObserverId,
    observe: Arc<Observe<E>>,
}

type Observe<E> = dyn Fn(&E) + Send + Sync;

/// The observers of one circuit or of several circuits.
#[derive(Default)]
pub(crate) struct Observers {
    lists: Mutex<Lists>,
    broadcast: Broadcast,
}

#[derive(Default)]
struct Lists {
    transitions: Vec<Observer<Transition>>,
}

impl Observers {
    /// Adds an observer of transitions.
    pub(crate) fn on_transition(&self, observe: impl Fn(&Transition) + Send + Sync + 'static) -> ObserverId {
        add(&mut self.lists().transitions, Arc::new(observe))
    }

    /// Removes an observer. Returns `false` if there is no such observer.
    pub(crate) fn remove(&self, id: ObserverId) -> bool {
        let removed = take(&mut self.lists().transitions, id);
        // The observer is dropped here, after the lock was released: its `Drop` may run any code.
        removed.is_some()
    }

    /// Returns a stream of the transitions from now on.
    #[cfg(feature = "stream")]
    pub(crate) fn stream(&self) -> super::Transitions {
        self.broadcast.subscribe()
    }

    /// Notifies all observers of a transition, outside of every lock.
    pub(crate) fn notify(&self, transition: &Transition) {
        let observers = clone_all(&self.lists().transitions);
        self.broadcast.send(transition);
        call_all(observers, transition);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<E>(list: &mut Vec<Observer<E>>, observe: Arc<Observe<E>>) -> ObserverId {
    let id = ObserverId::next();
    list.push(Observer { id, observe });
    id
}

fn take<E>(list: &mut Vec<Observer<E>>, id: ObserverId) -> Option<Observer<E>> {
    let place = list.iter().position(|observer| observer.id == id)?;
    Some(list.remove(place))
}

fn clone_all<E>(list: &[Observer<E>]) -> Vec<Arc<Observe<E>>> {
    list.iter().map(|observer| Arc::clone(&observer.observe)).collect()
}

/// Calls observers. A panic of an observer affects neither the call that caused the event nor the
/// other observers.
fn call_all<E>(observers: Vec<Arc<Observe<E>>>, event: &E) {
    for observe in observers {
        // The panic hook has already reported the panic.
        let _ = catch_unwind(AssertUnwindSafe(|| observe(event)));
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}
