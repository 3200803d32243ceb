//! The configuration of circuits by a key.

use std::fmt;
use std::ops::RangeInclusive;

use tower_fault_classify::__internals::ConfigError;

use super::BreakerConfig;
use crate::machine::WindowShape;

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
/// use tower_breaker::keyed::{KeyedConfig, Overflow};
/// use tower_breaker::BreakerConfig;
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

/// What happens to a call with a new key when the map is full and no circuit can be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The call is sent unguarded: no key is rejected for the failures of another. The default.
    #[default]
    Unguarded,
    /// The call goes through one circuit that all such keys share.
    Shared,
}

impl Overflow {
    /// The name in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unguarded => "unguarded",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl KeyedConfig {
    /// Returns a builder with these values.
    pub fn to_builder(&self) -> KeyedConfigBuilder {
        let Self { each, max_keys, overflow } = self.clone();
        KeyedConfigBuilder { each, max_keys, overflow }
    }

    /// Returns the configuration of every circuit.
    pub const fn each(&self) -> &BreakerConfig {
        &self.each
    }

    /// Returns how many circuits are kept at most.
    pub const fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// Returns what happens to a call with a new key when no circuit can be evicted.
    pub const fn overflow(&self) -> Overflow {
        self.overflow
    }

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
    /// Sets how many circuits are kept at most, 1 to 100,000,000.
    ///
    /// When the map is full, a call by a new key looks at the next 16 circuits, and evicts the one
    /// with which the least is lost:
    ///
    /// | order | circuit |
    /// |---|---|
    /// | 1 | idle: closed with an empty window and no failure since its last success, or open or half-open for twice its open duration |
    /// | 2 | closed, with successes only in its window; the one with the fewest first |
    /// | 3 | closed, with failed, slow or cancelled calls in its window, or with failures since its last success, the last of them more than a tenth of the window ago; the one with the fewest first |
    ///
    /// These are never evicted, so that a flood of junk keys cannot make a dead key look healthy
    /// again:
    ///
    /// - a circuit with a call in progress, or to which a handle is held;
    /// - a circuit that is open or half-open, until twice its open duration has passed;
    /// - a circuit that is forced, or open until it is reset;
    /// - a circuit in its slow start;
    /// - a circuit with a call that failed, was slow or was cancelled in this tenth of the window
    ///   or in the one before.
    ///
    /// If none of the 16 can be evicted, the call is subject to [`overflow`](Self::overflow). Once
    /// all circuits have been looked at in vain, new keys do not look again for a hundredth of the
    /// window. So a flood of junk keys that fail fills the map for a fifth of the window at most;
    /// after that, new keys get circuits again.
    ///
    /// A flood of keys that each open their circuit, or whose calls hang, fills the map for as long
    /// as it lasts. If remote clients choose the keys, keep more circuits than they can open in
    /// twice the open duration, limit the calls in progress below the layer, or choose
    /// [`Overflow::Shared`].
    ///
    /// **Default**: 10,000.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets what happens to a call with a new key when no circuit can be evicted. **Default**:
    /// [`Overflow::Unguarded`].
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
        if let WindowShape::Count(calls) = each.window {
            return Err(ConfigError::new(
                "count_window",
                calls,
                "none: circuits by key need a `time_window`",
            ));
        }
        ConfigError::check("max_keys", max_keys, MAX_KEYS)?;
        Ok(KeyedConfig { each, max_keys, overflow })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn max_keys_out_of_range_is_named() {
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

    #[test]
    fn to_builder_and_getters_keep_values() {
        let each = BreakerConfig::builder().name("tenants").build().unwrap();
        let config =
            KeyedConfig::builder(each.clone()).max_keys(7).overflow(Overflow::Shared).build().unwrap();
        assert_eq!((config.each(), config.max_keys(), config.overflow()), (&each, 7, Overflow::Shared));
        assert_eq!(config.to_builder().build().unwrap(), config);
        let more = config.to_builder().max_keys(8).build().unwrap();
        assert_eq!((more.max_keys(), more.overflow()), (8, Overflow::Shared));
    }
}
