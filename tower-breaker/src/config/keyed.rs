//! The configuration of keyed circuits.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tower_fault_classify::__internals::ConfigError;

use super::BreakerConfig;
use crate::machine::WindowShape;

/// The allowed values of `max_keys`.
pub(crate) const MAX_KEYS: RangeInclusive<usize> = 1..=100_000_000;

/// The allowed values of `key_label`.
pub(crate) const KEY_LABELS: RangeInclusive<usize> = 1..=100_000;

/// The configuration of keyed circuits: the limits of each circuit, and how many are kept.
///
/// | setting | default | range | meaning |
/// |---|---|---|---|
/// | [`each`](Self::builder) | `BreakerConfig::default()` | time windows only | the configuration of every circuit |
/// | [`max_keys`](KeyedConfigBuilder::max_keys) | 10,000 | 1 to 100,000,000 | circuits that are kept at most |
/// | [`overflow`](KeyedConfigBuilder::overflow) | [`Overflow::Unguarded`] | | how a call with a new key is handled when the map is full |
/// | [`key`](KeyedConfigBuilder::key) | none | as `each` | the configuration of one key, instead of `each` |
/// | [`key_label`](KeyedConfigBuilder::key_label) | none | 1 to 100,000, or none | keys that get their own label in the metrics at most |
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
///
/// # Configuration files
///
/// With the feature `serde`, a configuration can be read from a file and written to a file. The
/// table `each` has the settings of a [`BreakerConfig`](BreakerConfig#configuration-files). A table
/// in `keys` changes these settings for one key. With a `preset`, it changes the settings of the
/// preset instead.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// # use tower_breaker::keyed::KeyedConfig;
/// let file = r#"
///     max_keys = 500
///     overflow = "shared"
///
///     [each]
///     name = "upstreams"
///     failure_rate = 0.8
///
///     [keys.search]
///     consecutive_failures = 20
/// "#;
/// let config: KeyedConfig = toml::from_str(file)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KeyedConfig {
    pub(crate) each: BreakerConfig,
    pub(crate) max_keys: usize,
    pub(crate) overflow: Overflow,
    pub(crate) key_label: Option<usize>,
    /// The configurations of keys, by the keys' labels. Each has the name and clock of `each`.
    pub(crate) keys: BTreeMap<Arc<str>, BreakerConfig>,
}

/// What happens to a call with a new key when the map is full and no circuit can be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The call is sent without a circuit. The default.
    ///
    /// No key's calls are rejected because of the failures of another key.
    #[default]
    Unguarded,
    /// The call uses one circuit that all such keys share.
    Shared,
}

impl Overflow {
    /// Returns the name in `snake_case`, as in configuration files.
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
        let Self { each, max_keys, overflow, key_label, keys } = self.clone();
        KeyedConfigBuilder { each, max_keys, overflow, key_label, keys }
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

    /// Returns how many keys get their own label in the metrics at most. `None`: the metrics do not
    /// distinguish keys.
    pub const fn key_label(&self) -> Option<usize> {
        self.key_label
    }

    /// Returns the keys that have a configuration of their own, by label, and these configurations.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &BreakerConfig)> {
        self.keys.iter().map(|(label, config)| (&**label, config))
    }

    /// Returns a builder with the defaults. `each` is the configuration of every circuit.
    pub const fn builder(each: BreakerConfig) -> KeyedConfigBuilder {
        let (max_keys, overflow) = (10_000, Overflow::Unguarded);
        KeyedConfigBuilder { each, max_keys, overflow, key_label: None, keys: BTreeMap::new() }
    }
}

impl Default for KeyedConfig {
    fn default() -> Self {
        let config = Self::builder(BreakerConfig::default()).build();
        // A test checks that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// Builds a [`KeyedConfig`].
///
/// [`KeyedConfig::builder`] returns a builder with the defaults. The table of [`KeyedConfig`] lists
/// the settings with their defaults and ranges. [`build`](Self::build) validates them.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyedConfigBuilder {
    each: BreakerConfig,
    max_keys: usize,
    overflow: Overflow,
    key_label: Option<usize>,
    keys: BTreeMap<Arc<str>, BreakerConfig>,
}

impl KeyedConfigBuilder {
    /// Sets the configuration of every circuit.
    ///
    /// It replaces the configuration that was passed to [`KeyedConfig::builder`].
    pub fn each(mut self, each: BreakerConfig) -> Self {
        self.each = each;
        self
    }

    /// Sets how many circuits are kept at most.
    ///
    /// **Range**: 1 to 100,000,000. **Default**: 10,000.
    ///
    /// # Eviction
    ///
    /// When the map is full, a call with a new key examines the next 16 circuits. It evicts the
    /// circuit with the least information to lose:
    ///
    /// | order | circuit |
    /// |---|---|
    /// | 1 | idle: closed with an empty window, no failure since its last success, and no cancelled call since its last completed call; or open for twice its last open duration; or half-open for as long as its last open duration, or `open_for` if that is longer |
    /// | 2 | closed, with only successes in its window; the circuit with the fewest successes first |
    /// | 3 | closed, with failed, slow or cancelled calls in its window, failures since its last success, or cancelled calls since its last completed call, the last of them more than a tenth of the window ago; the circuit with the fewest first |
    ///
    /// These circuits are never evicted, so that a flood of junk keys cannot make the key of a dead
    /// server look healthy again:
    ///
    /// - a circuit with a call in progress, or with a handle to it;
    /// - an open circuit, until it has been open for twice its last open duration;
    /// - a half-open circuit, until it has been half-open for as long as its last open duration, or
    ///   [`open_for`](crate::BreakerConfigBuilder::open_for) if that is longer;
    /// - a circuit that is forced, until the override ends by itself, and then as long as the
    ///   half-open or closed circuit that it becomes;
    /// - a circuit that is disabled, or open until it is reset;
    /// - a circuit in a slow start by time;
    /// - a circuit in a slow start by successes, until it has admitted no call for the time of a
    ///   [`probe_lease`](crate::BreakerConfigBuilder::probe_lease);
    /// - a circuit with a call that failed, was slow or was cancelled in the current tenth of the
    ///   window or in the tenth before.
    ///
    /// # Floods of new keys
    ///
    /// If none of the 16 circuits can be evicted, [`overflow`](Self::overflow) decides about the
    /// call. Once all circuits have been examined without success, new keys examine none for a
    /// hundredth of the window. A flood of junk keys whose calls fail therefore fills the map for
    /// at most a fifth of the window. After that, new keys get circuits again.
    ///
    /// A flood of keys that each open their circuit, or whose calls hang, fills the map for as long
    /// as the flood lasts. If remote clients choose the keys, do one of these:
    ///
    /// - Keep more circuits than the clients can open in twice the open duration.
    /// - Limit the number of concurrent calls, in a layer below.
    /// - Choose [`Overflow::Shared`].
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets how a call with a new key is handled when no circuit can be evicted.
    ///
    /// **Default**: [`Overflow::Unguarded`].
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds the label `key` to the metrics of the circuits, for at most this number of keys.
    ///
    /// **Range**: 1 to 100,000, or `None`. **Default**: `None`, and the circuits of all keys share
    /// the metrics of their name. Without the feature `metrics`, the setting has no effect.
    ///
    /// The value of the label is the key's `Debug` text, without the surrounding quotes of a
    /// string, as in [`Transition::key`](crate::telemetry::Transition::key). The first keys get
    /// labels of their own. All further keys share the label `(other)`. The overflow circuit has
    /// the label `(overflow)`.
    ///
    /// A key keeps its label after its circuit is evicted, because the series of a recorder last as
    /// long as the program. The limit therefore also limits the number of series, which is about 20
    /// for each key. All maps with the same name share their labels.
    ///
    /// Set it only if you know the keys, such as the names of your servers. Metrics are the wrong
    /// place for keys that remote clients choose: see
    /// [`on_transition`](crate::keyed::KeyedCircuits::on_transition).
    pub fn key_label(mut self, max_labels: impl Into<Option<usize>>) -> Self {
        self.key_label = max_labels.into();
        self
    }

    /// Sets the configuration of one key, instead of that of all keys.
    ///
    /// **Default**: no key has a configuration of its own.
    ///
    /// `label` is the label of the key: its `Debug` text, without the surrounding quotes of a
    /// string, as in [`Status::key`](crate::Status::key). So a configuration needs no type of keys,
    /// and can be read from a file. The number 7 has the label `7`, and the string `acme` the label
    /// `acme`. All keys with this label get the configuration. A second call with the same label
    /// replaces the first one.
    ///
    /// **A label that no key has is no error, and has no effect.** With a derived `Debug`, the
    /// label of a type of your own contains the name of the type: the label of
    /// `Upstream("orders".to_owned())` is `Upstream("orders")`. To make it `orders`, implement
    /// `Debug` as in the example of
    /// [`key_from_extension`](crate::keyed::KeyedBreakerLayer::key_from_extension).
    ///
    /// `config` is complete: it does not contain the values of the other keys. To change single
    /// values, start from their configuration:
    ///
    /// ```
    /// use tower_breaker::BreakerConfig;
    /// use tower_breaker::keyed::KeyedConfig;
    ///
    /// let each = BreakerConfig::builder().name("tenants").consecutive_failures(5).build()?;
    /// let acme = each.to_builder().consecutive_failures(20).build()?;
    /// let config = KeyedConfig::builder(each).key("acme", acme).build()?;
    /// # Ok::<(), tower_breaker::ConfigError>(())
    /// ```
    ///
    /// All circuits have the name and the clock of the other keys' configuration. The name and the
    /// clock of `config` must be the same, or unset.
    pub fn key(mut self, label: impl Into<Arc<str>>, config: BreakerConfig) -> Self {
        self.keys.insert(label.into(), config);
        self
    }

    /// Validates all values and returns the configuration.
    ///
    /// # Errors
    ///
    /// - `max_keys` or `key_label` is out of its range.
    /// - The circuits have a [`count_window`](crate::BreakerConfigBuilder::count_window). Only a
    ///   time window becomes empty by itself, and eviction depends on that.
    /// - The configuration of a [`key`](Self::key) has another name or another clock.
    pub fn build(self) -> Result<KeyedConfig, ConfigError> {
        let Self { each, max_keys, overflow, key_label, keys } = self;
        check_window(&each)?;
        let keys = keys.into_iter().map(|(label, config)| Ok((label, of_key(config, &each)?)));
        let keys = keys.collect::<Result<_, _>>()?;
        ConfigError::check("max_keys", max_keys, MAX_KEYS)?;
        if let Some(labels) = key_label {
            ConfigError::check("key_label", labels, KEY_LABELS)?;
        }
        Ok(KeyedConfig { each, max_keys, overflow, key_label, keys })
    }
}

/// Returns the configuration of a key, with the name and clock of `each`.
pub(crate) fn of_key(config: BreakerConfig, each: &BreakerConfig) -> Result<BreakerConfig, ConfigError> {
    check_window(&config)?;
    let name = each.name();
    if let Some(other) = config.name.filter(|other| *other != name) {
        return Err(ConfigError::new("name", other, format!("{name:?}, the name of all keys")));
    }
    let own = each.clock.unwrap_or_default();
    if let Some(clock) = config.clock.filter(|clock| *clock != own) {
        return Err(ConfigError::new("clock", clock, format!("{own:?}, the clock of all keys")));
    }
    Ok(BreakerConfig { name: each.name, clock: each.clock, ..config })
}

fn check_window(config: &BreakerConfig) -> Result<(), ConfigError> {
    match config.window {
        WindowShape::Time(_) => Ok(()),
        WindowShape::Count(calls) => {
            Err(ConfigError::new("count_window", calls, "none: circuits by key need a `time_window`"))
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::__internals::Clock;

    use super::*;

    #[test]
    fn build_error_names_max_keys_and_count_window() {
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
    fn key_configuration_has_name_and_clock_of_all_keys() {
        let (clock, _time) = Clock::manual();
        let each = BreakerConfig::builder().name("tenants").clock(clock).build().unwrap();
        let build = |config: crate::BreakerConfigBuilder| {
            KeyedConfig::builder(each.clone()).key("a", config.build().unwrap()).build()
        };
        let other = || BreakerConfig::builder().consecutive_failures(9);
        for same in [other(), other().name("tenants"), other().clock(clock)] {
            let config = build(same).unwrap();
            let expected =
                BreakerConfig { name: Some("tenants"), clock: Some(clock), ..other().build().unwrap() };
            assert_eq!(config.keys().collect::<Vec<_>>(), [("a", &expected)]);
            assert_eq!(config.to_builder().build().unwrap(), config);
        }
        let field = |config| build(config).unwrap_err().field();
        assert_eq!(field(other().name("other")), "name");
        assert_eq!(field(other().clock(Clock::precise())), "clock");
        assert_eq!(field(other().count_window(10)), "count_window");
    }

    #[test]
    fn to_builder_and_getters_keep_values() {
        let each = BreakerConfig::builder().name("tenants").build().unwrap();
        let config =
            KeyedConfig::builder(each.clone()).max_keys(7).overflow(Overflow::Shared).build().unwrap();
        assert_eq!((config.each(), config.max_keys(), config.overflow()), (&each, 7, Overflow::Shared));
        assert_eq!(config.to_builder().build().unwrap(), config);
        let other = config.to_builder().each(BreakerConfig::default()).build().unwrap();
        assert_eq!((other.each(), other.max_keys()), (&BreakerConfig::default(), 7));
        assert_eq!(config.keys().count(), 0);
        let more = config.to_builder().max_keys(8).build().unwrap();
        assert_eq!((more.max_keys(), more.overflow()), (8, Overflow::Shared));
    }
}
