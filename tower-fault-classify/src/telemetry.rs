//! Reports each fault to metrics and tracing, with the name of the layer.
//!
//! The names are those of OpenTelemetry where it defines one: `error.type` is the kind,
//! `http.response.status_code` is the status.

use std::borrow::Cow;

use http::StatusCode;

use crate::fault::Fault;

/// Whether faults are reported at all.
pub(crate) const ENABLED: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// The target of the event and of the counter.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const TARGET: &str = "tower_fault_classify";

/// Reports the faults of one layer. It has no size without the features `metrics` and `tracing`.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    layer: &'static str,
}

impl Reporter {
    /// The reporter of a layer without a name of its own.
    pub(crate) const UNNAMED: Self = Self {
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        layer: "classify",
    };

    /// Creates the reporter of a layer with this name.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) fn new(name: Cow<'static, str>) -> Self {
        Self { layer: crate::name::intern(name) }
    }

    /// Ignores the name, because nothing is reported.
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    pub(crate) fn new(_: Cow<'static, str>) -> Self {
        Self::UNNAMED
    }

    /// Reports a fault. Without the features `metrics` and `tracing` it does nothing.
    #[inline]
    pub(crate) fn emit(self, fault: &Fault, status: Option<StatusCode>) {
        #[cfg(feature = "metrics")]
        metrics::count(self.layer, fault);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            target: TARGET,
            {
                layer = self.layer,
                "error.type" = fault.kind().as_str(),
                "fault.origin" = fault.origin().as_str(),
                "fault.retryable" = fault.retryable().as_str(),
                "fault.health" = fault.health().as_str(),
                "fault.retry_after" = fault.retry_after().map(tracing::field::debug),
                "http.response.status_code" = status.map(|status| status.as_u16()),
            },
            "fault",
        );
        let _ = (self, fault, status);
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::UNNAMED
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;
    use std::ptr;
    use std::rc::Rc;

    use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, Unit, with_recorder};

    use super::TARGET;
    use crate::fault::{Fault, Kind, Origin};

    const METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

    const FAULTS: &str = "tower_fault_classify_faults_total";

    /// The keys by their labels.
    type Keys = HashMap<(&'static str, Kind, Origin), Rc<Key>>;

    pub(super) fn count(layer: &'static str, fault: &Fault) {
        thread_local! {
            /// A key with labels allocates. There are few keys, so each thread creates each key
            /// once.
            static KEYS: RefCell<Keys> = RefCell::default();
        }
        let key = KEYS.with_borrow_mut(|keys| {
            let key = keys.entry((layer, fault.kind(), fault.origin())).or_insert_with(|| {
                let labels = [
                    Label::from_static_parts("layer", layer),
                    Label::from_static_parts("error.type", fault.kind().as_str()),
                    Label::from_static_parts("fault.origin", fault.origin().as_str()),
                ];
                Rc::new(Key::from_parts(FAULTS, labels.to_vec()))
            });
            Rc::clone(key)
        });
        // Called after the borrow ends: the recorder may make calls whose faults are counted here
        // too.
        let counter = with_recorder(|recorder| {
            describe(recorder);
            recorder.register_counter(&key, &METADATA)
        });
        counter.increment(1);
    }

    /// Describes the counter, once per recorder and thread.
    fn describe(recorder: &dyn Recorder) {
        thread_local! {
            /// The address of the recorder that got the description last.
            static DESCRIBED: Cell<usize> = const { Cell::new(0) };
        }
        let address = ptr::from_ref(recorder).addr();
        // The address is stored first, because the recorder may make a call.
        if DESCRIBED.replace(address) != address {
            let text = "Faults that a classify layer found, by kind and origin.";
            recorder.describe_counter(KeyName::from_const_str(FAULTS), Some(Unit::Count), text.into());
        }
    }
}
