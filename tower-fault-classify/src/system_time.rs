//! The only place in this crate where the wall clock is read: for a date in a response that does not say when it was sent.

#![expect(clippy::disallowed_methods, reason = "this is the place where the wall clock is read")]

use std::time::SystemTime;

/// What time it is, as far as this machine knows.
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
