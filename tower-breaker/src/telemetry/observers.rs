//! Who is told of a circuit's transitions.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "stream")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "stream")]
use tokio::sync::broadcast::Sender;

use super::Transition;
#[cfg(feature = "stream")]
use super::stream::{Transitions, source};

type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The observers of a circuit, or of many.
#[derive(Default)]
pub(crate) struct Observers {
    observers: Mutex<Vec<Observer>>,
    #[cfg(feature = "stream")]
    stream: OnceLock<Sender<Transition>>,
}

impl Observers {
    pub(crate) fn add(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// A stream of what will be told.
    #[cfg(feature = "stream")]
    pub(crate) fn stream(&self) -> Transitions {
        Transitions::new(self.stream.get_or_init(source).subscribe())
    }

    /// Tells all of them, outside every lock. A panic of one ends there: the call that happened to cause the transition has no part in it, nor
    /// have the others.
    pub(crate) fn tell(&self, transition: &Transition) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        #[cfg(feature = "stream")]
        if let Some(stream) = self.stream.get() {
            // Nobody reads it at present.
            let _ = stream.send(transition.clone());
        }
        for observer in observers {
            // The panic hook has reported it.
            let _ = catch_unwind(AssertUnwindSafe(|| observer(transition)));
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watchers")
    }
}
