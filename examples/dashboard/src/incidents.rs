//! What goes wrong with the simulated servers, and when.

use std::time::Duration;

use http::StatusCode;

/// The incidents repeat after this time.
pub(crate) const CYCLE: Duration = Duration::from_secs(180);

/// How a simulated server fails during an incident.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incident {
    /// The server refuses connections.
    Outage,
    /// The server answers after several seconds, so the callers' timeout ends the calls.
    Slow,
    /// The server answers a part of the requests with an error.
    Errors { rate: f64, status: StatusCode },
    /// The server is down for 8 s, then up for 12 s, and so on.
    Flapping,
}

/// An incident, and when it happens in each cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) incident: Incident,
    /// When it begins, in seconds from the start of the cycle.
    pub(crate) begins: u64,
    /// When it ends, in seconds from the start of the cycle.
    pub(crate) ends: u64,
}

/// The answer of a simulated server to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) after: Duration,
    /// `None`: the connection is refused.
    pub(crate) status: Option<StatusCode>,
}

impl Schedule {
    /// Whether the incident happens at `time` since the start.
    fn is_active(&self, time: Duration) -> bool {
        let second = time.as_secs() % CYCLE.as_secs();
        (self.begins..self.ends).contains(&second)
    }
}

/// Returns the answer of a server at `time` since the start. `chance` is a random number in 0..1.
pub(crate) fn answer(schedule: Option<&Schedule>, time: Duration, chance: f64) -> Answer {
    let latency = Duration::from_millis(10).mul_f64(0.5 + 3.0 * chance.powi(4));
    let up = Answer { after: latency, status: Some(StatusCode::OK) };
    let down = Answer { status: None, ..up };
    let Some(schedule) = schedule.filter(|schedule| schedule.is_active(time)) else {
        // No server is perfect.
        let status = if chance < 0.01 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        return Answer { status: Some(status), ..up };
    };
    match schedule.incident {
        Incident::Outage => down,
        Incident::Slow => Answer { after: Duration::from_secs(3), ..up },
        Incident::Errors { rate, status } if chance < rate => Answer { status: Some(status), ..up },
        Incident::Flapping if time.as_secs() % 20 < 8 => down,
        Incident::Errors { .. } | Incident::Flapping => up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_at(schedule: &Schedule, second: u64) -> Option<StatusCode> {
        answer(Some(schedule), Duration::from_secs(second), 0.5).status
    }

    #[test]
    fn incident_repeats_in_each_cycle() {
        let outage = Schedule { incident: Incident::Outage, begins: 20, ends: 60 };
        for cycle in [0, CYCLE.as_secs()] {
            assert_eq!(status_at(&outage, cycle + 19), Some(StatusCode::OK));
            assert_eq!(status_at(&outage, cycle + 20), None);
            assert_eq!(status_at(&outage, cycle + 59), None);
            assert_eq!(status_at(&outage, cycle + 60), Some(StatusCode::OK));
        }
    }

    #[test]
    fn errors_have_the_rate_of_the_incident() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let incident = Incident::Errors { rate: 0.3, status };
        let schedule = Schedule { incident, begins: 0, ends: 10 };
        let statuses =
            (0..100).map(|percent| answer(Some(&schedule), Duration::ZERO, f64::from(percent) / 100.0));
        assert_eq!(statuses.filter(|answer| answer.status == Some(status)).count(), 30);
    }
}
