//! Who is told of a circuit's transitions.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::Transition;

type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The observers of a circuit, or of many.
#[derive(Default)]
pub(crate) struct Watchers {
    observers: Mutex<Vec<Observer>>,
}

impl Watchers {
    pub(crate) fn add(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Tells all of them, outside every lock. A panic of one ends there: the call that happened to cause the transition has no part in it, nor
    /// have the others.
    pub(crate) fn tell(&self, transition: &Transition) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers {
            // The panic hook has reported it.
            let _ = catch_unwind(AssertUnwindSafe(|| observer(transition)));
        }
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watchers")
    }
}
