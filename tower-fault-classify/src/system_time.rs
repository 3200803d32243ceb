//! The only place in this crate that reads the wall clock.
//!
//! It is read to convert a date in a response without a `Date` header to a delay.

#![expect(clippy::disallowed_methods, reason = "this is the only place that reads the wall clock")]

use std::time::SystemTime;

/// Returns the current time of this machine's clock.
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
