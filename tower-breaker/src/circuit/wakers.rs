//! The wakers of tasks that a change of the circuit must wake, while they wait for something else.

use std::mem;
use std::task::Waker;

/// The place where a task is registered. It is valid until its generation ends or the task is
/// removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakerKey {
    generation: u64,
    index: usize,
}

/// The events that wake a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeOn {
    /// A change of the circuit.
    Change,
    /// A change of the circuit, or a slot of a probe or of a slow start that becomes free.
    FreeSlot,
}

/// The wakers of one generation. A change of the circuit ends the generation and wakes all of its
/// tasks.
#[derive(Debug, Default)]
pub(crate) struct WakerList {
    generation: u64,
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// Whether a task of this generation has registered for a free slot.
    wants_slot: bool,
}

impl WakerList {
    /// Registers a task. A valid `waker_key` is used again.
    ///
    /// Returns the waker that was replaced, so that the caller drops it outside the lock.
    pub(crate) fn register(
        &mut self,
        waker_key: Option<WakerKey>,
        waker: Waker,
        wake_on: WakeOn,
    ) -> (WakerKey, Option<Waker>) {
        self.wants_slot |= wake_on == WakeOn::FreeSlot;
        if let Some(waker_key) = waker_key.filter(|waker_key| waker_key.generation == self.generation)
            && let Some(Some(registered)) = self.slots.get_mut(waker_key.index)
        {
            return (waker_key, Some(mem::replace(registered, waker)));
        }
        let index = if let Some(index) = self.free.pop() {
            self.slots[index] = Some(waker);
            index
        } else {
            self.slots.push(Some(waker));
            self.slots.len() - 1
        };
        (WakerKey { generation: self.generation, index }, None)
    }

    /// Removes a registered task. Returns its waker, so that the caller drops it outside the lock.
    pub(crate) fn deregister(&mut self, waker_key: WakerKey) -> Option<Waker> {
        if waker_key.generation != self.generation {
            return None;
        }
        let waker = self.slots.get_mut(waker_key.index)?.take();
        if waker.is_some() {
            self.free.push(waker_key.index);
        }
        waker
    }

    /// Returns whether a task of this generation has registered for a free slot.
    pub(crate) const fn wants_slot(&self) -> bool {
        self.wants_slot
    }

    /// Ends the generation and returns its wakers. The caller wakes them outside the lock.
    pub(crate) fn drain(&mut self) -> Vec<Option<Waker>> {
        self.generation = self.generation.wrapping_add(1);
        self.free.clear();
        self.wants_slot = false;
        mem::take(&mut self.slots)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn task_keeps_its_key_until_the_generation_ends() {
        let waker = || Waker::noop().clone();
        let mut wakers = WakerList::default();
        let (waker_key, _) = wakers.register(None, waker(), WakeOn::Change);
        let (again, replaced) = wakers.register(Some(waker_key), waker(), WakeOn::Change);
        assert_eq!((again, replaced.is_some()), (waker_key, true));
        let (other, _) = wakers.register(None, waker(), WakeOn::Change);
        assert_ne!(waker_key, other);
        assert!(wakers.deregister(waker_key).is_some());
        assert!(wakers.deregister(waker_key).is_none(), "a task is removed only once");
        assert_eq!(wakers.register(None, waker(), WakeOn::Change).0, waker_key, "a free slot is reused");
        assert_eq!(wakers.drain().into_iter().flatten().count(), 2);
        assert!(wakers.deregister(other).is_none(), "the generation is over");
        let (next, _) = wakers.register(Some(other), waker(), WakeOn::FreeSlot);
        assert_ne!(next, other);
        assert!(wakers.wants_slot());
        assert_eq!(wakers.drain().len(), 1);
        assert!(!wakers.wants_slot(), "no task waits in the next generation");
    }

    #[test]
    fn waker_memory_is_bounded_by_concurrent_tasks() {
        let mut wakers = WakerList::default();
        for _ in 0..10_000 {
            let (waker_key, _) = wakers.register(None, Waker::noop().clone(), WakeOn::Change);
            wakers.deregister(waker_key);
        }
        assert_eq!(wakers.drain().len(), 1);
    }
}
