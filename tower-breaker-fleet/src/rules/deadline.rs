//! A deadline that a clock step cannot prolong.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest time that a store keeps, in milliseconds: ten years. Longer times are cut.
pub(crate) const LONGEST: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Returns a duration in whole milliseconds, rounded up, so that a short time is not zero.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).map_or(LONGEST, |whole| whole.min(LONGEST))
}

/// A point in time, and how long before it the time began, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deadline {
    at: u64,
    length: u64,
}

impl Deadline {
    pub(super) fn after(now: u64, length: Duration) -> Self {
        let length = milliseconds(length);
        Self { at: now.saturating_add(length), length }
    }

    pub(super) fn at(self) -> u64 {
        self.at
    }

    pub(super) fn is_over(self, now: u64) -> bool {
        self.at <= now
    }

    /// Returns whether the deadline has been over for as long as its time was.
    pub(super) fn is_over_for_its_length(self, now: u64) -> bool {
        self.at.saturating_add(self.length) <= now
    }

    pub(super) fn remaining(self, now: u64) -> Duration {
        Duration::from_millis(self.at.saturating_sub(now))
    }

    /// Moves a deadline that is more than its length ahead: the clock has stepped back.
    ///
    /// The length is limited, too: the data may come from an edited file.
    pub(super) fn correct(&mut self, now: u64) {
        self.length = self.length.min(LONGEST);
        self.at = self.at.min(now.saturating_add(self.length));
    }

    /// Returns the deadline that is later.
    pub(super) fn later(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }
}
