//! The value of a hint.

use std::time::Duration;

/// The maximum delay of a hint: 365 days. A longer delay is cut to it.
///
/// It only keeps arithmetic on delays safe. Each layer has its own, much lower limit on the time
/// that it waits.
pub const MAX_HINT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The result of parsing a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint<T> {
    /// The header is missing.
    Absent,
    /// The header is present, and malformed.
    Invalid,
    /// The header has this value.
    Value(T),
}

impl<T> Hint<T> {
    /// Returns the value, or `None` if the header is missing or malformed.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// Returns the hint of a header that is present. `None`: it is malformed.
    pub(super) fn of(read: Option<T>) -> Self {
        read.map_or(Self::Invalid, Self::Value)
    }
}

/// Returns the longest delay of several hints, so that the client waits long enough for each of
/// them.
///
/// Malformed hints are ignored if there is a valid one.
pub(super) fn longest(hints: impl Iterator<Item = Hint<Duration>>) -> Hint<Duration> {
    hints.fold(Hint::Absent, |longest, hint| match (longest, hint) {
        (Hint::Value(one), Hint::Value(other)) => Hint::Value(one.max(other)),
        (Hint::Value(delay), _) | (_, Hint::Value(delay)) => Hint::Value(delay),
        (Hint::Invalid, _) | (_, Hint::Invalid) => Hint::Invalid,
        (Hint::Absent, Hint::Absent) => Hint::Absent,
    })
}
