//! The settings of keyed circuits in a file.

#[cfg(feature = "schemars")]
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::serde::ser::SerializeMap;
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "schemars")]
use tower_fault_classify::__internals::settings::TableSchema;
use tower_fault_classify::__internals::settings::{
    Changes, Choice, Integer, Invalid, Keyed as ByKey, Nested, OrNone, Overrides, Presets, Table, Visit,
    read_table,
};

use super::breaker::Breaker;
#[cfg(feature = "schemars")]
use crate::config::DEFAULT_NAME;
use crate::config::{
    BreakerConfig, BreakerConfigBuilder, KEY_LABELS, KeyedConfig, KeyedConfigBuilder, MAX_KEYS, Overflow,
    of_key,
};

const OVERFLOWS: Choice<Overflow> = Choice(&[
    (Overflow::Unguarded.as_str(), Overflow::Unguarded),
    (Overflow::Shared.as_str(), Overflow::Shared),
]);

/// The table of a keyed configuration.
struct Keyed;

/// The table of a configuration of circuits by key, which have a time window.
struct ByTime;

impl Table for ByTime {
    type Builder = BreakerConfigBuilder;
    type Value = BreakerConfig;

    fn allowed(&self) -> String {
        Breaker.allowed()
    }

    fn start(&self) -> BreakerConfigBuilder {
        Breaker.start()
    }

    fn presets(&self) -> Presets<BreakerConfigBuilder> {
        Breaker.presets()
    }

    fn exclusive(&self) -> &'static [[&'static str; 2]] {
        Breaker.exclusive()
    }

    fn forbidden(&self) -> &'static [&'static str] {
        &["count_window"]
    }

    fn visit(&self, to: &mut impl Visit<BreakerConfigBuilder>) {
        Breaker.visit(to);
    }

    fn build(&self, builder: BreakerConfigBuilder) -> Result<BreakerConfig, Invalid> {
        Breaker.build(builder)
    }
}

/// The settings of a file. Those of the circuits are applied last.
struct KeyedSettings {
    builder: KeyedConfigBuilder,
    each: Changes<BreakerConfigBuilder>,
    keys: Vec<(String, Changes<BreakerConfigBuilder>)>,
}

impl KeyedSettings {
    fn map(self, set: impl FnOnce(KeyedConfigBuilder) -> KeyedConfigBuilder) -> Self {
        Self { builder: set(self.builder), ..self }
    }
}

impl Table for Keyed {
    type Builder = KeyedSettings;
    type Value = KeyedConfig;

    fn allowed(&self) -> String {
        "a table with the settings of keyed circuits".to_owned()
    }

    fn start(&self) -> KeyedSettings {
        let builder = KeyedConfig::builder(BreakerConfig::default());
        KeyedSettings { builder, each: Changes::default(), keys: Vec::new() }
    }

    fn visit(&self, to: &mut impl Visit<KeyedSettings>) {
        to.setting(
            "max_keys",
            "largest number of circuits that are kept",
            Integer(MAX_KEYS),
            |settings, keys| settings.map(|builder| builder.max_keys(keys)),
        );
        to.setting(
            "overflow",
            "if no circuit can be evicted: the call is sent without a circuit, or through one circuit that these keys share",
            OVERFLOWS,
            |settings, overflow| settings.map(|builder| builder.overflow(overflow)),
        );
        to.setting(
            "key_label",
            "how many keys get a label of their own in the metrics at most: see [keys as labels](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/observability.md#keys-as-labels)",
            OrNone(Integer(KEY_LABELS)),
            |settings, keys| settings.map(|builder| builder.key_label(keys)),
        );
        to.setting(
            "each",
            "the settings of every circuit. A `count_window` is an error",
            Overrides(ByTime),
            |settings, each| KeyedSettings { each, ..settings },
        );
        to.setting(
            "keys",
            "the settings of single keys, by the label of the key: each changes the settings in `each`. With a `preset`, it changes the settings of the preset instead; the name stays",
            ByKey(Overrides(ByTime)),
            |settings, keys| KeyedSettings { keys, ..settings },
        );
    }

    fn build(&self, settings: KeyedSettings) -> Result<KeyedConfig, Invalid> {
        let in_each = |error| Invalid::from(error).within("each");
        let each = settings.each.apply(Breaker.start());
        // The ranges of the other settings were checked when they were read.
        let mut config =
            settings.builder.each(each.clone().build().map_err(in_each)?).build().map_err(in_each)?;
        for (label, changes) in settings.keys {
            let in_key = |error| Invalid::from(error).within(&label).within("keys");
            // The builder of `each` records which values the file contains.
            // `BreakerConfig::to_builder` would derive a written value again if it equals its
            // default.
            let own = changes.apply(each.clone()).build().map_err(in_key)?;
            let own = of_key(own, &config.each).map_err(in_key)?;
            config.keys.insert(label.into(), own);
        }
        Ok(config)
    }
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for KeyedConfig {
    fn schema_name() -> Cow<'static, str> {
        "KeyedConfig".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "tower_breaker::keyed::KeyedConfig".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let defaults = Self::builder(BreakerConfig::default().named(DEFAULT_NAME)).build();
        TableSchema::new(&Keyed, "The settings of circuits by key.")
            .with_defaults(&defaults.unwrap_or_default())
            .into()
    }
}

/// Reads a configuration from a file; see [`KeyedConfig`](KeyedConfig#configuration-files).
impl<'de> Deserialize<'de> for KeyedConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_table(Nested(Keyed), from)
    }
}

/// The configurations of keys, as a table.
struct ByLabel<'a>(&'a BTreeMap<Arc<str>, BreakerConfig>);

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(label, config)| (&**label, config)))
    }
}

/// Writes all settings, so that reading them again gives the same configuration.
impl Serialize for KeyedConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Destructured, so that a new setting does not compile until it is written.
        let Self { each, max_keys, overflow, key_label, keys } = self;
        let mut table = to.serialize_map(None)?;
        table.serialize_entry("max_keys", max_keys)?;
        table.serialize_entry("overflow", overflow.as_str())?;
        table.serialize_entry("key_label", &OrNone(*key_label))?;
        table.serialize_entry("each", each)?;
        table.serialize_entry("keys", &ByLabel(keys))?;
        table.end()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn from_json(text: &str) -> Result<KeyedConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn keyed_file_builds_same_configuration_as_code() {
        assert_eq!(from_json("{}"), Ok(KeyedConfig::default()));
        let each = BreakerConfig::builder().name("hosts").failure_rate(0.8).build().unwrap();
        let built =
            KeyedConfig::builder(each).max_keys(500).overflow(Overflow::Shared).key_label(9).build().unwrap();
        let read = toml::from_str(
            "max_keys = 500\noverflow = \"shared\"\nkey_label = 9\n[each]\nname = \"hosts\"\nfailure_rate = 0.8\n",
        );
        assert_eq!(read.as_ref(), Ok(&built));
        assert_eq!(from_json(&serde_json::to_string(&built).unwrap()).as_ref(), Ok(&built));
        assert_eq!(toml::from_str(&toml::to_string(&built).unwrap()).as_ref(), Ok(&built));
    }

    #[test]
    fn keyed_file_settings_of_key_change_settings_of_each() {
        let file = r#"
            [each]
            name = "hosts"
            consecutive_failures = 9
            probes = 3

            [keys."a.example"]
            probes = 5

            # The preset replaces the settings in `each`, and these settings change the preset.
            [keys.b]
            preset = "single_flight"
            open_for = "9s"
        "#;
        let read: KeyedConfig = toml::from_str(file).unwrap();
        let a = read.each().to_builder().probes(5).build().unwrap();
        let b = BreakerConfig::single_flight().name("hosts").open_for(Duration::from_secs(9));
        let b = b.build().unwrap();
        assert_eq!((b.consecutive_failures(), b.probes()), (5, 1));
        assert_eq!(read.keys().collect::<Vec<_>>(), [("a.example", &a), ("b", &b)]);
        assert_eq!(from_json(&serde_json::to_string(&read).unwrap()).as_ref(), Ok(&read));
        assert_eq!(toml::from_str(&toml::to_string(&read).unwrap()).as_ref(), Ok(&read));
    }

    #[test]
    fn keyed_file_key_keeps_written_values_that_equal_defaults() {
        let read = |each: &str| {
            let file = format!("[each]\n{each}\n[keys.a]\nopen_for = '10s'\nconsecutive_failures = 1");
            let read: KeyedConfig = toml::from_str(&file).unwrap();
            let own = read.keys().next().unwrap().1;
            assert_eq!(toml::from_str(&toml::to_string(&read).unwrap()).as_ref(), Ok(&read));
            [own.probe_lease(), own.consecutive_failures_span()].map(|time| time.as_secs())
        };
        assert_eq!(read("probe_lease = '3s'\nconsecutive_failures_span = '1s'"), [3, 1]);
        assert_eq!(read(""), [10, 0], "the defaults of the key depend on its own values");
    }

    #[test]
    fn keyed_file_can_use_preset_for_each_circuit() {
        let read = from_json(r#"{"each": {"preset": "single_flight"}}"#).unwrap();
        assert_eq!(*read.each(), BreakerConfig::single_flight().build().unwrap());
    }

    #[test]
    fn keyed_file_error_names_table_and_field() {
        for (file, expected) in [
            (r#"{"max_keys": 0}"#, "`max_keys` is 0; allowed is 1 to 100000000"),
            (r#"{"overflow": "open"}"#, "`overflow` is \"open\"; allowed is \"unguarded\" or \"shared\""),
            (r#"{"each": 5}"#, "`each` is 5; allowed is a table with the settings of a circuit breaker"),
            (r#"{"each": {"probes": 0}}"#, "`each.probes` is 0; allowed is 1 to 10000"),
            (r#"{"each": {"probe": 1}}"#, "unknown field `each.probe`; allowed is `preset`, `name`,"),
            (
                r#"{"each": {"open_backoff": {"multiplier": 2, "max": "1s"}}}"#,
                "`each.open_backoff` is 1s; allowed is 3s to 31536000s, because `open_for` is 3s",
            ),
            (
                r#"{"each": {"count_window": 5}}"#,
                "`each.count_window` is 5; allowed is none: circuits by key need a `time_window`",
            ),
            (
                r#"{"key": 5}"#,
                "unknown field `key`; allowed is `max_keys`, `overflow`, `key_label`, `each` or `keys`",
            ),
            (r#"{"keys": {"a": {"probes": 0}}}"#, "`keys.a.probes` is 0; allowed is 1 to 10000"),
            (
                r#"{"keys": {"a": {"count_window": 5}}}"#,
                "`keys.a.count_window` is 5; allowed is none: circuits by key need a `time_window`",
            ),
            (
                r#"{"keys": {"a.b": {"c.d": 0}}}"#,
                "unknown field `keys.\"a.b\".\"c.d\"`; allowed is `preset`,",
            ),
            (r#"{"keys": {"a.b": {}, "a.b": {}}}"#, "field `keys.\"a.b\"` appears twice; remove one of them"),
            (
                r#"{"each": {"name": "hosts"}, "keys": {"a": {"name": "other"}}}"#,
                "`keys.a.name` is \"other\"; allowed is \"hosts\", the name of all keys",
            ),
        ] {
            let error = from_json(file).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
        }
    }
}
