//! Events of circuits, on their way to the agent.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tower_breaker::control::Signal;

use super::circuit::Moved;

/// The number of a shared circuit. A name can be shared again after its circuit has ended.
pub(crate) type Id = u64;

/// An event of a circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    Signal(Signal),
    Transition(Moved),
}

/// The number of events that can wait without an allocation.
const INITIAL_CAPACITY: usize = 64;

/// The events of all circuits of a process, in their order.
///
/// Calls post the events, so posting is short, and allocates only if more than
/// [`INITIAL_CAPACITY`] events wait, and more than ever before. Their number is bounded: a signal
/// is sent once until the agent arms it again, and the probes and transitions of a circuit are
/// rare.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug)]
struct Queue {
    events: Vec<(Id, Event)>,
    is_closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self { events: Vec::with_capacity(INITIAL_CAPACITY), is_closed: false }
    }
}

impl Mailbox {
    pub(crate) fn post(&self, id: Id, event: Event) {
        let mut queue = self.queue();
        if !queue.is_closed {
            queue.events.push((id, event));
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Moves all events to `events`, which must be empty.
    pub(crate) fn take(&self, events: &mut Vec<(Id, Event)>) {
        // The next events are posted to this buffer.
        events.reserve(INITIAL_CAPACITY);
        mem::swap(&mut self.queue().events, events);
    }

    /// Resolves when an event was posted after the last call. Cancellation-safe.
    pub(crate) async fn posted(&self) {
        self.wake.notified().await;
    }

    /// Drops this and all later events.
    pub(crate) fn close(&self) {
        *self.queue() = Queue { events: Vec::new(), is_closed: true };
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn mailbox_keeps_the_order_of_events() {
        let mailbox = Mailbox::default();
        mailbox.post(1, Event::Signal(Signal::Failure));
        mailbox.post(2, Event::Signal(Signal::Demand));
        mailbox.posted().await;
        let mut events = Vec::new();
        mailbox.take(&mut events);
        let expected = [(1, Event::Signal(Signal::Failure)), (2, Event::Signal(Signal::Demand))];
        assert_eq!(events, expected);
    }

    #[test]
    fn closed_mailbox_drops_events() {
        let mailbox = Mailbox::default();
        mailbox.post(1, Event::Signal(Signal::Failure));
        mailbox.close();
        mailbox.post(1, Event::Signal(Signal::Failure));
        let mut events = Vec::new();
        mailbox.take(&mut events);
        assert!(events.is_empty());
    }
}
