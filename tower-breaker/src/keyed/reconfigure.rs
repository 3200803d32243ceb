//! New configurations of all circuits, or of one key.
//!
//! The file `core/configs.rs` describes why no circuit misses a new configuration.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tower_fault_classify::__internals::ConfigError;

use super::core::Configs;
use super::map::{KeyedCircuits, OverflowCircuit, OverflowCircuits, label};
use crate::config::{BreakerConfig, KeyedConfig, Overflow, of_key};

impl<K> KeyedCircuits<K> {
    /// Returns the current configuration.
    ///
    /// It contains the changes of [`reconfigure`](Self::reconfigure),
    /// [`configure`](Self::configure) and [`unconfigure`](Self::unconfigure).
    pub fn config(&self) -> KeyedConfig {
        let Configs { each, keys } = self.common().configs().clone();
        let is_shared = self.inner.overflow.is_shared.load(Ordering::Relaxed);
        KeyedConfig {
            each,
            keys,
            max_keys: self.clock_hand().max_keys,
            overflow: if is_shared { Overflow::Shared } else { Overflow::Unguarded },
            key_label: self.common().max_key_labels(),
        }
    }

    /// Replaces the configuration of all circuits while they run.
    ///
    /// Each circuit keeps its state, epoch, deadline and consecutive failures. Acquired permits
    /// stay valid. The table of [`Circuit::reconfigure`](crate::Circuit::reconfigure) shows when each
    /// setting of a circuit applies.
    ///
    /// | setting | applies |
    /// |---|---|
    /// | the configuration of each circuit | to all circuits, and to those that are created later |
    /// | configurations of keys | to the circuits of these keys. A key that is not in `config` loses its configuration, also one of [`configure`](Self::configure) |
    /// | fewer `max_keys` | immediately: circuits are evicted until there are no more than `max_keys`. A circuit that must be kept stays, and each new key then evicts one circuit more |
    /// | `overflow` | the next call with a key for which the map has no space |
    ///
    /// The limits of all circuits change at once, because the circuits share them. Then a loop over
    /// all circuits applies the other settings, so the time grows with the number of circuits. To
    /// enable or disable circuits allocates about 1 KB for each, and notifies the observers of a
    /// transition of each.
    ///
    /// A removed or evicted circuit that is still in use follows the shared limits, but not the
    /// other settings.
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if `config` has another name, another
    /// [clock](crate::BreakerConfigBuilder::clock) or another
    /// [`key_label`](crate::keyed::KeyedConfigBuilder::key_label). These never change. A
    /// configuration without a name or without a clock, such as one from a file, keeps them.
    pub fn reconfigure(&self, config: KeyedConfig) -> Result<(), ConfigError> {
        let KeyedConfig { mut each, mut keys, max_keys, overflow, key_label } = config;
        if let Some(other) = each.name.filter(|other| *other != self.name()) {
            let own = format!("{:?}, the circuits' own", self.name());
            return Err(ConfigError::new("name", other, own));
        }
        let BreakerConfig { name, clock, .. } = self.common().configs().each;
        let own = clock.unwrap_or_default();
        if let Some(other) = each.clock.filter(|other| *other != own) {
            return Err(ConfigError::new("clock", other, format!("{own:?}, the circuits' own")));
        }
        let own = self.common().max_key_labels();
        if key_label != own {
            let own = own.map_or("none".to_owned(), |labels| labels.to_string());
            let allowed = format!("{own}, the circuits' own");
            return Err(match key_label {
                Some(labels) => ConfigError::new("key_label", labels, allowed),
                None => ConfigError::new("key_label", "none", allowed),
            });
        }
        let name = each.name.or(name);
        for config in keys.values_mut().chain([&mut each]) {
            (config.name, config.clock) = (name, clock);
        }
        // The window of a key that gets its first configuration continues the former window of all
        // keys, so it must not see their new window.
        let mut current = self.common().configs();
        let has_new_keys = keys.keys().any(|label| !current.keys.contains_key(label));
        for (label, config) in &keys {
            current.keys.entry(Arc::clone(label)).or_insert_with(|| config.clone());
        }
        drop(current);
        if has_new_keys {
            self.update_all();
        }
        let configs = Configs { each, keys };
        let OverflowCircuits { shared, unguarded, is_shared } = &self.inner.overflow;
        let window = self.common().configs().each.window;
        if window != configs.each.window {
            let of_keys = self.clock_hand().circuits.clone();
            let overflow = [shared, unguarded].map(|overflow| overflow.circuit.get().cloned());
            for core in of_keys.into_iter().chain(overflow.into_iter().flatten()) {
                core.keep_times_of_shared_window();
            }
        }
        shared.common.reconfigure(configs.for_overflow(true));
        unguarded.common.reconfigure(configs.for_overflow(false));
        is_shared.store(overflow == Overflow::Shared, Ordering::Relaxed);
        self.common().reconfigure(configs);
        self.set_max_keys(max_keys);
        for OverflowCircuit { circuit, .. } in [shared, unguarded] {
            if let Some(core) = circuit.get() {
                core.update_config();
            }
        }
        self.update_all();
        Ok(())
    }

    /// Sets the configuration of one key, instead of that of all keys.
    ///
    /// If the key has a circuit, the configuration applies immediately, as with
    /// [`Circuit::reconfigure`](crate::Circuit::reconfigure). It also applies to each circuit that
    /// is created for the key later, until [`unconfigure`](Self::unconfigure) or
    /// [`reconfigure`](Self::reconfigure). It is kept for as long as these circuits, also while the
    /// key has no circuit.
    ///
    /// The configuration belongs to the label of the key, which is its `Debug` text: see
    /// [`KeyedConfigBuilder::key`](crate::keyed::KeyedConfigBuilder::key). **Keys with the same
    /// label share it.** If the `Debug` text of your keys hides the key, all of them have the same
    /// label.
    ///
    /// While at least one key has a configuration, the label of each new key is formatted before
    /// its circuit is created. The time of `configure` itself grows with the number of circuits.
    ///
    /// ```
    /// use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
    ///
    /// let circuits: KeyedCircuits<String> = KeyedCircuits::new(KeyedConfig::default());
    /// let patient = circuits.config().each().to_builder().consecutive_failures(20).build()?;
    /// circuits.configure("acme", patient)?;
    /// # Ok::<(), tower_breaker::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, in these cases:
    ///
    /// - `config` has a [`count_window`](crate::BreakerConfigBuilder::count_window).
    /// - Its name or its clock is set, and is not that of the circuits.
    pub fn configure<Q>(&self, key: &Q, config: BreakerConfig) -> Result<(), ConfigError>
    where
        K: Borrow<Q>,
        Q: fmt::Debug + ?Sized,
    {
        let label: Arc<str> = label(key).into();
        let mut configs = self.common().configs();
        let config = of_key(config, &configs.each)?;
        configs.keys.insert(label, config);
        drop(configs);
        self.update_all();
        Ok(())
    }

    /// Removes the configuration of one key. The configuration of all keys then applies to its
    /// circuit. Returns whether the key had a configuration.
    pub fn unconfigure<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: fmt::Debug + ?Sized,
    {
        let label = label(key);
        let removed = self.common().configs().keys.remove(&*label).is_some();
        if removed {
            self.update_all();
        }
        removed
    }

    /// Applies the current configurations to all circuits.
    fn update_all(&self) {
        let circuits = self.clock_hand().circuits.clone();
        for core in circuits {
            core.update_config();
        }
    }
}
