//! A pool of shared values that are reused and never freed.
//!
//! A call's future must reach the state that it settles, and the state must exist for as long as
//! the future does. An `Arc` costs two contended read-modify-writes for each call, more than
//! everything else in the call together.
//!
//! So the state is leaked, and a plain `&'static` reaches it. The *handles* are counted instead.
//! Their number changes when a service is created or cloned, not when it is called. A service may
//! also be cloned for each call, so the [count](super::handle_count) has a part for each thread.
//!
//! The invariants, the most important first:
//!
//! 1. A value is either in its pool, or is in use. Only [`PoolHandle::acquire`] removes it from the
//!    pool, with one handle. Only the drop of the last handle returns it.
//! 2. Any value fits any owner: the next owner can replace everything that the last owner stored in
//!    it. So a value is found in constant time, and memory is bounded by the largest number of
//!    values that were in use at the same time.
//! 3. A `&'static` without a handle may still be used after another owner has acquired the value.
//!    So a value distinguishes its owners by an epoch, and a call with an earlier epoch changes
//!    nothing. A new epoch starts when the value is [retired](PoolItem::retire), or when the next
//!    owner adopts it, before the value contains anything of the next owner.
//!
//! Two drops at once may both find no other handle, and one of them may continue only after the
//! value has its next owner. So a drop decides under the lock of the value's owner: it retires the
//! value if the value is in use and has no handle. Therefore each owner's use ends exactly once,
//! and only when all of that owner's handles were dropped.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::handle_count::{HandleCount, Tally};
use super::sync;

/// A value that another owner can reuse.
pub trait PoolItem: Sized + Sync + 'static {
    /// Returns the pool of the unused values.
    fn pool() -> &'static Pool<Self>;

    /// Ends the use by the last owner, whose last handle was dropped.
    ///
    /// It may run user code, which may panic. The value returns to the pool in any case.
    ///
    /// **Default**: does nothing.
    fn retire(&self) {}
}

/// The values that have no owner at present.
#[derive(Debug)]
pub struct Pool<T: 'static>(Mutex<VecDeque<&'static Node<T>>>);

impl<T> Pool<T> {
    /// Creates an empty pool.
    #[expect(clippy::new_without_default, reason = "it is used in statics only")]
    pub const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, VecDeque<&'static Node<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value and the use of it.
#[derive(Debug)]
struct Node<T> {
    usage: Usage,
    value: T,
}

/// The handles to a value, and its owner.
///
/// They have their own cache lines: a clone reads them, whereas the value changes with every call.
#[derive(Debug)]
#[repr(align(128))]
struct Usage {
    handles: HandleCount,
    owner: sync::Mutex<Owner>,
}

/// The present or the last owner of a value.
#[derive(Debug)]
struct Owner {
    /// Increased when the value is retired, so it distinguishes the owners of the value.
    number: u64,
    /// Whether the value is in use. Otherwise it is in its pool, or between the pool and an owner.
    is_in_use: bool,
}

impl<T: PoolItem> Node<T> {
    fn new(value: T, handles: HandleCount) -> &'static Self {
        let owner = sync::Mutex::new(Owner { number: 0, is_in_use: false });
        Box::leak(Box::new(Self { usage: Usage { handles, owner }, value }))
    }

    /// Retires the value if it is in use and has no handle.
    #[cold]
    #[inline(never)]
    fn retire_if_unused(&'static self) {
        let mut owner = sync::lock(&self.usage.owner);
        if !owner.is_in_use || !self.usage.handles.is_zero() {
            return;
        }
        owner.is_in_use = false;
        owner.number += 1;
        drop(owner);
        let _returned = ReturnOnDrop(self);
        self.value.retire();
    }
}

/// Returns a value to its pool when it is dropped, also by a panic.
struct ReturnOnDrop<T: PoolItem>(&'static Node<T>);

impl<T: PoolItem> Drop for ReturnOnDrop<T> {
    fn drop(&mut self) {
        T::pool().nodes().push_back(self.0);
    }
}

/// A counted handle to a value.
///
/// A *root* handle is one that [`acquire`](Self::acquire), [`root`](Self::root) or
/// [`WeakHandle::upgrade`] returns, or that a thread without a number clones. As long as there is a
/// root handle, the drop of any other handle takes the shortest path. A root handle itself costs a
/// contended read-modify-write to create, and one to drop.
#[derive(Debug)]
pub struct PoolHandle<T: PoolItem> {
    node: &'static Node<T>,
    tally: &'static Tally,
}

impl<T: PoolItem> PoolHandle<T> {
    /// Acquires a value from the pool, or creates one with `make` if the pool is empty.
    ///
    /// It acquires the value that has been in the pool for the longest time, so that the calls of
    /// the last owner have had time to end. The caller adopts the value before it shares the
    /// handle.
    pub fn acquire(make: impl FnOnce() -> T) -> Self {
        let unused = T::pool().nodes().pop_front();
        Self::first(unused.unwrap_or_else(|| Node::new(make(), HandleCount::new())))
    }

    /// Creates the first handle to a value that is not in use.
    fn first(node: &'static Node<T>) -> Self {
        let mut owner = sync::lock(&node.usage.owner);
        debug_assert!(!owner.is_in_use, "a value in the pool must not be in use");
        owner.is_in_use = true;
        Self { node, tally: node.usage.handles.add_root() }
    }

    /// Returns another handle, which is a root handle. Use it for a handle that is kept.
    pub fn root(&self) -> Self {
        Self { node: self.node, tally: self.node.usage.handles.add_root() }
    }

    /// Returns a handle that is not counted.
    pub fn downgrade(&self) -> WeakHandle<T> {
        WeakHandle { node: self.node, owner: sync::lock(&self.node.usage.owner).number }
    }

    /// Returns a reference to the value that is valid forever.
    ///
    /// After the last handle's drop, the value may belong to another owner.
    #[inline]
    pub fn as_static(&self) -> &'static T {
        &self.node.value
    }

    /// Returns whether there are other counted handles to the value.
    ///
    /// Handles that other threads clone and drop at the same time may count twice.
    pub fn is_shared(&self) -> bool {
        self.node.usage.handles.at_most() > 1
    }

    /// Returns whether both are handles to the same value.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.node, other.node)
    }
}

impl<T: PoolItem> Deref for PoolHandle<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.node.value
    }
}

impl<T: PoolItem> Clone for PoolHandle<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self { node: self.node, tally: self.node.usage.handles.add() }
    }
}

impl<T: PoolItem> Drop for PoolHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if self.node.usage.handles.remove(self.tally) {
            self.node.retire_if_unused();
        }
    }
}

/// A handle that is not counted: it does not keep the value in use.
///
/// Once the last counted handle was dropped, the handle refers to nothing, even if the value has
/// another owner.
#[derive(Debug)]
pub struct WeakHandle<T: PoolItem> {
    node: &'static Node<T>,
    owner: u64,
}

impl<T: PoolItem> WeakHandle<T> {
    /// Returns a counted handle. `None`: the last counted handle was dropped.
    pub fn upgrade(&self) -> Option<PoolHandle<T>> {
        // The value is not retired while this lock is held, and not afterwards while it has a
        // handle. If its last handle is being dropped on another thread, the new handle keeps it in
        // use.
        let owner = sync::lock(&self.node.usage.owner);
        (owner.number == self.owner)
            .then(|| PoolHandle { node: self.node, tally: self.node.usage.handles.add_root() })
    }
}

impl<T: PoolItem> Clone for WeakHandle<T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::mem;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::__internals::sync::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct Value {
        retired: AtomicU64,
    }

    static POOL: Pool<Value> = Pool::new();

    impl PoolItem for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            self.retired.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One test, because all of them share the pool.
    #[test]
    fn pool_value_is_retired_by_last_drop_and_reused() {
        let acquire = || PoolHandle::<Value>::acquire(Value::default);
        let first = acquire();
        assert!(!first.is_shared());
        let second = first.clone();
        assert!(first.is_shared() && second.is_shared());
        let value = first.as_static();
        let retired = || value.retired.load(Ordering::Relaxed);
        drop(first);
        assert_eq!(retired(), 0, "a handle is left");
        let other = acquire();
        assert!(!other.ptr_eq(&second), "a value in use is not reused");
        drop(second);
        assert_eq!(retired(), 1);
        let reused = acquire();
        assert!(std::ptr::eq(reused.as_static(), value));
        assert!(!reused.ptr_eq(&acquire()));
        let reused = reused.as_static();
        let (first, second) = (acquire(), acquire());
        let longest = first.as_static();
        drop(first);
        drop(second);
        assert!(std::ptr::eq(acquire().as_static(), longest));
        assert!(!std::ptr::eq(reused, longest));
        drop(other);

        let handle = acquire();
        let (value, weak) = (handle.as_static(), handle.downgrade());
        let upgraded = weak.upgrade().expect("a handle is left");
        assert!(upgraded.ptr_eq(&handle));
        drop(handle);
        drop(weak.clone().upgrade().expect("the upgraded handle is left"));
        drop(upgraded);
        assert!(weak.upgrade().is_none(), "the last handle was dropped");
        let next: Vec<_> = (0..100).map(|_| acquire()).collect();
        assert!(next.iter().any(|handle| std::ptr::eq(handle.as_static(), value)));
        assert!(weak.upgrade().is_none(), "the value has another owner");
        drop(next);

        let many = || (0..100).map(|_| acquire()).collect::<Vec<_>>();
        drop(many());
        let made = std::cell::Cell::new(0);
        let acquired: Vec<_> = (0..101)
            .map(|_| {
                PoolHandle::acquire(|| {
                    made.set(made.get() + 1);
                    Value::default()
                })
            })
            .collect();
        assert_eq!((acquired.len(), made.get()), (101, 1), "a hundred values were in the pool");
    }

    #[test]
    fn pool_value_whose_retirement_panics_is_reused() {
        #[derive(Debug)]
        struct Panics(u64);

        static POOL: Pool<Panics> = Pool::new();

        impl PoolItem for Panics {
            fn pool() -> &'static Pool<Self> {
                &POOL
            }

            fn retire(&self) {
                panic!("the drop of an observer panics");
            }
        }

        let handle = PoolHandle::acquire(|| Panics(1));
        let weak = handle.downgrade();
        catch_unwind(AssertUnwindSafe(|| drop(handle))).unwrap_err();
        assert!(weak.upgrade().is_none());
        let next = PoolHandle::acquire(|| Panics(2));
        assert_eq!(next.0, 1);
        // A handle that is never dropped keeps the value in use.
        mem::forget(next.clone());
        drop(next);
        assert_eq!(mem::ManuallyDrop::new(PoolHandle::acquire(|| Panics(3))).0, 3);
    }
}

/// Handles of many threads, compared with a plain count.
#[cfg(all(test, not(loom_models)))]
mod thread_tests {
    use std::cell::RefCell;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Barrier, MutexGuard};
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::__internals::striped::slot_count;
    use crate::__internals::sync::{AtomicU64, Ordering};

    /// A value that checks that it is retired exactly when it has no handle.
    #[derive(Debug, Default)]
    struct Value {
        handles: AtomicU64,
        retired: AtomicU64,
    }

    static POOL: Pool<Value> = Pool::new();

    impl PoolItem for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            assert_eq!(self.handles.load(Ordering::Relaxed), 0, "the value has a handle");
            self.retired.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Held by each test, because the tests share the pool.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle that is also counted in its value.
    struct Handle(PoolHandle<Value>);

    impl Handle {
        fn acquire() -> Self {
            Self::new(PoolHandle::acquire(Value::default))
        }

        fn new(handle: PoolHandle<Value>) -> Self {
            handle.handles.fetch_add(1, Ordering::Relaxed);
            Self(handle)
        }
    }

    impl Clone for Handle {
        fn clone(&self) -> Self {
            Self::new(self.0.clone())
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            // The drop of the inner handle follows.
            self.0.handles.fetch_sub(1, Ordering::Relaxed);
        }
    }

    type Job = Box<dyn FnOnce() -> Option<Handle> + Send>;

    /// A thread that runs one job at a time.
    struct Worker {
        jobs: Sender<Job>,
        results: Receiver<Option<Handle>>,
    }

    impl Worker {
        fn start() -> Self {
            let ((jobs, received), (sent, results)) = (channel::<Job>(), channel());
            thread::spawn(move || received.into_iter().try_for_each(|job| sent.send(job())));
            Self { jobs, results }
        }

        fn run(&self, job: impl FnOnce() -> Option<Handle> + Send + 'static) -> Option<Handle> {
            self.jobs.send(Box::new(job)).unwrap();
            self.results.recv().unwrap()
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        Clone,
        Root,
        Upgrade,
        Drop,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => Just(Operation::Clone),
            1 => Just(Operation::Root),
            1 => Just(Operation::Upgrade),
            6 => Just(Operation::Drop),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each step runs on one of more threads than there are numbers.
        #[test]
        fn pool_handles_on_random_threads_retire_at_last_drop(
            steps in proptest::collection::vec(
                (any::<prop::sample::Index>(), operation(), any::<prop::sample::Index>()),
                1..200,
            ),
        ) {
            let _alone = alone();
            let workers: Vec<_> = (0..slot_count() + 2).map(|_| Worker::start()).collect();
            let mut handles = vec![Handle::acquire()];
            let value = handles[0].0.as_static();
            let weak = handles[0].0.downgrade();
            let before = value.retired.load(Ordering::Relaxed);
            for (worker, operation, index) in steps {
                let worker = &workers[worker.index(workers.len())];
                let index = index.index(handles.len());
                let handle = handles.swap_remove(index);
                if let Operation::Drop = operation {
                    worker.run(move || { drop(handle); None });
                } else {
                    let kept = handle.clone();
                    let weak = weak.clone();
                    let new = worker.run(move || Some(match operation {
                        Operation::Root => Handle::new(handle.0.root()),
                        Operation::Upgrade => Handle::new(weak.upgrade()?),
                        _ => handle.clone(),
                    }));
                    handles.extend([kept, new.expect("a handle is left")]);
                }
                let retired = value.retired.load(Ordering::Relaxed) - before;
                prop_assert_eq!(retired, u64::from(handles.is_empty()));
                let Some(first) = handles.first() else { break };
                prop_assert_eq!(first.0.is_shared(), handles.len() > 1);
            }
            drop(handles);
            prop_assert!(weak.upgrade().is_none());
            prop_assert_eq!(value.retired.load(Ordering::Relaxed) - before, 1);
        }
    }

    /// A destructor of a thread-local runs before or after the thread has returned its number, and
    /// may be the first to need a number.
    #[test]
    fn pool_handles_used_while_threads_end_retire_once() {
        struct CloneAtExit(Handle);

        impl Drop for CloneAtExit {
            fn drop(&mut self) {
                drop(self.0.clone());
            }
        }

        thread_local! {
            static FIRST: RefCell<Option<CloneAtExit>> = const { RefCell::new(None) };
            static SECOND: RefCell<Option<CloneAtExit>> = const { RefCell::new(None) };
        }

        let _alone = alone();
        let handle = Handle::acquire();
        let value = handle.0.as_static();
        let before = value.retired.load(Ordering::Relaxed);
        for round in 0..4 * slot_count() {
            let [first, second] = [handle.clone(), handle.clone()];
            let run = move || {
                FIRST.set(Some(CloneAtExit(first)));
                if round % 2 == 0 {
                    drop(second.clone());
                }
                SECOND.set(Some(CloneAtExit(second)));
            };
            thread::spawn(run).join().unwrap();
        }
        assert!(!handle.0.is_shared());
        drop(handle);
        assert_eq!(value.retired.load(Ordering::Relaxed) - before, 1);
    }

    #[test]
    fn pool_handles_dropped_at_once_by_many_threads_retire_once() {
        let _alone = alone();
        let threads = slot_count() + 2;
        for _ in 0..100 {
            let handle = Handle::acquire();
            let value = handle.0.as_static();
            let before = value.retired.load(Ordering::Relaxed);
            let barrier = Barrier::new(threads);
            let shared = Mutex::new(vec![handle]);
            let take = || shared.lock().unwrap().pop();
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let mut own = shared.lock().unwrap()[0].clone();
                        barrier.wait();
                        for _ in 0..50 {
                            // Another thread drops the clone, or continues with it.
                            let clone = own.clone();
                            shared.lock().unwrap().push(std::mem::replace(&mut own, clone));
                            drop(take());
                        }
                        drop(own);
                        while let Some(handle) = take() {
                            drop(handle);
                        }
                    });
                }
            });
            assert_eq!(value.retired.load(Ordering::Relaxed) - before, 1);
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use std::sync::atomic::AtomicU64 as PlainU64;

    use loom::thread;

    use super::*;
    use crate::__internals::sync::{AtomicU64, Ordering};

    /// A value that checks the handles of its owners.
    #[derive(Debug, Default)]
    struct Value {
        /// The number of handles, without any effect on loom.
        ///
        /// Loom runs one thread at a time, so this is the number at each moment.
        handles: PlainU64,
        /// Increased by each handle before its drop.
        uses: AtomicU64,
        /// The number of uses, without any effect on loom.
        plain_uses: PlainU64,
        owner: AtomicU64,
        /// How often the value was retired.
        ///
        /// Written with Release, and read with Acquire: they stand for the lock of the pool.
        retired: AtomicU64,
    }

    static POOL: Pool<Value> = Pool::new();

    impl PoolItem for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            assert_eq!(self.handles.load(Ordering::Relaxed), 0, "the value has a handle");
            // The writes of all handles must be visible here.
            let uses = self.uses.load(Ordering::Relaxed);
            assert_eq!(uses, self.plain_uses.load(Ordering::Relaxed), "a use is not visible");
            self.retired.fetch_add(1, Ordering::Release);
        }
    }

    /// A handle that keeps the plain number of handles.
    struct Handle(Option<PoolHandle<Value>>);

    impl Handle {
        fn new(handle: PoolHandle<Value>) -> Self {
            handle.handles.fetch_add(1, Ordering::Relaxed);
            Self(Some(handle))
        }

        fn root(&self) -> Self {
            Self::new(self.get().root())
        }

        /// Returns a handle that the thread with this number has cloned.
        fn clone_as(&self, slot: usize) -> Self {
            let node = self.get().node;
            Self::new(PoolHandle { node, tally: node.usage.handles.add_as(slot) })
        }

        fn get(&self) -> &PoolHandle<Value> {
            self.0.as_ref().unwrap()
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            let handle = self.0.take().unwrap();
            handle.plain_uses.fetch_add(1, Ordering::Relaxed);
            handle.uses.fetch_add(1, Ordering::Relaxed);
            handle.handles.fetch_sub(1, Ordering::Relaxed);
        }
    }

    // Loom's atomics belong to one run of a model, so each run creates its own value.
    fn first() -> (&'static Node<Value>, Handle) {
        let node = Node::new(Value::default(), HandleCount::with_threads(2));
        (node, Handle::new(PoolHandle::first(node)))
    }

    fn retired(node: &Node<Value>) -> u64 {
        node.value.retired.load(Ordering::Acquire)
    }

    #[test]
    fn loom_pool_last_root_and_last_clone_retire_once() {
        loom::model(|| {
            let (node, root) = first();
            let clone = root.clone_as(0);
            let thread = thread::spawn(move || drop(clone));
            drop(root);
            thread.join().unwrap();
            assert_eq!(retired(node), 1);
        });
    }

    #[test]
    fn loom_pool_clone_dropped_on_another_thread_retires_once() {
        loom::model(|| {
            let (node, root) = first();
            let clone = root.clone_as(0);
            let thread = thread::spawn(move || {
                let next = clone.clone_as(1);
                drop(clone);
                drop(next);
            });
            drop(root);
            thread.join().unwrap();
            assert_eq!(retired(node), 1);
        });
    }

    #[test]
    fn loom_pool_root_of_clone_retires_once() {
        loom::model(|| {
            let (node, root) = first();
            let clone = root.clone_as(0);
            let thread = thread::spawn(move || {
                let next = clone.root();
                drop(clone);
                drop(next);
            });
            drop(root);
            thread.join().unwrap();
            assert_eq!(retired(node), 1);
        });
    }

    /// The drop on the other thread may continue only after the value has its next owner.
    #[test]
    fn loom_pool_late_drop_does_not_retire_next_owner() {
        loom::model(|| {
            let (node, root) = first();
            let clone = root.clone_as(0);
            let thread = thread::spawn(move || drop(clone));
            drop(root);
            let is_reused = retired(node) == 1;
            if is_reused {
                let next = Handle::new(PoolHandle::first(node));
                let clone = next.clone_as(1);
                drop(next);
                assert_eq!(retired(node), 1, "the value is in use");
                drop(clone);
            }
            thread.join().unwrap();
            assert_eq!(retired(node), if is_reused { 2 } else { 1 });
        });
    }

    #[test]
    fn loom_weak_handle_is_never_a_handle_of_the_next_owner() {
        loom::model(|| {
            let (node, root) = first();
            root.get().owner.store(1, Ordering::Relaxed);
            let weak = root.get().downgrade();
            let clone = root.clone_as(0);
            drop(root);
            let thread = thread::spawn(move || {
                if let Some(handle) = weak.upgrade().map(Handle::new) {
                    assert_eq!(handle.get().owner.load(Ordering::Relaxed), 1);
                    assert_eq!(retired(node), 0, "the value is in use");
                }
            });
            drop(clone);
            let is_reused = retired(node) == 1;
            if is_reused {
                let next = Handle::new(PoolHandle::first(node));
                next.get().owner.store(2, Ordering::Relaxed);
                thread.join().unwrap();
                drop(next);
            } else {
                thread.join().unwrap();
            }
            assert_eq!(retired(node), if is_reused { 2 } else { 1 });
        });
    }
}
