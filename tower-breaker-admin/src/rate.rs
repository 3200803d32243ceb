//! How many actions a user may attempt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A user may attempt one action in this time, on average.
const INTERVAL: Duration = Duration::from_millis(100);

/// How many actions a user may attempt at once.
const BURST: u32 = 20;

/// How many users are known at most.
const MAX_USERS: usize = 1024;

/// The rate of the attempts of each user, by name.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Rate>>);

#[derive(Debug)]
struct Rate {
    /// When the user may attempt [`BURST`] actions at once again.
    full_at: Instant,
    /// Whether an attempt was refused since the last one that was admitted.
    has_refused: bool,
}

/// Whether an attempt is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    Refused {
        retry_after: Duration,
        /// The previous attempt of the user was admitted.
        is_first: bool,
    },
}

impl Rates {
    /// Counts an attempt of a user.
    pub(crate) fn admit(&self, user: &str, now: Instant) -> Admission {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= MAX_USERS && !rates.contains_key(user) {
            rates.retain(|_, rate| rate.full_at > now);
            if rates.len() >= MAX_USERS {
                return Admission::Refused { retry_after: INTERVAL * BURST, is_first: false };
            }
        }
        let rate = rates.entry(user.to_owned()).or_insert(Rate { full_at: now, has_refused: false });
        let full_at = rate.full_at.max(now) + INTERVAL;
        let too_early = full_at.saturating_duration_since(now + INTERVAL * BURST);
        if too_early.is_zero() {
            *rate = Rate { full_at, has_refused: false };
            return Admission::Admitted;
        }
        let is_first = !std::mem::replace(&mut rate.has_refused, true);
        Admission::Refused { retry_after: too_early, is_first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_has_a_burst_and_then_ten_attempts_per_second() {
        let (rates, start) = (Rates::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..20 {
            assert_eq!(rates.admit("anna", at(0)), Admission::Admitted);
        }
        let retry_after = Duration::from_millis(100);
        assert_eq!(rates.admit("anna", at(0)), Admission::Refused { retry_after, is_first: true });
        let retry_after = Duration::from_millis(40);
        assert_eq!(rates.admit("anna", at(60)), Admission::Refused { retry_after, is_first: false });
        assert_eq!(rates.admit("ben", at(60)), Admission::Admitted, "each user has a rate");
        assert_eq!(rates.admit("anna", at(100)), Admission::Admitted);
        let refused = rates.admit("anna", at(100));
        assert!(matches!(refused, Admission::Refused { is_first: true, .. }), "{refused:?}");
        for attempt in 0..20 {
            assert_eq!(rates.admit("anna", at(2200)), Admission::Admitted, "{attempt}");
        }
        assert_ne!(rates.admit("anna", at(2200)), Admission::Admitted);
    }

    #[test]
    fn number_of_users_is_bounded() {
        let (rates, start) = (Rates::default(), Instant::now());
        for user in 0..MAX_USERS {
            assert_eq!(rates.admit(&user.to_string(), start), Admission::Admitted);
        }
        assert!(matches!(rates.admit("one more", start), Admission::Refused { .. }));
        assert_eq!(rates.admit("0", start), Admission::Admitted, "a known user");
        assert_eq!(rates.admit("one more", start + INTERVAL), Admission::Admitted);
        assert_eq!(rates.0.lock().unwrap().len(), 2, "users without recent attempts are removed");
    }
}
