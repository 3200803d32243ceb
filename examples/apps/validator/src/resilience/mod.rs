//! Retries around circuits, by the names of external services.
//!
//! Without the cargo feature `resilience`, [`Resilience`] has the same functions for calls. Each
//! call is then sent once, and there are no circuits.

#[cfg(feature = "resilience")]
mod breaker;
#[cfg(feature = "resilience")]
mod circuits;
#[cfg(not(feature = "resilience"))]
mod direct;

use std::num::NonZeroU32;
use std::sync::OnceLock;

use serde::Deserialize;

#[cfg(feature = "resilience")]
pub use self::breaker::CircuitBreaker;
#[cfg(feature = "resilience")]
pub use self::circuits::Resilience;
#[cfg(not(feature = "resilience"))]
pub use self::direct::Resilience;
use crate::timeouts::Seconds;

/// When a circuit opens and closes, and how long the retries wait.
///
/// One successful call closes a half-open circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResilienceSettings {
    /// How many failures in a row open a circuit. **Default**: 5.
    pub fail_max: NonZeroU32,
    /// How long a circuit stays open before it admits a probe. **Default**: 60 s.
    pub reset_timeout: Seconds,
    /// The wait before the first retry. Each further wait is twice as long. **Default**: 1 s.
    pub retry_wait: Seconds,
}

const FAIL_MAX: NonZeroU32 = NonZeroU32::new(5).unwrap();

impl Default for ResilienceSettings {
    fn default() -> Self {
        Self { fail_max: FAIL_MAX, reset_timeout: Seconds::new(60), retry_wait: Seconds::new(1) }
    }
}

static GLOBAL: OnceLock<Resilience> = OnceLock::new();

/// Sets the settings of [`global`], and returns it. Later calls return it unchanged.
pub fn init(settings: &ResilienceSettings) -> Resilience {
    GLOBAL.get_or_init(|| Resilience::new(settings)).clone()
}

/// Returns the circuits of this process. Without [`init`], they have the default settings.
pub fn global() -> Resilience {
    init(&ResilienceSettings::default())
}
