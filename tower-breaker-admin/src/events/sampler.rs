//! The task that reads the circuits once per second, and writes all events.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::changes::{Changes, is_older};
use super::inbox::Entry;
use super::{Hub, Shared, frame};
use crate::audit;
use crate::source::Sources;
use crate::view::View;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two rounds of work. Events within it are sent together, so that many
/// transitions do not wake each stream many times.
const PAUSE: Duration = Duration::from_millis(50);
/// The samples between two comments.
const COMMENT_EVERY: u32 = 15;

/// Runs until the hub is dropped. Without a history, it also ends when no stream is open.
pub(super) async fn run(hub: Weak<Hub>, shared: Arc<Shared>) {
    let mut sampler = Sampler { shared, sent: None, moved: HashMap::new(), samples: 0 };
    let mut next_sample = Instant::now();
    loop {
        // An error means that a sample is due. Without an error, it may be due, too.
        let _ = timeout_at(next_sample, sampler.shared.wake.notified()).await;
        let Some(hub) = hub.upgrade() else { return };
        let now = Instant::now();
        let mut missed = None;
        while next_sample <= now {
            next_sample += INTERVAL;
            missed = Some(missed.map_or(0, |missed| missed + 1));
        }
        if !sampler.work(&hub, missed) {
            return;
        }
        // The hub is not kept alive while the task waits.
        drop(hub);
        sleep_until(next_sample.min(now + PAUSE)).await;
    }
}

struct Sampler {
    shared: Arc<Shared>,
    /// What the open streams have. `None`: they have nothing.
    sent: Option<Reading>,
    /// The circuits that had a transition since then, and its epoch.
    moved: HashMap<&'static str, u32>,
    /// The samples since the last comment.
    samples: u32,
}

impl Sampler {
    /// Writes the new events. `missed`: a sample is due, and this number of samples before it
    /// was not taken. Returns `false` if the task is not needed any more.
    fn work(&mut self, hub: &Hub, missed: Option<usize>) -> bool {
        let has_streams = {
            let mut state = self.shared.state();
            if !hub.has_history && state.streams == 0 {
                // Under the lock: a stream that is opened later starts another task.
                state.sampler = None;
                return false;
            }
            state.streams > 0
        };
        self.add_entries(has_streams);
        if let Some(missed) = missed {
            self.sample(hub, missed, has_streams);
        } else if has_streams && self.shared.state().log.needed_snapshot().is_some() {
            self.send(Reading::of(&hub.sources));
        }
        if self.shared.state().log.take_news() {
            self.shared.written.notify_waiters();
        }
        true
    }

    fn add_entries(&mut self, has_streams: bool) {
        let inbox = self.shared.take_inbox();
        if inbox.entries.is_empty() {
            return;
        }
        if has_streams {
            for entry in &inbox.entries {
                if let Entry::Transition(transition) = entry {
                    let last = self.moved.entry(transition.circuit).or_insert(transition.epoch);
                    if is_older(*last, transition.epoch) {
                        *last = transition.epoch;
                    }
                }
            }
        }
        self.shared.state().log.add_entries(inbox, has_streams);
    }

    fn sample(&mut self, hub: &Hub, missed: usize, has_streams: bool) {
        self.shared.state().log.begin_second(has_streams);
        let reading = Reading::of(&hub.sources);
        if hub.has_history {
            self.shared.histories().add(&reading.circuits, missed, reading.at);
        }
        if !has_streams {
            self.sent = None;
            self.moved.clear();
            return;
        }
        self.send(reading);
        self.samples += 1;
        if self.samples == COMMENT_EVERY {
            self.samples = 0;
            self.shared.state().log.add(frame::COMMENT);
        }
    }

    /// Sends the changes since the last reading, and a snapshot if a stream needs one.
    ///
    /// A snapshot never differs from what the other streams have. So the next changes are right for
    /// all streams.
    fn send(&mut self, reading: Reading) {
        let changes = self.sent.as_ref().map(|sent| reading.changes_since(sent, &self.moved));
        // Serialized without the lock.
        let needed = self.shared.state().log.needed_snapshot();
        let snapshot = needed.map(|id| {
            let mut pieces = frame::all_circuits(&reading.circuits, id);
            pieces.extend(reading.fleet.as_ref().map(frame::fleet));
            pieces
        });
        let mut state = self.shared.state();
        for event in changes.unwrap_or_default() {
            state.log.add(event);
        }
        if let Some(snapshot) = snapshot {
            state.log.add_snapshot(snapshot);
        }
        drop(state);
        self.sent = Some(reading);
        self.moved.clear();
    }
}

/// All circuits at one moment.
struct Reading {
    circuits: Vec<View>,
    fleet: Option<Value>,
    at: SystemTime,
    taken: Instant,
}

impl Reading {
    fn of(sources: &Sources) -> Self {
        Self {
            circuits: sources.views(),
            fleet: sources.fleet_status(),
            at: audit::now(),
            taken: Instant::now(),
        }
    }

    fn changes_since(&self, old: &Self, moved: &HashMap<&str, u32>) -> Vec<Bytes> {
        let elapsed = self.taken.saturating_duration_since(old.taken);
        let Changes { changed, removed, rows } =
            Changes::between(&old.circuits, &self.circuits, elapsed, moved);
        let mut events = frame::changed_circuits(&changed, &removed);
        if !rows.is_empty() {
            events.push(frame::samples(self.at, &rows));
        }
        let connection = |fleet: &Value| [fleet["attached"].clone(), fleet["last_error"].clone()];
        if self.fleet.as_ref().map(connection) != old.fleet.as_ref().map(connection) {
            events.extend(self.fleet.as_ref().map(frame::fleet));
        }
        events
    }
}
