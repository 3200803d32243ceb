//! The settings that every call keeps, and the storage of the limits.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderName;

use super::callbacks::{Condition, Observer};
use super::decide::Limits;
use crate::budget::RetryBudget;

/// The settings that a call keeps of its policy, which it may outlive.
///
/// The limits of most policies are `'static`: they are stored once for all policies with equal
/// limits, and never freed. A call then copies a reference. A copy of the limits themselves would
/// make each future larger, and with a reference count, the calls of all threads would write to one
/// cache line.
#[derive(Clone, Debug)]
pub(crate) enum CallConfig {
    Static(&'static Limits),
    /// Each call counts one reference. The policy has cold settings, or the storage is full.
    Counted(Arc<CountedConfig>),
}

#[derive(Debug)]
pub(crate) struct CountedConfig {
    limits: Limits,
    cold: ColdConfig,
}

/// The settings that few policies use.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColdConfig {
    pub(crate) budget: Option<Arc<dyn RetryBudget>>,
    pub(crate) observer: Option<Observer>,
    pub(crate) condition: Option<Condition>,
    pub(crate) header: Option<HeaderName>,
}

impl ColdConfig {
    /// Returns whether no setting is used.
    const fn is_empty(&self) -> bool {
        let Self { budget, observer, condition, header } = self;
        budget.is_none() && observer.is_none() && condition.is_none() && header.is_none()
    }
}

impl CallConfig {
    pub(super) fn new(limits: Limits, cold: ColdConfig) -> Self {
        static STORAGE: Storage = Storage::new();

        let stored = if cold.is_empty() { STORAGE.get(&limits) } else { None };
        stored.map_or_else(|| Self::Counted(Arc::new(CountedConfig { limits, cold })), Self::Static)
    }

    /// Returns these limits with other cold settings.
    pub(super) fn with_cold(&self, cold: ColdConfig) -> Self {
        Self::new(*self.limits(), cold)
    }

    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        match self {
            Self::Static(limits) => limits,
            Self::Counted(config) => &config.limits,
        }
    }

    /// Returns the cold settings, or `None` if no setting is used.
    #[inline]
    pub(crate) fn cold(&self) -> Option<&ColdConfig> {
        match self {
            Self::Static(_) => None,
            Self::Counted(config) => Some(&config.cold),
        }
    }
}

/// Limits that are never freed, each of them once.
struct Storage(Mutex<Vec<&'static Limits>>);

impl Storage {
    /// The number of limits that are stored at most, which bounds the memory to about 100 KB. A
    /// program that builds policies with more distinct limits counts references for the rest.
    const CAPACITY: usize = 1_000;

    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the stored limits that are equal to `limits`. `None`: the storage is full.
    fn get(&self, limits: &Limits) -> Option<&'static Limits> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = all.iter().find(|stored| **stored == limits) {
            return Some(*stored);
        }
        if all.len() == Self::CAPACITY {
            return None;
        }
        let stored: &'static Limits = Box::leak(Box::new(*limits));
        all.push(stored);
        Some(stored)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::ptr;

    use super::*;
    use crate::policy::RetryPolicy;

    #[test]
    fn limits_storage_is_bounded_and_stores_equal_limits_once() {
        let storage = Storage::new();
        let limits = *RetryPolicy::default().config.limits();
        let numbered = |max_retry_after| Limits { max_retry_after, ..limits };
        let stored: Vec<_> = (0..1_000).map(|number| storage.get(&numbered(number)).unwrap()).collect();
        assert!(storage.get(&numbered(1_000)).is_none(), "the storage is full");
        for (number, stored) in (0..).zip(stored) {
            assert_eq!(*stored, numbered(number));
            assert!(ptr::eq(storage.get(&numbered(number)).unwrap(), stored), "{number}");
        }
    }

    #[test]
    fn counted_config_has_the_limits_of_its_policy() {
        let policy = RetryPolicy::builder().max_attempts(7).on_retry(|_| ()).build().unwrap();
        let plain = RetryPolicy::builder().max_attempts(7).build().unwrap();
        assert!(matches!((&policy.config, &plain.config), (CallConfig::Counted(_), CallConfig::Static(_))));
        assert_eq!(policy.config.limits(), plain.config.limits());
        assert!(policy.config.cold().is_some() && plain.config.cold().is_none());
    }
}
