//! Counting.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use metrics::{Key, Label, Level, Metadata, with_recorder};
use tower_fault_classify::{Fault, Kind};

use super::RetryEvent;
use crate::policy::GiveUp;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

static ATTEMPTS: Key = Key::from_static_name("tower_jitter_retry_attempts_total");
static DELAYS: Key = Key::from_static_name("tower_jitter_retry_delay_seconds");
static REFUSALS: Key = Key::from_static_name("tower_jitter_retry_budget_refusals_total");

/// By the labels.
type Keys = HashMap<(Kind, Option<GiveUp>), Rc<Key>>;

thread_local! {
    /// A key with labels allocates; there are few, so that each thread makes each once.
    static KEYS: RefCell<Keys> = RefCell::default();
}

pub(super) fn attempt() {
    increment(&ATTEMPTS);
}

pub(super) fn retry(event: &RetryEvent) {
    labelled(&event.fault, None);
    with_recorder(|recorder| recorder.register_histogram(&DELAYS, &METADATA))
        .record(event.delay.as_secs_f64());
}

pub(super) fn give_up(reason: GiveUp, fault: &Fault) {
    labelled(fault, Some(reason));
    if reason == GiveUp::Budget {
        increment(&REFUSALS);
    }
}

fn labelled(fault: &Fault, reason: Option<GiveUp>) {
    let key = KEYS.with_borrow_mut(|keys| {
        let key = keys.entry((fault.kind(), reason)).or_insert_with(|| {
            let mut labels = vec![Label::from_static_parts("error.type", fault.kind().as_str())];
            Rc::new(match reason {
                None => Key::from_parts("tower_jitter_retry_retries_total", labels),
                Some(reason) => {
                    labels.push(Label::from_static_parts("reason", reason.as_str()));
                    Key::from_parts("tower_jitter_retry_give_ups_total", labels)
                }
            })
        });
        Rc::clone(key)
    });
    // After the borrow: the recorder may make calls of its own, which are counted too.
    increment(&key);
}

fn increment(key: &Key) {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA)).increment(1);
}
