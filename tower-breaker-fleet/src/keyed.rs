//! Circuits by key in a fleet.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tower_breaker::ConfigError;
use tower_breaker::keyed::KeyedCircuits;

use crate::agent::{KeyText, key_name};
use crate::error::FleetError;
use crate::fleet::Fleet;
use crate::quorum::Quorum;

const MAX_KEYS: RangeInclusive<usize> = 1..=100_000;

/// How circuits by key are shared: see [`Fleet::share_keyed`].
///
/// | setting | default | range | meaning |
/// |---|---|---|---|
/// | [`quorum`](Self::quorum) | [`Quorum::at_least(3)`](Quorum::at_least) | share 0 | how many processes open the circuit of a key |
/// | [`max_keys`](Self::max_keys) | 1,000 | 1 to 100,000 | how many keys of this process take part at most |
///
/// The settings should be the same in all processes.
pub struct KeyedSharing<K> {
    text: KeyText<K>,
    quorum: Quorum,
    max_keys: usize,
}

impl<K: fmt::Display + 'static> KeyedSharing<K> {
    /// Identifies a key in the fleet by its `Display` text.
    ///
    /// The text must be the same in all processes and releases. Keys with the same text are one
    /// circuit in the fleet. If the text does not identify the key, use
    /// [`with_text`](Self::with_text). The `Debug` text, which is the key's label in logs and
    /// metrics, is not used: it may change and need not be unique.
    pub fn new() -> Self {
        Self::with_text(K::to_string)
    }
}

impl<K> KeyedSharing<K> {
    /// Identifies a key in the fleet by the closure's return value: see [`new`](Self::new).
    ///
    /// The closure should be quick. It is called on the thread of a call, for example for the first
    /// failure of a key, and by the agent, for each key. If it panics, the key does not take part.
    pub fn with_text(text: impl Fn(&K) -> String + Send + Sync + 'static) -> Self {
        Self { text: Arc::new(text), quorum: Quorum::at_least(3), max_keys: 1_000 }
    }

    /// Sets how many processes must vote to open the circuit of a key. Default:
    /// [`Quorum::at_least(3)`](Quorum::at_least).
    ///
    /// The [share](Quorum::share) must be 0, because a process reports only keys with trouble: the
    /// store does not know how many processes use a key without trouble. With fewer processes than
    /// votes, the fleet opens no key.
    #[must_use]
    pub fn quorum(self, quorum: Quorum) -> Self {
        Self { quorum, ..self }
    }

    /// Sets how many keys of this process take part at most. Default: 1,000.
    ///
    /// If more keys have trouble, keys without a failure for a heartbeat leave first. Further keys
    /// decide for themselves until there is room. A `WARN` event says so once (feature `tracing`).
    /// Allowed: 1 to 100,000.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        Self { max_keys, ..self }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.quorum.validate()?;
        if !self.quorum.is_absolute() {
            let allowed = "0, because the members of a key are not counted";
            return Err(ConfigError::new("quorum.share", self.quorum.least_share(), allowed));
        }
        ConfigError::check("max_keys", self.max_keys, MAX_KEYS)?;
        Ok(())
    }
}

impl<K: fmt::Display + 'static> Default for KeyedSharing<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Clone for KeyedSharing<K> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), ..*self }
    }
}

impl<K> fmt::Debug for KeyedSharing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedSharing")
            .field("quorum", &self.quorum)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

/// Circuits by key (feature `keyed`).
impl Fleet {
    /// Shares circuits by key with the processes that share circuits by key of the same name.
    ///
    /// Only keys with trouble take part, so thousands of keys without trouble cost no message:
    ///
    /// - A key joins with a failure that its circuit counts, when its circuit opens or half-opens,
    ///   or when the fleet opens or forces it.
    /// - A key leaves when its circuit has been closed, and without a failure, for a membership
    ///   lifetime (2.5 heartbeats), and the fleet's circuit is closed and not forced.
    ///
    /// The circuit of a key that the fleet has opened or forced rejects calls here, too. If this
    /// process has no circuit for the key yet, the decision applies to the new circuit before its
    /// first call. Up to [`max_keys`](KeyedSharing::max_keys) such decisions are kept.
    /// [`ready`](Self::ready) also waits until the store's decisions are loaded: up to 4,096 records
    /// of a map, which include closed circuits of the last hour.
    ///
    /// ```
    /// use tower_breaker::BreakerConfig;
    /// use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
    /// use tower_breaker_fleet::{Fleet, KeyedSharing, MemoryStore};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let each = BreakerConfig::builder().name("tenants").build()?;
    /// let circuits: KeyedCircuits<String> = KeyedCircuits::new(KeyedConfig::builder(each).build()?);
    ///
    /// let (fleet, agent) = Fleet::builder(MemoryStore::new()).namespace("shop").build()?;
    /// fleet.share_keyed(&circuits, KeyedSharing::new())?;
    /// # drop(agent);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Differences to circuits without a key
    ///
    /// - The [quorum](KeyedSharing::quorum) is a number of processes, and no share of them.
    /// - Metrics have no label for keys: `tower_breaker_fleet_keys` counts the keys that take part,
    ///   and probes are counted with the name of the circuits.
    /// - The open time of a key that only this process has opened is restored after a restart when
    ///   the key fails again, not before its first call.
    /// - The circuit of a key can be evicted while it takes part. If the fleet has not closed it
    ///   then, the key's next circuit follows the fleet.
    /// - The [overflow](KeyedCircuits::overflow) circuit does not take part.
    ///
    /// [`key_name`](Self::key_name) is the name of a key for [`operate`](Self::operate),
    /// [`circuit_status`](Self::circuit_status) and [`list`](Self::list). A key whose name is longer
    /// than 256 bytes does not take part.
    ///
    /// The fleet does not keep the circuits alive.
    ///
    /// # Errors
    ///
    /// - This process shares circuits by key with this name already.
    /// - A setting is out of its range, or the quorum has a share.
    /// - The name of the circuits is longer than 255 bytes.
    /// - The agent does not run any more.
    pub fn share_keyed<K: Send + Sync + 'static>(
        &self,
        circuits: &KeyedCircuits<K>,
        sharing: KeyedSharing<K>,
    ) -> Result<(), FleetError> {
        sharing.validate()?;
        let KeyedSharing { text, quorum, max_keys } = sharing;
        self.shared.share_keyed(circuits, &text, quorum, max_keys)
    }

    /// Returns the name in the fleet of a key of the circuits with the name `circuits`.
    ///
    /// It is `CIRCUITS/KEY`, with the [text](KeyedSharing::new) of the key. In the name of the
    /// circuits, `%` and `/` are written as `%25` and `%2F`; in the text, `%` and each byte of a
    /// control character as `%` and two hexadecimal digits. An empty text is written as `%`. So
    /// different keys have different names.
    ///
    /// ```
    /// # use tower_breaker_fleet::Fleet;
    /// assert_eq!(Fleet::key_name("tenants", "acme"), "tenants/acme");
    /// assert_eq!(Fleet::key_name("tenants", 7), "tenants/7");
    /// ```
    pub fn key_name(circuits: &str, key: impl fmt::Display) -> String {
        key_name(circuits, &key.to_string())
    }

    /// Returns the name in the fleet of a key of the circuits with the name `circuits`, with the
    /// text that [`share_keyed`](Self::share_keyed) was given.
    ///
    /// `None`: this process does not share circuits with this name and this type of key, the text
    /// panicked, or the name is longer than 256 bytes.
    pub fn shared_key_name<K: 'static>(&self, circuits: &str, key: &K) -> Option<String> {
        self.shared.key_name(circuits, key)
    }
}

#[cfg(test)]
mod tests {
    use tower_breaker::BreakerConfig;
    use tower_breaker::keyed::KeyedConfig;

    use super::*;
    use crate::MemoryStore;

    fn error(sharing: KeyedSharing<u64>) -> String {
        let each = BreakerConfig::builder().name("tenants").build().unwrap();
        let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
        let (fleet, _agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
        fleet.share_keyed(&circuits, sharing).unwrap_err().to_string()
    }

    #[test]
    fn setting_of_keys_out_of_range_is_an_error() {
        let share = "`quorum.share` is 0.5; allowed is 0, because the members of a key are not counted";
        assert_eq!(error(KeyedSharing::new().quorum(Quorum::majority())), share);
        assert!(error(KeyedSharing::new().quorum(Quorum::at_least(0))).starts_with("`quorum.at_least` is 0"));
        assert_eq!(error(KeyedSharing::new().max_keys(0)), "`max_keys` is 0; allowed is 1 to 100000");
    }

    #[test]
    fn shared_key_name_uses_text_of_sharing() {
        let each = BreakerConfig::builder().name("tenants").build().unwrap();
        let circuits = KeyedCircuits::<u64>::new(KeyedConfig::builder(each).build().unwrap());
        let (fleet, _agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
        assert_eq!(fleet.shared_key_name("tenants", &7_u64), None, "not shared yet");
        let sharing = KeyedSharing::with_text(|key: &u64| match key {
            0 => panic!("no text"),
            1 => "x".repeat(256),
            key => format!("t{key}"),
        });
        fleet.share_keyed(&circuits, sharing).unwrap();
        assert_eq!(fleet.shared_key_name("tenants", &7_u64).as_deref(), Some("tenants/t7"));
        assert_eq!(fleet.shared_key_name("tenants", &7_u32), None, "another type");
        assert_eq!(fleet.shared_key_name("others", &7_u64), None);
        assert_eq!(fleet.shared_key_name("tenants", &0_u64), None, "the text panicked");
        assert_eq!(fleet.shared_key_name("tenants", &1_u64), None, "too long");
        drop(circuits);
        assert_eq!(fleet.shared_key_name("tenants", &7_u64), None, "the circuits have ended");
    }

    #[test]
    fn circuits_of_the_same_name_are_shared_once() {
        let each = BreakerConfig::builder().name("tenants").build().unwrap();
        let config = KeyedConfig::builder(each).build().unwrap();
        let (first, second) = (KeyedCircuits::<u64>::new(config.clone()), KeyedCircuits::<u64>::new(config));
        let (fleet, _agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
        fleet.share_keyed(&first, KeyedSharing::new()).unwrap();
        let error = fleet.share_keyed(&second, KeyedSharing::new()).unwrap_err();
        assert!(matches!(error, FleetError::Shared { ref circuit, .. } if circuit == "tenants"), "{error}");
        drop(first);
        fleet.share_keyed(&second, KeyedSharing::new()).unwrap();
    }
}
