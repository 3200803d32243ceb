//! The last three minutes of each circuit.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use super::changes::letter;
use crate::view::{History, View};

/// The samples of a circuit: three minutes.
const SAMPLES: usize = 180;

/// One second of a circuit.
#[derive(Clone, Copy)]
struct Sample {
    state: char,
    /// In percent. `None`: the window has no calls.
    failure_rate: Option<u8>,
    calls: u64,
}

/// The samples of all circuits.
#[derive(Default)]
pub(super) struct Histories {
    by_circuit: HashMap<&'static str, VecDeque<Sample>>,
    /// `None`: there is no sample.
    ends_at: Option<SystemTime>,
}

impl Histories {
    /// Adds a sample of each circuit, and removes the circuits that have ended. `views` is sorted
    /// by name.
    ///
    /// `missed` is how many samples before this one were not taken. They get the state of the
    /// sample before them, and no calls.
    pub(super) fn add(&mut self, views: &[View], missed: usize, at: SystemTime) {
        self.ends_at = Some(at);
        self.by_circuit.retain(|circuit, _| views.binary_search_by_key(circuit, |view| view.circuit).is_ok());
        for view in views {
            // A keyed circuit as a whole has no state.
            let Some(status) = &view.local else { continue };
            let counts = status.window;
            let sample = Sample {
                state: letter(status.state),
                // A share of 0 to 1.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 100")]
                failure_rate: (counts.calls > 0).then(|| (counts.failure_rate() * 100.0).round() as u8),
                calls: counts.calls,
            };
            let samples = self.by_circuit.entry(view.circuit).or_default();
            if let Some(last) = samples.back().copied() {
                let gap = Sample { failure_rate: None, calls: 0, ..last };
                samples.extend(std::iter::repeat_n(gap, missed.min(SAMPLES)));
            }
            samples.push_back(sample);
            samples.drain(..samples.len().saturating_sub(SAMPLES));
        }
    }

    pub(super) fn get(&self, circuit: &str) -> Option<History> {
        let samples = self.by_circuit.get(circuit)?;
        Some(History {
            interval_seconds: 1,
            ends_at: self.ends_at?,
            states: samples.iter().map(|sample| sample.state).collect(),
            failure_rate: samples.iter().map(|sample| sample.failure_rate).collect(),
            calls: samples.iter().map(|sample| sample.calls).collect(),
        })
    }
}
