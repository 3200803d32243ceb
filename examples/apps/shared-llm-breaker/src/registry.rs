//! The breakers of this process, one for each name.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::breaker::CircuitBreaker;
use crate::error::{ResetError, SetupError};
use crate::settings::BreakerSettings;

static BREAKERS: Mutex<BTreeMap<String, CircuitBreaker>> = Mutex::new(BTreeMap::new());

/// Returns the breaker with this name, and creates it if it does not exist or was closed.
///
/// It waits for the store at most for [`ready_within`](BreakerSettings::ready_within), so that a
/// worker that has restarted begins with the state of the other workers.
///
/// # Errors
///
/// Returns an error if the address, the name or a setting is invalid, and if the breaker exists
/// with another address or other settings. A store that does not answer is no error.
pub async fn get_circuit_breaker(
    redis_url: &str,
    name: &str,
    settings: BreakerSettings,
) -> Result<CircuitBreaker, SetupError> {
    let breaker = get_or_start(redis_url, name, settings)?;
    breaker.ready().await;
    Ok(breaker)
}

/// Resets, closes and forgets all breakers of this process.
///
/// # Errors
///
/// Returns the first error of a reset. All breakers are closed and forgotten in any case.
pub async fn reset_all_breakers() -> Result<(), ResetError> {
    let all = std::mem::take(&mut *breakers());
    let mut result = Ok(());
    for breaker in all.into_values() {
        result = result.and(breaker.reset().await);
        breaker.close().await;
    }
    result
}

fn get_or_start(
    redis_url: &str,
    name: &str,
    settings: BreakerSettings,
) -> Result<CircuitBreaker, SetupError> {
    let mut breakers = breakers();
    match breakers.get(name).filter(|breaker| !breaker.is_closed()) {
        Some(breaker) if breaker.is_same(redis_url, &settings) => Ok(breaker.clone()),
        Some(_) => Err(SetupError::Exists { breaker_name: name.to_owned() }),
        None => {
            let breaker = CircuitBreaker::start(redis_url, name, settings)?;
            breakers.insert(name.to_owned(), breaker.clone());
            Ok(breaker)
        }
    }
}

fn breakers() -> MutexGuard<'static, BTreeMap<String, CircuitBreaker>> {
    // No code panics between two changes, so the map is valid even if the lock is poisoned.
    BREAKERS.lock().unwrap_or_else(PoisonError::into_inner)
}
