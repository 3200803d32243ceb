//! Counters and a histogram for the recorder of the crate `metrics`.
//!
//! | metric | kind | labels, after `policy` |
//! |---|---|---|
//! | [`ATTEMPTS`] | counter | |
//! | [`RETRIES`] | counter | `error.type` |
//! | [`DELAYS`] | histogram | |
//! | [`REFUSALS`] | counter | |
//! | [`GIVE_UPS`] | counter | `reason` ([`GiveUp`]), `error.type` |
//!
//! Instruments are looked up for each event, so that a recorder can be installed at any time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ptr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use metrics::{Counter, Key, KeyName, Label, Level, Metadata, Recorder, Unit, with_recorder};
use tower_fault_classify::{Fault, Kind};

use super::TARGET;
use crate::policy::{GiveUp, RetryEvent};

const METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

const ATTEMPTS: &str = "tower_jitter_retry_attempts_total";
const RETRIES: &str = "tower_jitter_retry_retries_total";
const DELAYS: &str = "tower_jitter_retry_delay_seconds";
const REFUSALS: &str = "tower_jitter_retry_budget_refusals_total";
const GIVE_UPS: &str = "tower_jitter_retry_give_ups_total";

/// The counters, with their descriptions. [`DELAYS`] is the only histogram.
const COUNTERS: [(&str, &str); 4] = [
    (ATTEMPTS, "Attempts that have ended, including first attempts."),
    (RETRIES, "Retries that were decided on, by the fault of the failed attempt."),
    (REFUSALS, "Calls that were not retried because the budget refused the retry."),
    (GIVE_UPS, "Calls that ended with a fault and were not retried further, by reason."),
];

/// The keys of the instruments of one policy name, which is their label.
#[derive(Debug)]
struct Keys {
    policy: &'static str,
    attempts: Key,
    delays: Key,
    refusals: Key,
}

/// The keys with more labels than the policy's name.
type LabelledKeys = HashMap<(&'static str, Kind, Option<GiveUp>), Rc<Key>>;

/// The metrics of the policies with one name.
#[derive(Clone, Copy, Debug)]
pub(super) struct PolicyMetrics(&'static Keys);

impl PolicyMetrics {
    /// Returns the metrics of a name. Its keys are created once, and leaked like the name.
    pub(super) fn of(policy: &'static str) -> Self {
        static ALL: Mutex<BTreeMap<&'static str, &'static Keys>> = Mutex::new(BTreeMap::new());

        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        Self(all.entry(policy).or_insert_with(|| Box::leak(Box::new(Keys::new(policy)))))
    }

    pub(super) fn attempt(self) {
        counter(&self.0.attempts).increment(1);
    }

    pub(super) fn retry(self, event: &RetryEvent) {
        self.labelled(&event.fault, None);
        let delays = with_recorder(|recorder| {
            describe(recorder);
            recorder.register_histogram(&self.0.delays, &METADATA)
        });
        delays.record(event.delay.as_secs_f64());
    }

    pub(super) fn give_up(self, reason: GiveUp, fault: &Fault) {
        self.labelled(fault, Some(reason));
        if reason == GiveUp::Budget {
            counter(&self.0.refusals).increment(1);
        }
    }

    fn labelled(self, fault: &Fault, reason: Option<GiveUp>) {
        thread_local! {
            /// A key with labels allocates. There are few of them, so each thread creates each key
            /// once.
            static KEYS: RefCell<LabelledKeys> = RefCell::default();
        }
        let Keys { policy, .. } = *self.0;
        let key = KEYS.with_borrow_mut(|keys| {
            let key = keys.entry((policy, fault.kind(), reason)).or_insert_with(|| {
                let kind = Label::from_static_parts("error.type", fault.kind().as_str());
                Rc::new(match reason {
                    None => key(RETRIES, policy, [kind]),
                    Some(reason) => {
                        key(GIVE_UPS, policy, [kind, Label::from_static_parts("reason", reason.as_str())])
                    }
                })
            });
            Rc::clone(key)
        });
        // After the borrow has ended: the recorder may make calls of its own, which are counted
        // too.
        counter(&key).increment(1);
    }
}

impl Keys {
    fn new(policy: &'static str) -> Self {
        Self {
            policy,
            attempts: key(ATTEMPTS, policy, []),
            delays: key(DELAYS, policy, []),
            refusals: key(REFUSALS, policy, []),
        }
    }
}

fn key<const N: usize>(name: &'static str, policy: &'static str, labels: [Label; N]) -> Key {
    let policy = Label::from_static_parts("policy", policy);
    Key::from_parts(name, [policy].into_iter().chain(labels).collect::<Vec<_>>())
}

fn counter(key: &Key) -> Counter {
    with_recorder(|recorder| {
        describe(recorder);
        recorder.register_counter(key, &METADATA)
    })
}

/// Describes all metrics, once per recorder and thread.
#[inline]
fn describe(recorder: &dyn Recorder) {
    thread_local! {
        /// The address of the recorder that got the descriptions last.
        static DESCRIBED: Cell<usize> = const { Cell::new(0) };
    }
    let address = ptr::from_ref(recorder).addr();
    // The address is stored first, because the recorder may make a call.
    if DESCRIBED.replace(address) != address {
        describe_all(recorder);
    }
}

#[cold]
fn describe_all(recorder: &dyn Recorder) {
    for (name, text) in COUNTERS {
        recorder.describe_counter(KeyName::from_const_str(name), Some(Unit::Count), text.into());
    }
    let text = "Delays before retries.";
    recorder.describe_histogram(KeyName::from_const_str(DELAYS), Some(Unit::Seconds), text.into());
}
