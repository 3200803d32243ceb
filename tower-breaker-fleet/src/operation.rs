//! Manual operations in the whole fleet.

use std::time::Duration;

use tower_breaker::ConfigError;

use crate::store::Action;

/// A manual operation, for [`Fleet::operate`](crate::Fleet::operate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FleetAction {
    /// Opens the circuit. Not applied under a manual override.
    Trip,
    /// Closes the circuit. Not applied under a manual override.
    Reset,
    /// Rejects all calls until the override is released or its time is over.
    ForceOpen,
    /// Admits all calls until the override is released or its time is over.
    ForceClosed,
    /// Ends the override. After [`ForceOpen`](Self::ForceOpen) probes come first.
    Release,
}

impl FleetAction {
    /// Returns the name in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::Reset => "reset",
            Self::ForceOpen => "force_open",
            Self::ForceClosed => "force_closed",
            Self::Release => "release",
        }
    }

    pub(crate) const fn action(self) -> Action {
        match self {
            Self::Trip => Action::Trip,
            Self::Reset => Action::Reset,
            Self::ForceOpen => Action::ForceOpen,
            Self::ForceClosed => Action::ForceClosed,
            Self::Release => Action::Release,
        }
    }
}

/// The durations that an operation accepts.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);

/// A manual operation with its operator, its reason and its conditions.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker_fleet::{FleetAction, FleetOperation};
///
/// let operation = FleetOperation::new(FleetAction::ForceOpen)
///     .by("anna")
///     .reason("the provider asked us to stop")
///     .keep_for(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetOperation {
    pub(crate) action: FleetAction,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) expected_epoch: Option<u64>,
    pub(crate) open_for: Option<Duration>,
    pub(crate) keep_for: Option<Duration>,
}

impl FleetOperation {
    /// Creates an operation without an operator, reason or condition.
    pub fn new(action: FleetAction) -> Self {
        Self {
            action,
            by: String::new(),
            reason: String::new(),
            expected_epoch: None,
            open_for: None,
            keep_for: None,
        }
    }

    /// Sets the operator. The store keeps up to 200 bytes. Default: empty.
    pub fn by(self, by: impl Into<String>) -> Self {
        Self { by: by.into(), ..self }
    }

    /// Sets the reason. The store keeps up to 200 bytes. Default: empty.
    pub fn reason(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// Applies the operation only in this [epoch](crate::CircuitRecord::epoch). Default: any epoch.
    pub fn expected_epoch(self, epoch: u64) -> Self {
        Self { expected_epoch: Some(epoch), ..self }
    }

    /// Sets how long the circuit stays open after [`FleetAction::Trip`]: 1 ms to 365 days. With
    /// another action, the operation is an error.
    ///
    /// Each process keeps it open at most for [`max_open`](crate::FleetBuilder::max_open).
    /// Default: the next open time of the circuit, if this process shares it, or else 3 s.
    pub fn open_for(self, open_for: Duration) -> Self {
        Self { open_for: Some(open_for), ..self }
    }

    /// Sets how long an override stays in force: 1 ms to 365 days. Default: until it is released.
    /// With an action that sets no override, the operation is an error.
    ///
    /// After [`FleetAction::ForceOpen`], a process without a reply of the store rejects calls for
    /// one [takeover time](crate::FleetBuilder::takeover) longer, because probes of the fleet come
    /// first. The status of its circuit includes the takeover time.
    pub fn keep_for(self, keep_for: Duration) -> Self {
        Self { keep_for: Some(keep_for), ..self }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let is_override = matches!(self.action, FleetAction::ForceOpen | FleetAction::ForceClosed);
        self.check_duration("open_for", self.open_for, self.action == FleetAction::Trip)?;
        self.check_duration("keep_for", self.keep_for, is_override)
    }

    fn check_duration(
        &self,
        field: &'static str,
        duration: Option<Duration>,
        has_effect: bool,
    ) -> Result<(), ConfigError> {
        let Some(duration) = duration else { return Ok(()) };
        if !has_effect {
            let error = ConfigError::new(field, duration, "no value");
            return Err(error.because("action", self.action.as_str()));
        }
        ConfigError::check(field, duration, DURATIONS).map(drop)
    }
}
