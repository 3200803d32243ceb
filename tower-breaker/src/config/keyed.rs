//! The configuration of circuits by a key.

use std::ops::RangeInclusive;

use tower_fault_classify::__shared::ConfigError;

use super::BreakerConfig;
use crate::circuit::Shape;

/// How many circuits a layer may keep.
const MAX_KEYS: RangeInclusive<usize> = 1..=100_000_000;

/// When each of many circuits opens and closes, and how many there are.
///
/// | what | default |
/// |---|---|
/// | [`max_keys`](KeyedConfigBuilder::max_keys) | 10,000 circuits are kept |
/// | [`overflow`](KeyedConfigBuilder::overflow) | [`Overflow::Unguarded`] |
///
/// ```
/// use tower_breaker::{BreakerConfig, KeyedConfig, Overflow};
///
/// let default = KeyedConfig::default();
/// let each = BreakerConfig::builder().name("upstreams").build()?;
/// let config = KeyedConfig::builder(each).max_keys(500).overflow(Overflow::Shared).build()?;
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KeyedConfig {
    pub(crate) each: BreakerConfig,
    pub(crate) max_keys: usize,
    pub(crate) overflow: Overflow,
}

/// What becomes of a call by a new key while so many circuits are kept that cannot be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It goes through, and nobody counts it: no key is rejected for what another's calls came to. The default.
    #[default]
    Unguarded,
    /// It goes through one circuit that all such keys share.
    Shared,
}

impl KeyedConfig {
    /// A builder with the defaults; `each` is the configuration of every circuit.
    pub const fn builder(each: BreakerConfig) -> KeyedConfigBuilder {
        KeyedConfigBuilder { each, max_keys: 10_000, overflow: Overflow::Unguarded }
    }
}

impl Default for KeyedConfig {
    fn default() -> Self {
        let config = Self::builder(BreakerConfig::default()).build();
        // A test holds that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// Builds a [`KeyedConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyedConfigBuilder {
    each: BreakerConfig,
    max_keys: usize,
    overflow: Overflow,
}

impl KeyedConfigBuilder {
    /// How many circuits are kept at most, 1 to 100,000,000. One is forgotten for a new key when no call runs through it, nobody holds a handle
    /// to it, no hand has forced it, and it is closed with an empty window, or has been open or half-open for as long again as it had
    /// to. A call looks for one among a few, so that it takes a bounded time, and not again for a tenth of the window once there was none at
    /// all. **Default**: 10,000.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// What becomes of a call by a new key when there is none to forget. **Default**: [`Overflow::Unguarded`].
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// `max_keys` is out of its range, or the circuits have a [`count_window`](crate::BreakerConfigBuilder::count_window): only time
    /// tells that a key is forgotten.
    pub fn build(self) -> Result<KeyedConfig, ConfigError> {
        let Self { each, max_keys, overflow } = self;
        if let Shape::Count(calls) = each.setup.shape {
            return Err(ConfigError::new("count_window", calls, "a `time_window`, of circuits by a key"));
        }
        ConfigError::check("max_keys", max_keys, MAX_KEYS)?;
        Ok(KeyedConfig { each, max_keys, overflow })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let config = || KeyedConfig::builder(BreakerConfig::default());
        for keys in [0, 100_000_001, usize::MAX] {
            let error = config().max_keys(keys).build().unwrap_err();
            assert_eq!(error.to_string(), format!("`max_keys` is {keys}; allowed is 1 to 100000000"));
        }
        let counting = BreakerConfig::builder().count_window(10).build().unwrap();
        let error = KeyedConfig::builder(counting).build().unwrap_err();
        assert_eq!(error.field(), "count_window");
        assert_eq!(config().build().unwrap(), KeyedConfig::default());
    }
}
