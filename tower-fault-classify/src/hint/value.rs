//! What a hint says.

use std::time::Duration;

/// The longest delay that a hint is taken to mean: 365 days. A longer one is cut to it.
///
/// It only keeps arithmetic on delays safe. What a layer is willing to wait is that layer's own, much lower, cap.
pub const MAX_HINT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint<T> {
    /// The header is not there.
    Absent,
    /// It is there and makes no sense.
    Invalid,
    /// It says this.
    Value(T),
}

impl<T> Hint<T> {
    /// What the header says, if it says anything.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// What a header that is there says.
    pub(super) fn of(read: Option<T>) -> Self {
        read.map_or(Self::Invalid, Self::Value)
    }
}

/// Of several hints the longest delay, so that nobody who asked for time is hurried. The garbled do not count beside it.
pub(super) fn longest(hints: impl Iterator<Item = Hint<Duration>>) -> Hint<Duration> {
    hints.fold(Hint::Absent, |longest, hint| match (longest, hint) {
        (Hint::Value(one), Hint::Value(other)) => Hint::Value(one.max(other)),
        (Hint::Value(delay), _) | (_, Hint::Value(delay)) => Hint::Value(delay),
        (Hint::Invalid, _) | (_, Hint::Invalid) => Hint::Invalid,
        (Hint::Absent, Hint::Absent) => Hint::Absent,
    })
}
