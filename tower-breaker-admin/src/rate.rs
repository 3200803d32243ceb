//! How many requests a user may send.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{StatusCode, header};
use tokio::time::Instant;

use crate::auth::User;
use crate::problem::{Problem, cut};

/// How many users are known at most, and the longest name of each, in bytes.
const MAX_USERS: usize = 1024;
const MAX_NAME_BYTES: usize = 200;

/// The limit of a rate.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// A user may send one request in this time, on average.
    interval: Duration,
    /// How many requests a user may send at once.
    burst: u32,
}

/// The rate of the requests of each user, by name. `None`: all without a valid credential.
#[derive(Debug)]
pub(crate) struct Rates {
    limit: Limit,
    users: Mutex<HashMap<Option<String>, Rate>>,
}

#[derive(Debug)]
struct Rate {
    /// When the user may send a whole burst again.
    full_at: Instant,
    /// Whether a request was refused since the last one that was admitted.
    has_refused: bool,
}

/// Whether a request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    Refused {
        retry_after: Duration,
        /// The previous request of the user was admitted.
        is_first: bool,
    },
}

impl Rates {
    /// The rate of actions: 10 per second, 20 at once.
    pub(crate) fn of_actions() -> Self {
        Self::new(Duration::from_millis(100), 20)
    }

    /// The rate of reads: 100 per second, 1,000 at once, for pages that load at the same time.
    pub(crate) fn of_reads() -> Self {
        Self::new(Duration::from_millis(10), 1000)
    }

    fn new(interval: Duration, burst: u32) -> Self {
        Self { limit: Limit { interval, burst }, users: Mutex::default() }
    }

    /// Counts a request of a user.
    pub(crate) fn admit(&self, user: Option<&str>, now: Instant) -> Admission {
        let Limit { interval, burst } = self.limit;
        let user = user.map(|name| cut(name.to_owned(), MAX_NAME_BYTES));
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= MAX_USERS && !users.contains_key(&user) {
            users.retain(|_, rate| rate.full_at > now);
            if users.len() >= MAX_USERS {
                return Admission::Refused { retry_after: interval * burst, is_first: false };
            }
        }
        let rate = users.entry(user).or_insert(Rate { full_at: now, has_refused: false });
        let full_at = rate.full_at.max(now) + interval;
        let too_early = full_at.saturating_duration_since(now + interval * burst);
        if too_early.is_zero() {
            *rate = Rate { full_at, has_refused: false };
            return Admission::Admitted;
        }
        let is_first = !std::mem::replace(&mut rate.has_refused, true);
        Admission::Refused { retry_after: too_early, is_first }
    }
}

/// Returns the error of a request above the rate. `what` is what the user has sent.
pub(crate) fn too_many(user: &User, what: &str, retry_after: Duration) -> Problem {
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    let detail = format_args!("`{}` has sent too many {what}; retry after {seconds} s", user.name());
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).with_header(header::RETRY_AFTER, seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_has_a_burst_and_then_ten_attempts_per_second() {
        let (rates, start) = (Rates::of_actions(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..20 {
            assert_eq!(rates.admit(Some("anna"), at(0)), Admission::Admitted);
        }
        let retry_after = Duration::from_millis(100);
        assert_eq!(rates.admit(Some("anna"), at(0)), Admission::Refused { retry_after, is_first: true });
        let retry_after = Duration::from_millis(40);
        assert_eq!(rates.admit(Some("anna"), at(60)), Admission::Refused { retry_after, is_first: false });
        assert_eq!(rates.admit(Some("ben"), at(60)), Admission::Admitted, "each user has a rate");
        assert_eq!(rates.admit(Some("anna"), at(100)), Admission::Admitted);
        let refused = rates.admit(Some("anna"), at(100));
        assert!(matches!(refused, Admission::Refused { is_first: true, .. }), "{refused:?}");
        for attempt in 0..20 {
            assert_eq!(rates.admit(Some("anna"), at(2200)), Admission::Admitted, "{attempt}");
        }
        assert_ne!(rates.admit(Some("anna"), at(2200)), Admission::Admitted);
    }

    #[test]
    fn number_of_users_is_bounded() {
        let (rates, start) = (Rates::of_actions(), Instant::now());
        for user in 0..MAX_USERS {
            assert_eq!(rates.admit(Some(&user.to_string()), start), Admission::Admitted);
        }
        assert!(matches!(rates.admit(Some("one more"), start), Admission::Refused { .. }));
        assert_eq!(rates.admit(Some("0"), start), Admission::Admitted, "a known user");
        assert_eq!(rates.admit(Some("one more"), start + Duration::from_millis(100)), Admission::Admitted);
        assert_eq!(rates.users.lock().unwrap().len(), 2, "users without recent attempts are removed");
    }
}
