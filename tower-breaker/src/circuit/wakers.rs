//! The wakers of tasks that a change of the circuit must wake, while they wait for something else.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

/// The registration of a task. It belongs to one circuit, and only one task ever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakerKey {
    number: u64,
    wake_on: WakeOn,
}

/// The events that wake a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeOn {
    /// A change of the circuit.
    Change,
    /// A change of the circuit, or a slot of a probe or of a slow start that becomes free.
    FreeSlot,
    /// A change of the circuit, or a free slot when it is the task's turn. A free slot wakes one
    /// such task, so that many tasks do not compete for it.
    ///
    /// A task that was woken must decide, and then register again or end its turn.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only a future with a timer waits"))]
    Turn,
}

/// The registered tasks. A task that is woken is not registered any more.
// Allocated at the first registration, because no task waits for most circuits.
#[derive(Debug, Default)]
pub(crate) struct WakerList(Option<Box<Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    /// The number of the last new task.
    last_number: u64,
    on_change: BTreeMap<u64, Waker>,
    on_free_slot: BTreeMap<u64, Waker>,
    on_turn: BTreeMap<u64, Waker>,
}

impl WakerList {
    /// Registers a task. With its `waker_key`, the task keeps its turn.
    ///
    /// Returns the waker that was replaced, so that the caller drops it outside the lock.
    pub(crate) fn register(
        &mut self,
        waker_key: Option<WakerKey>,
        waker: Waker,
        wake_on: WakeOn,
    ) -> (WakerKey, Option<Waker>) {
        let tasks = self.0.get_or_insert_default();
        let waker_key = waker_key.unwrap_or_else(|| {
            tasks.last_number += 1;
            WakerKey { number: tasks.last_number, wake_on }
        });
        let replaced = tasks.waiting(waker_key.wake_on).insert(waker_key.number, waker);
        (waker_key, replaced)
    }

    /// Removes a registered task. Returns its waker, so that the caller drops it outside the lock.
    pub(crate) fn deregister(&mut self, waker_key: WakerKey) -> Option<Waker> {
        self.0.as_mut()?.waiting(waker_key.wake_on).remove(&waker_key.number)
    }

    /// Removes and returns the task whose turn it is. The caller wakes it outside the lock.
    pub(crate) fn take_next_turn(&mut self) -> Option<Waker> {
        self.0.as_mut()?.on_turn.pop_first().map(|(_, waker)| waker)
    }

    /// Removes and returns the tasks that a free slot wakes. The caller wakes them outside the
    /// lock.
    pub(crate) fn take_for_free_slot(&mut self) -> Vec<Waker> {
        let Some(tasks) = &mut self.0 else { return Vec::new() };
        let on_free_slot = mem::take(&mut tasks.on_free_slot);
        on_free_slot.into_values().chain(self.take_next_turn()).collect()
    }

    /// Removes and returns all tasks. The caller wakes them outside the lock.
    pub(crate) fn drain(&mut self) -> Vec<Waker> {
        let Some(tasks) = &mut self.0 else { return Vec::new() };
        let waiting = [&mut tasks.on_change, &mut tasks.on_free_slot, &mut tasks.on_turn];
        waiting.into_iter().flat_map(|tasks| mem::take(tasks).into_values()).collect()
    }
}

impl Tasks {
    const fn waiting(&mut self, wake_on: WakeOn) -> &mut BTreeMap<u64, Waker> {
        match wake_on {
            WakeOn::Change => &mut self.on_change,
            WakeOn::FreeSlot => &mut self.on_free_slot,
            WakeOn::Turn => &mut self.on_turn,
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::task::Wake;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Stores its number in a list when it is woken.
    struct Numbered(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Numbered {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn noop() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn task_keeps_its_key_and_is_removed_once() {
        let mut wakers = WakerList::default();
        for wake_on in [WakeOn::Change, WakeOn::FreeSlot, WakeOn::Turn] {
            let (waker_key, _) = wakers.register(None, noop(), wake_on);
            let (again, replaced) = wakers.register(Some(waker_key), noop(), wake_on);
            assert_eq!((again, replaced.is_some()), (waker_key, true));
            let (other, _) = wakers.register(None, noop(), wake_on);
            assert_ne!(waker_key, other);
            assert!(wakers.deregister(waker_key).is_some());
            assert!(wakers.deregister(waker_key).is_none(), "a task is removed only once");
            assert_eq!(wakers.drain().len(), 1);
            assert!(wakers.deregister(other).is_none(), "a woken task is not registered");
        }
    }

    #[test]
    fn waker_memory_is_bounded_by_concurrent_tasks() {
        let mut wakers = WakerList::default();
        for _ in 0..10_000 {
            let (waker_key, _) = wakers.register(None, noop(), WakeOn::Change);
            wakers.deregister(waker_key);
        }
        assert_eq!(wakers.drain().len(), 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Register(usize, WakeOn),
        Deregister(usize),
        FreeSlot,
        NextTurn,
        Change,
    }

    fn step() -> impl Strategy<Value = Step> {
        let wake_on = prop_oneof![Just(WakeOn::Change), Just(WakeOn::FreeSlot), Just(WakeOn::Turn)];
        prop_oneof![
            4 => (0..8_usize, wake_on).prop_map(|(task, wake_on)| Step::Register(task, wake_on)),
            2 => (0..8_usize).prop_map(Step::Deregister),
            2 => Just(Step::FreeSlot),
            1 => Just(Step::NextTurn),
            1 => Just(Step::Change),
        ]
    }

    /// A naive list: the tasks in the order of their first registration, and whether each waits.
    #[derive(Default)]
    struct NaiveList(Vec<(usize, WakeOn, bool)>);

    impl NaiveList {
        fn register(&mut self, task: usize, wake_on: WakeOn) {
            match self.0.iter_mut().find(|entry| entry.0 == task) {
                Some(entry) => entry.2 = true,
                None => self.0.push((task, wake_on, true)),
            }
        }

        /// Removes the waiting tasks that wait for one of the events, at most `most` of them.
        fn take(&mut self, events: &[WakeOn], most: usize) -> Vec<usize> {
            let waiting = self.0.iter_mut().filter(|entry| entry.2 && events.contains(&entry.1)).take(most);
            waiting
                .map(|entry| {
                    entry.2 = false;
                    entry.0
                })
                .collect()
        }
    }

    proptest! {
        #[test]
        fn tasks_are_woken_as_in_naive_list(steps in vec(step(), 0..60)) {
            let (mut wakers, mut naive) = (WakerList::default(), NaiveList::default());
            let mut keys = BTreeMap::new();
            let log = Arc::new(Mutex::new(Vec::new()));
            for step in steps {
                let (woken, mut expected) = match step {
                    Step::Register(task, wake_on) => {
                        let waker = Waker::from(Arc::new(Numbered(task, Arc::clone(&log))));
                        let (key, _) = wakers.register(keys.get(&task).copied(), waker, wake_on);
                        keys.insert(task, key);
                        naive.register(task, wake_on);
                        continue;
                    }
                    Step::Deregister(task) => {
                        let registered = keys.remove(&task).and_then(|key| wakers.deregister(key));
                        let waits = naive.0.iter().any(|entry| entry.0 == task && entry.2);
                        prop_assert_eq!(registered.is_some(), waits);
                        naive.0.retain(|entry| entry.0 != task);
                        continue;
                    }
                    Step::FreeSlot => {
                        let mut expected = naive.take(&[WakeOn::FreeSlot], usize::MAX);
                        expected.extend(naive.take(&[WakeOn::Turn], 1));
                        (wakers.take_for_free_slot(), expected)
                    }
                    Step::NextTurn => {
                        (wakers.take_next_turn().into_iter().collect(), naive.take(&[WakeOn::Turn], 1))
                    }
                    Step::Change => {
                        let all = [WakeOn::Change, WakeOn::FreeSlot, WakeOn::Turn];
                        (wakers.drain(), naive.take(&all, usize::MAX))
                    }
                };
                woken.into_iter().for_each(Waker::wake);
                let mut woken = mem::take(&mut *log.lock().unwrap());
                woken.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(woken, expected);
            }
        }
    }
}
