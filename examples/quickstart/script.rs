//! What the upstream does, and when: a pure function of the time and the number of the request.

use std::time::Duration;

use tokio::time::Instant;

/// A part of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Every request is answered.
    Healthy,
    /// No request is answered.
    Outage,
    /// Requests fail in bursts.
    Shaky,
    /// Every request is answered again.
    Healed,
}

/// What is done with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// 200.
    Answer,
    /// 503, with `Retry-After` in seconds if the upstream knows when it will be back.
    Unavailable(Option<u64>),
    /// The connection is reset.
    Reset,
    /// No answer ever comes.
    Hang,
}

/// The phases in their order, and how long each lasts: whole seconds, for what is shown is shown
/// once a second.
pub(crate) const PHASES: [(Phase, Duration); 4] = [
    (Phase::Healthy, Duration::from_secs(2)),
    (Phase::Outage, Duration::from_secs(3)),
    (Phase::Shaky, Duration::from_secs(4)),
    (Phase::Healed, Duration::from_secs(2)),
];

/// A shaky upstream answers for the first [`WELL`] of every such span and fails for the rest, as
/// one does whose instances still restart. Failures that come together are what a retry without a
/// delay cannot get past.
const SPAN: Duration = Duration::from_millis(100);

/// How long a shaky upstream answers at a time.
const WELL: Duration = Duration::from_millis(70);

impl Phase {
    /// The phase's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Outage => "outage",
            Self::Shaky => "shaky",
            Self::Healed => "healed",
        }
    }

    /// What happens in it.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Healthy => "every request is answered",
            Self::Outage => "503 with Retry-After, connections reset, answers that hang",
            Self::Shaky => "three tenths of the time it fails, in bursts",
            Self::Healed => "every request is answered again",
        }
    }
}

/// The script with the moment at which it began. Both upstreams play the same one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    start: Instant,
}

impl Script {
    /// Begins at `start`.
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start }
    }

    /// When it begins.
    pub(crate) const fn start(self) -> Instant {
        self.start
    }

    /// When a phase ends.
    pub(crate) fn end_of(self, phase: Phase) -> Instant {
        let before = PHASES.iter().take_while(|(other, _)| *other != phase);
        let own = PHASES.iter().filter(|(other, _)| *other == phase);
        self.start + before.chain(own).map(|(_, time)| *time).sum::<Duration>()
    }

    /// The phase at a time; the last one goes on for ever.
    pub(crate) fn phase(self, now: Instant) -> Phase {
        let mut phases = PHASES.iter().map(|(phase, _)| *phase);
        phases.find(|phase| now < self.end_of(*phase)).unwrap_or(Phase::Healed)
    }

    /// What is done with a request that comes now, of this number in its phase.
    pub(crate) fn deed(self, now: Instant, number: u64) -> Deed {
        match self.phase(now) {
            Phase::Healthy | Phase::Healed => Deed::Answer,
            Phase::Outage => match number % 3 {
                // Rounded down, so that who keeps to it is not late. Of less than a second nothing
                // can be said.
                0 => {
                    let seconds = (self.end_of(Phase::Outage) - now).as_secs();
                    Deed::Unavailable((seconds > 0).then_some(seconds))
                }
                1 => Deed::Reset,
                _ => Deed::Hang,
            },
            Phase::Shaky => {
                let into = (now - self.end_of(Phase::Outage)).as_nanos() % SPAN.as_nanos();
                match number % 2 {
                    _ if into < WELL.as_nanos() => Deed::Answer,
                    0 => Deed::Unavailable(None),
                    _ => Deed::Reset,
                }
            }
        }
    }
}
