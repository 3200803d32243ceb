//! Reports each fault to metrics and tracing.
//!
//! The names are those of OpenTelemetry where it defines one: `error.type` is the kind,
//! `http.response.status_code` is the status.

use http::StatusCode;

use crate::fault::Fault;

/// Whether faults are reported at all.
pub(crate) const ENABLED: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// The target of the event and of the counter.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const TARGET: &str = "tower_fault_classify";

/// Reports a fault. Without the features `metrics` and `tracing` it does nothing.
#[inline]
pub(crate) fn emit(fault: &Fault, status: Option<StatusCode>) {
    #[cfg(feature = "metrics")]
    count(fault);
    #[cfg(feature = "tracing")]
    tracing::debug!(
        target: TARGET,
        {
            "error.type" = fault.kind().as_str(),
            "fault.origin" = fault.origin().as_str(),
            "fault.retryable" = fault.retryable().as_str(),
            "fault.health" = fault.health().as_str(),
            "fault.retry_after" = fault.retry_after().map(tracing::field::debug),
            "http.response.status_code" = status.map(|status| status.as_u16()),
        },
        "fault",
    );
    let _ = (fault, status);
}

#[cfg(feature = "metrics")]
fn count(fault: &Fault) {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;

    use metrics::{Key, Label, Level, Metadata};

    use crate::fault::{Kind, Origin};

    const METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

    thread_local! {
        /// A key with labels allocates. There are few keys, so each thread creates each key once.
        static KEYS: RefCell<HashMap<(Kind, Origin), Rc<Key>>> = RefCell::default();
    }
    let key = KEYS.with_borrow_mut(|keys| {
        let key = keys.entry((fault.kind(), fault.origin())).or_insert_with(|| {
            let labels = [
                Label::from_static_parts("error.type", fault.kind().as_str()),
                Label::from_static_parts("fault.origin", fault.origin().as_str()),
            ];
            Rc::new(Key::from_parts("tower_fault_classify_faults_total", labels.to_vec()))
        });
        Rc::clone(key)
    });
    // Called after the borrow ends: the recorder may make calls whose faults are counted here too.
    metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA)).increment(1);
}
