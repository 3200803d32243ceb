//! A policy that can be replaced while it is in use.
//!
//! Each layer and each service has a copy of the policy ([`CachedPolicy`]). A call compares the
//! copy's version with the current version, which is one relaxed load. Only a copy that is out of
//! date takes the lock.

use std::mem;

use tower_fault_classify::__internals::sync::{Arc, AtomicU64, Ordering, RwLock, read, write};

use super::config::RetryPolicy;
use crate::budget::Budget;

/// A handle to the policy of running services, which can replace the policy.
///
/// A [`JitterRetryLayer`](crate::JitterRetryLayer), its clones and all their services share one
/// handle. Use [`JitterRetryLayer::with_handle`](crate::JitterRetryLayer::with_handle) to share it
/// between several layers.
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};
///
/// let layer = JitterRetryLayer::new(RetryPolicy::default());
/// let handle = layer.handle();
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<http::Request<String>, _>(&service);
///
/// // Later, for example when the configuration file has changed:
/// handle.reconfigure(RetryPolicy::builder().max_attempts(2).build()?);
/// assert_eq!(handle.policy().max_attempts(), Some(2));
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
///
/// # Closures
///
/// [`policy`](Self::policy) returns the current policy. Call it before each use:
///
/// ```
/// use tower_jitter_retry::{PolicyHandle, RetryPolicy};
///
/// # async fn load(page: u32) -> std::io::Result<u32> { Ok(page) }
/// async fn load_page(handle: &PolicyHandle, page: u32) -> std::io::Result<u32> {
///     handle.policy().retry(async || load(page).await).await
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # assert_eq!(load_page(&PolicyHandle::new(RetryPolicy::default()), 7).await?, 7);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicyHandle(Arc<Versioned<RetryPolicy>>);

impl PolicyHandle {
    /// Creates a handle to a policy.
    pub fn new(policy: RetryPolicy) -> Self {
        Self(Arc::new(Versioned::new(policy)))
    }

    /// Returns the current policy.
    ///
    /// It takes a lock that readers share, and copies the policy.
    pub fn policy(&self) -> RetryPolicy {
        self.0.read().0
    }

    /// Replaces the policy while it is in use.
    ///
    /// Calls that begin afterwards use the new policy. A call in progress keeps the policy with
    /// which it began.
    ///
    /// | part of the new policy | effect |
    /// |---|---|
    /// | a budget of its own, with the [settings](Budget::settings) of the current one, such as from a file | the current budget stays, with its tokens or its counts |
    /// | a budget that was given to [`budget`](crate::RetryPolicyBuilder::budget) and has other handles, so that policies can share it | replaces the current budget |
    /// | a budget with other settings, a custom budget, or none | replaces the current budget |
    /// | the seed of the current policy | the sequence of random numbers continues |
    /// | another seed, or none | a new sequence |
    /// | no [`clock`](crate::RetryPolicyBuilder::clock) of its own, such as a policy from a file | the current clock stays |
    /// | no [`on_retry`](crate::RetryPolicyBuilder::on_retry), such as a policy from a file | the current function stays |
    /// | no [`retry_while`](crate::RetryPolicyBuilder::retry_while), such as a policy from a file | the current condition stays |
    /// | every other setting | replaces the current one |
    ///
    /// [`JitterRetryLayer::remove_marker`](crate::JitterRetryLayer::remove_marker) is a setting of
    /// the layer, and stays.
    ///
    /// A budget that is replaced lives as long as its last handle: see
    /// [`Budget`](Budget#lifetime). To share a budget with other policies, give it to each new
    /// policy again: `loaded.to_builder().budget(shared)`.
    ///
    /// # Cost
    ///
    /// A call compares two numbers. The first call of a service after the policy was replaced, and
    /// each clone of a service that was not called since, takes a lock that readers share.
    pub fn reconfigure(&self, policy: RetryPolicy) {
        let replaced = self.0.replace(|current| policy.replacing(current));
        // Outside of the lock, because a custom budget and a callback are user code.
        drop(replaced);
    }
}

impl From<RetryPolicy> for PolicyHandle {
    fn from(policy: RetryPolicy) -> Self {
        Self::new(policy)
    }
}

impl RetryPolicy {
    /// Returns this policy with the state of `current`, and with the parts that only code can set.
    fn replacing(mut self, current: &Self) -> Self {
        if !self.has_own_clock {
            self.clock = current.clock;
            self.has_own_clock = current.has_own_clock;
        }
        if self.seed() == current.seed() {
            self.seeds.clone_from(&current.seeds);
        }
        let settings = |policy: &Self| policy.budget().and_then(Budget::settings);
        let shared = self.has_given_budget && self.budget().is_some_and(Budget::is_shared);
        if !shared && settings(&self).is_some() && settings(&self) == settings(current) {
            self.budget.clone_from(&current.budget);
            self.has_given_budget = current.has_given_budget;
            self.budget_ref = current.budget_ref;
        }
        if let Some(current) = current.config.cold() {
            let mut cold = self.config.cold().cloned().unwrap_or_default();
            cold.observer = cold.observer.or_else(|| current.observer.clone());
            cold.condition = cold.condition.or_else(|| current.condition.clone());
            self.config = self.config.with_cold(cold);
        }
        self
    }
}

/// A copy of the current policy, for a layer or a service.
#[derive(Debug)]
pub(crate) struct CachedPolicy {
    handle: PolicyHandle,
    version: u64,
    policy: RetryPolicy,
    /// Whether the layer removes marks, in addition to the policy.
    remove_marker: bool,
}

impl CachedPolicy {
    pub(crate) fn new(handle: PolicyHandle) -> Self {
        Self::read(handle, false)
    }

    fn read(handle: PolicyHandle, remove_marker: bool) -> Self {
        let (mut policy, version) = handle.0.read();
        policy.remove_marker |= remove_marker;
        Self { handle, version, policy, remove_marker }
    }

    pub(crate) fn remove_marker(self) -> Self {
        Self::read(self.handle, true)
    }

    pub(crate) fn handle(&self) -> PolicyHandle {
        self.handle.clone()
    }

    /// Returns the policy for a call that begins.
    #[inline]
    pub(crate) fn current(&mut self) -> &RetryPolicy {
        if !self.is_current() {
            self.refresh();
        }
        &self.policy
    }

    /// Returns the policy of the last call that began.
    #[cfg(feature = "tower-retry")]
    pub(crate) const fn last(&self) -> &RetryPolicy {
        &self.policy
    }

    #[inline]
    fn is_current(&self) -> bool {
        self.handle.0.is_current(self.version)
    }

    #[cold]
    fn refresh(&mut self) {
        *self = Self::read(self.handle(), self.remove_marker);
    }
}

/// A clone is up to date, so that the clones of a service that is never called do not each refresh
/// an old copy.
impl Clone for CachedPolicy {
    fn clone(&self) -> Self {
        let Self { version, remove_marker, .. } = *self;
        if self.is_current() {
            Self { handle: self.handle(), version, policy: self.policy.clone(), remove_marker }
        } else {
            Self::read(self.handle(), remove_marker)
        }
    }
}

/// A value with a version, which counts the replacements.
///
/// The version changes only under the write lock. A thread that sees a new version and then takes
/// the read lock therefore reads the value of that version or of a later one: had its read lock
/// come first, its load would precede the change. So the load needs no ordering of its own.
#[derive(Debug)]
struct Versioned<T> {
    version: AtomicU64,
    current: RwLock<T>,
}

impl<T: Clone> Versioned<T> {
    fn new(value: T) -> Self {
        Self { version: AtomicU64::new(0), current: RwLock::new(value) }
    }

    /// Returns the current value and its version.
    fn read(&self) -> (T, u64) {
        let current = read(&self.current);
        // Relaxed: the lock orders it.
        (current.clone(), self.version.load(Ordering::Relaxed))
    }

    #[inline]
    fn is_current(&self, version: u64) -> bool {
        // Relaxed: see the type.
        self.version.load(Ordering::Relaxed) == version
    }

    /// Replaces the value by a function of the current value. Returns the replaced value.
    fn replace(&self, next: impl FnOnce(&T) -> T) -> T {
        let mut current = write(&self.current);
        let next = next(&current);
        // Relaxed: the lock orders it.
        self.version.fetch_add(1, Ordering::Relaxed);
        mem::replace(&mut *current, next)
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::thread;

    use super::*;

    /// Returns the value of a cached copy, which is read again if it is out of date.
    fn value(shared: &Versioned<u64>, cached: &mut (u64, u64)) -> u64 {
        if !shared.is_current(cached.1) {
            *cached = shared.read();
        }
        cached.0
    }

    #[test]
    fn loom_cached_copy_follows_replacements_in_order() {
        loom::model(|| {
            let shared = Arc::new(Versioned::new(0));
            let writer = Arc::clone(&shared);
            let thread = thread::spawn(move || {
                writer.replace(|value| value + 1);
                writer.replace(|value| value + 1);
            });
            let mut cached = shared.read();
            let (first, second) = (value(&shared, &mut cached), value(&shared, &mut cached));
            assert!(first <= second, "{first} {second}");
            assert_eq!(cached.0, cached.1, "value and version belong together");
            thread.join().unwrap();
            assert_eq!(value(&shared, &mut cached), 2);
        });
    }

    #[test]
    fn loom_no_replacement_is_lost() {
        loom::model(|| {
            let shared = Arc::new(Versioned::new(0));
            let other = Arc::clone(&shared);
            let thread = thread::spawn(move || drop(other.replace(|value| value + 1)));
            shared.replace(|value| value + 1);
            thread.join().unwrap();
            assert_eq!(shared.read(), (2, 2));
        });
    }
}
