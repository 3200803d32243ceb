//! The rejection of a call by a circuit breaker, in three words.
//!
//! Each `Result` of a call through a circuit breaker has room for a rejection, and a rejected call
//! must be cheap. So a rejection allocates nothing, and refers to its circuit by the address of a
//! record that is never freed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "__internals-notes")]
use crate::error::Note;
use crate::fault::{Fault, Health, Kind, Origin, Retryable};

/// The rejection of a call by a circuit breaker.
#[derive(Debug)]
pub struct CircuitRejection {
    circuit: &'static CircuitRecord,
    /// The time to wait in nanoseconds, or [`NEVER`].
    retry_after: u64,
    /// The number of the key's label in the record. 0: no label.
    label: u16,
    condition: CircuitCondition,
    #[cfg(feature = "__internals-notes")]
    pub(crate) note: Note,
    /// The status that a gRPC client gets. Its cell alone has two words.
    #[cfg(feature = "tonic")]
    pub(crate) status: std::sync::OnceLock<Box<tonic::Status>>,
}

/// The circuit does not admit calls by itself.
const NEVER: u64 = u64::MAX;

impl CircuitRejection {
    /// Creates the rejection of a circuit without a key.
    ///
    /// `retry_after` is the time to wait in nanoseconds. At the largest number, it is shortened by
    /// one.
    #[inline]
    pub const fn new(
        circuit: &'static CircuitRecord,
        condition: CircuitCondition,
        retry_after: Option<u64>,
    ) -> Self {
        let retry_after = match retry_after {
            Some(NEVER) => NEVER - 1,
            Some(nanos) => nanos,
            None => NEVER,
        };
        Self {
            circuit,
            retry_after,
            label: 0,
            condition,
            #[cfg(feature = "__internals-notes")]
            note: Note::new(),
            #[cfg(feature = "tonic")]
            status: std::sync::OnceLock::new(),
        }
    }

    /// Returns the rejection of a circuit with a key. The label belongs to a record of its own.
    #[must_use]
    #[inline]
    pub const fn with_label(mut self, label: CircuitLabel) -> Self {
        self.circuit = label.record;
        self.label = label.number;
        self
    }

    /// Returns the name of the circuit.
    #[inline]
    pub const fn name(&self) -> &'static str {
        self.circuit.name
    }

    /// Returns the label of the circuit's key. `None`: the circuit has no key, or the label was
    /// dropped.
    pub fn label(&self) -> Option<Arc<str>> {
        CircuitLabel { record: self.circuit, number: self.label }.text()
    }

    /// Returns why the circuit rejected the call.
    #[inline]
    pub const fn condition(&self) -> CircuitCondition {
        self.condition
    }

    /// Returns how long to wait before the next call.
    #[inline]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.retry_after {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns the fault of every rejection, with the time to wait.
    #[inline]
    pub const fn fault(&self) -> Fault {
        let fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        match self.retry_after() {
            Some(delay) => fault.with_retry_after(delay),
            None => fault,
        }
    }
}

/// The clone has the same note.
impl Clone for CircuitRejection {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            circuit: self.circuit,
            retry_after: self.retry_after,
            label: self.label,
            condition: self.condition,
            #[cfg(feature = "__internals-notes")]
            note: self.note.clone(),
            #[cfg(feature = "tonic")]
            status: std::sync::OnceLock::new(),
        }
    }
}

/// Why a circuit rejects calls.
///
/// Its size leaves no gap in a [`CircuitRejection`], so that each word of it is stored at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CircuitCondition {
    /// The circuit is closed and in a slow start.
    SlowStart,
    /// The circuit is open for a time.
    Open,
    /// The circuit is open until it is reset.
    OpenUntilReset,
    /// The circuit is half-open and has no free probe slot.
    HalfOpen,
    /// The circuit is forced open for a time.
    ForcedOpen,
    /// The circuit is forced open until it is released.
    ForcedOpenUntilReleased,
    /// The circuit is forced closed.
    ForcedClosed,
    /// The circuit is disabled.
    Disabled,
}

impl CircuitCondition {
    /// Returns the condition in words, for error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowStart => "in slow start",
            Self::Open => "open",
            Self::OpenUntilReset => "open until it is reset",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced open",
            Self::ForcedOpenUntilReleased => "forced open until it is released",
            Self::ForcedClosed => "forced closed until it is released",
            Self::Disabled => "disabled",
        }
    }
}

/// The name of a circuit, and the label of its key if it has one.
///
/// A record is never freed. The record of a dropped label is reused for the next label of the same
/// circuit name, up to 65,535 times. So the number of records is that of the names, the largest
/// number of labels at one time, and one for each 65,535 labels.
#[derive(Debug)]
pub struct CircuitRecord {
    name: &'static str,
    label: Mutex<LabelContent>,
}

#[derive(Debug)]
struct LabelContent {
    /// The number of the current or next label, so that a rejection never finds a later label.
    number: u16,
    text: Option<Arc<str>>,
}

/// The records of one name.
struct Named {
    /// The record of the circuits without a label.
    plain: &'static CircuitRecord,
    /// The records without a label that had one.
    free: Vec<&'static CircuitRecord>,
}

static RECORDS: Mutex<Option<HashMap<&'static str, Named>>> = Mutex::new(None);

/// Calls `use_records` with the records of a name.
fn with_records<T>(name: &'static str, use_records: impl FnOnce(&mut Named) -> T) -> T {
    let mut records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let named = records.get_or_insert_default().entry(name);
    use_records(named.or_insert_with(|| Named { plain: CircuitRecord::leak(name), free: Vec::new() }))
}

impl CircuitRecord {
    /// Returns the record of the circuits that have this name and no key.
    pub fn of(name: &'static str) -> &'static Self {
        with_records(name, |records| records.plain)
    }

    fn leak(name: &'static str) -> &'static Self {
        Box::leak(Box::new(Self { name, label: Mutex::new(LabelContent { number: 1, text: None }) }))
    }

    /// Returns the name of the circuit.
    #[inline]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn label(&self) -> MutexGuard<'_, LabelContent> {
        self.label.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reference to the label of a key. It finds no text after the label was dropped.
#[derive(Clone, Copy, Debug)]
pub struct CircuitLabel {
    record: &'static CircuitRecord,
    number: u16,
}

impl CircuitLabel {
    /// Returns the text of the label. `None`: the label was dropped.
    pub fn text(self) -> Option<Arc<str>> {
        let content = self.record.label();
        content.text.as_ref().filter(|_| content.number == self.number).cloned()
    }
}

/// A label in a record. Dropping it frees the record for another label.
#[derive(Debug)]
pub struct KeptLabel(CircuitLabel);

impl KeptLabel {
    /// Stores the label of a circuit with this name.
    pub fn new(name: &'static str, text: String) -> Self {
        let reused = with_records(name, |records| records.free.pop());
        let record = reused.unwrap_or_else(|| CircuitRecord::leak(name));
        let mut content = record.label();
        content.text = Some(text.into());
        Self(CircuitLabel { record, number: content.number })
    }

    /// Returns a reference to the label.
    pub const fn label(&self) -> CircuitLabel {
        self.0
    }
}

impl Drop for KeptLabel {
    fn drop(&mut self) {
        let record = self.0.record;
        let mut content = record.label();
        content.text = None;
        let next = content.number.checked_add(1);
        content.number = next.unwrap_or_default();
        drop(content);
        // A record whose numbers are used up is not reused, so that no number has two labels.
        if next.is_some() {
            with_records(record.name, |records| records.free.push(record));
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn label_finds_its_text_until_dropped() {
        let first = KeptLabel::new("tenants", "first".to_owned());
        let label = first.label();
        let rejection = CircuitRejection::new(CircuitRecord::of("tenants"), CircuitCondition::Open, None)
            .with_label(label);
        assert_eq!(label.text().as_deref(), Some("first"));
        assert_eq!((rejection.label().as_deref(), rejection.name()), (Some("first"), "tenants"));
        drop(first);
        assert_eq!((label.text(), rejection.label()), (None, None));
        // The record is reused: the reference must not find the later labels either.
        let others: Vec<_> = (0..8).map(|number| KeptLabel::new("tenants", number.to_string())).collect();
        assert_eq!((label.text(), rejection.label()), (None, None));
        drop(others);
    }

    #[test]
    fn label_record_is_not_reused_after_its_last_number() {
        let name = "label_record_is_not_reused_after_its_last_number";
        let first = KeptLabel::new(name, "first".to_owned()).label();
        for _ in 1..u16::MAX {
            assert!(std::ptr::eq(KeptLabel::new(name, String::new()).label().record, first.record));
        }
        let other = KeptLabel::new(name, "other".to_owned());
        assert!(!std::ptr::eq(other.label().record, first.record));
        assert_eq!(first.text(), None);
    }

    #[test]
    fn circuit_record_of_name_is_leaked_once() {
        assert!(std::ptr::eq(CircuitRecord::of("stock"), CircuitRecord::of("stock")));
        let rejection = CircuitRejection::new(CircuitRecord::of("stock"), CircuitCondition::Open, None);
        assert_eq!((rejection.name(), rejection.label()), ("stock", None));
    }

    #[test]
    fn rejection_keeps_nanoseconds_and_saturates() {
        let record = CircuitRecord::of("stock");
        let kept = |nanos| CircuitRejection::new(record, CircuitCondition::Open, nanos).retry_after();
        assert_eq!(kept(None), None);
        for nanos in [0, 1, 365 * 86_400 * 1_000_000_000 + 1, u64::MAX - 1] {
            assert_eq!(kept(Some(nanos)), Some(Duration::from_nanos(nanos)));
        }
        assert_eq!(kept(Some(u64::MAX)), Some(Duration::from_nanos(u64::MAX - 1)));
    }

    #[test]
    fn rejection_size_is_three_words() {
        let words = if cfg!(feature = "tonic") { 5 } else { 3 };
        assert_eq!(size_of::<CircuitRejection>(), words * 8);
        assert_eq!(size_of::<Option<Option<CircuitRejection>>>(), words * 8);
    }
}
