//! What the server does at which time: a pure function of the time and of the request's number.

use std::time::Duration;

use tokio::time::Instant;

/// A part of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The server answers every request.
    Healthy,
    /// The server answers no request.
    Outage,
    /// Requests fail in bursts.
    Shaky,
    /// The server answers every request again.
    Healed,
}

/// What the server does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Answers with 200.
    Answer,
    /// Answers with 503, and with `Retry-After` if a number of seconds is given.
    Unavailable { retry_after: Option<u64> },
    /// Resets the connection.
    Reset,
    /// Never answers.
    Hang,
}

/// The phases in order, with their durations. They are whole seconds because the progress is shown
/// once a second.
pub(crate) const PHASES: [(Phase, Duration); 4] = [
    (Phase::Healthy, Duration::from_secs(2)),
    (Phase::Outage, Duration::from_secs(3)),
    (Phase::Shaky, Duration::from_secs(4)),
    (Phase::Healed, Duration::from_secs(2)),
];

/// In the shaky phase, the server repeats a cycle: it answers, then it fails for the rest of the
/// cycle, like a service whose instances restart. A burst of failures is longer than three
/// immediate attempts, so retries without a delay do not help.
const SHAKY_CYCLE: Duration = Duration::from_millis(100);

/// The first part of a cycle, in which the server answers.
const SHAKY_ANSWERING: Duration = Duration::from_millis(70);

impl Phase {
    /// Returns the name of the phase.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Outage => "outage",
            Self::Shaky => "shaky",
            Self::Healed => "healed",
        }
    }

    /// Returns what the server does in the phase.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Healthy => "it answers every request",
            Self::Outage => "503 with Retry-After, connection resets, requests that hang",
            Self::Shaky => "it fails for 30 ms in every 100 ms",
            Self::Healed => "it answers every request again",
        }
    }
}

/// The script with its start time. Both servers follow the same script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    start: Instant,
}

impl Script {
    /// Creates a script that starts at `start`.
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start }
    }

    /// Returns when the script starts.
    pub(crate) const fn start(self) -> Instant {
        self.start
    }

    /// Returns when the script ends.
    pub(crate) fn end(self) -> Instant {
        self.end_of(Phase::Healed)
    }

    /// Returns when a phase ends.
    pub(crate) fn end_of(self, phase: Phase) -> Instant {
        let mut end = self.start;
        for (other, duration) in PHASES {
            end += duration;
            if other == phase {
                break;
            }
        }
        end
    }

    /// Returns the phase at a time. The last phase has no end here, so that late requests are
    /// answered.
    pub(crate) fn phase(self, now: Instant) -> Phase {
        let mut phases = PHASES.iter().map(|(phase, _)| *phase);
        phases.find(|phase| now < self.end_of(*phase)).unwrap_or(Phase::Healed)
    }

    /// Returns what the server does with a request that arrives now. `number` counts the requests
    /// of the phase.
    pub(crate) fn action(self, now: Instant, number: u64) -> Action {
        match self.phase(now) {
            Phase::Healthy | Phase::Healed => Action::Answer,
            Phase::Outage => match number % 3 {
                0 => Action::Unavailable { retry_after: self.seconds_until_recovery(now) },
                1 => Action::Reset,
                _ => Action::Hang,
            },
            Phase::Shaky if self.is_answering(now) => Action::Answer,
            Phase::Shaky => match number % 2 {
                0 => Action::Unavailable { retry_after: None },
                _ => Action::Reset,
            },
        }
    }

    /// Returns the whole seconds until the outage ends, or `None` for less than a second.
    ///
    /// It rounds down, so that a client that waits for this time is not late.
    fn seconds_until_recovery(self, now: Instant) -> Option<u64> {
        let seconds = (self.end_of(Phase::Outage) - now).as_secs();
        (seconds > 0).then_some(seconds)
    }

    /// Returns whether the shaky server answers at this time.
    fn is_answering(self, now: Instant) -> bool {
        let since_outage = now - self.end_of(Phase::Outage);
        since_outage.as_nanos() % SHAKY_CYCLE.as_nanos() < SHAKY_ANSWERING.as_nanos()
    }
}
