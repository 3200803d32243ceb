//! The observers of a circuit's transitions.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::Transition;
use super::stream::Broadcast;

type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The observers of one circuit or of several circuits.
#[derive(Default)]
pub(crate) struct Observers {
    observers: Mutex<Vec<Observer>>,
    broadcast: Broadcast,
}

impl Observers {
    pub(crate) fn add(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Returns a stream of the transitions from now on.
    #[cfg(feature = "stream")]
    pub(crate) fn stream(&self) -> super::Transitions {
        self.broadcast.subscribe()
    }

    /// Notifies all observers, outside of every lock. A panic of an observer affects neither the
    /// call that caused the transition nor the other observers.
    pub(crate) fn notify(&self, transition: &Transition) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.broadcast.send(transition);
        for observer in observers {
            // The panic hook has already reported the panic.
            let _ = catch_unwind(AssertUnwindSafe(|| observer(transition)));
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}
