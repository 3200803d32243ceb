//! Events of circuits, on their way to the agent.

use std::collections::HashSet;
use std::mem::{self, Discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tower_breaker::Reason;
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

impl Event {
    /// Returns the kind of the event. A later event of a circuit replaces an earlier one of its
    /// kind, because the agent reads the status of the circuit.
    fn kind(self) -> Kind {
        match self {
            Self::Signal(signal) => Kind::Signal(mem::discriminant(&signal)),
            Self::Transition(Moved { reason, .. }) => Kind::Transition {
                of_override: matches!(reason, Reason::Forced | Reason::Released | Reason::OverrideEnded),
            },
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Kind {
    Signal(Discriminant<Signal>),
    Transition { of_override: bool },
}

/// The number of events that can wait without an allocation.
const INITIAL_CAPACITY: usize = 64;

/// The number of events from which on earlier events of a kind are dropped.
const MAX_EVENTS: usize = 4096;

/// The events of all circuits of a process, in their order.
///
/// Calls post the events, so posting is short, and allocates only if more than
/// [`INITIAL_CAPACITY`] events wait, and more than ever before. If the agent is not polled, the
/// number of events is bounded by [`MAX_EVENTS`], or by twice the last events of each kind and
/// circuit.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug)]
struct Queue {
    events: Vec<(Id, Event)>,
    /// The number of events from which on earlier ones are dropped.
    limit: usize,
    is_closed: bool,
}

impl Queue {
    /// Drops all events but the last one of each kind and circuit.
    #[cold]
    fn drop_earlier(&mut self) {
        let mut seen = HashSet::new();
        let mut last: Vec<_> = mem::take(&mut self.events);
        last.reverse();
        last.retain(|(id, event)| seen.insert((*id, event.kind())));
        last.reverse();
        // Twice their number, so that this work is rare.
        self.limit = MAX_EVENTS.max(2 * last.len());
        self.events = last;
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { events: Vec::with_capacity(INITIAL_CAPACITY), limit: MAX_EVENTS, is_closed: false }
    }
}

impl Mailbox {
    pub(crate) fn post(&self, id: Id, event: Event) {
        let mut queue = self.queue();
        if !queue.is_closed {
            if queue.events.len() >= queue.limit {
                queue.drop_earlier();
            }
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
        *self.queue() = Queue { events: Vec::new(), limit: MAX_EVENTS, is_closed: true };
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
    fn full_mailbox_keeps_the_last_event_of_each_kind() {
        let mailbox = Mailbox::default();
        let transition = |reason, epoch| Event::Transition(Moved { reason, epoch });
        for epoch in 0..100_000 {
            let id = Id::from(epoch % 3);
            mailbox.post(id, transition(Reason::Tripped, epoch));
            if epoch == 500 {
                mailbox.post(id, transition(Reason::Released, epoch));
                mailbox.post(id, Event::Signal(Signal::Demand));
            }
        }
        let mut events = Vec::new();
        mailbox.take(&mut events);
        assert!(events.len() <= MAX_EVENTS, "{}", events.len());
        let of_circuit = |id: Id| events.iter().filter(move |(of, _)| *of == id).map(|(_, event)| *event);
        for epoch in 99_997..100_000 {
            let last = of_circuit(Id::from(epoch % 3)).next_back();
            assert_eq!(last, Some(transition(Reason::Tripped, epoch)));
        }
        let first: Vec<_> = of_circuit(500 % 3).take(2).collect();
        assert_eq!(first, [transition(Reason::Released, 500), Event::Signal(Signal::Demand)]);
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
