//! All kinds of user code, each of which calls back into the breaker.

use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::{Wake, Waker};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::operations::OPERATIONS;
use super::{ARMED, RAN};

/// The kinds of user code that the breaker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    WakerWake,
    WakerDrop,
    RecorderRegister,
    CounterIncrement,
    GaugeChange,
    InstrumentDrop,
    ObserverCall,
    ObserverDrop,
    KeyHash,
    KeyEq,
    KeyDebug,
    KeyClone,
    KeyDrop,
    ErrorDisplay,
    ErrorSource,
    ErrorDrop,
    SubjectDisplay,
    SubjectDrop,
    ClassifierCall,
}

impl Hook {
    pub(crate) const ALL: &[Self] = &[
        Self::WakerWake,
        Self::WakerDrop,
        Self::RecorderRegister,
        Self::CounterIncrement,
        Self::GaugeChange,
        Self::InstrumentDrop,
        Self::ObserverCall,
        Self::ObserverDrop,
        Self::KeyHash,
        Self::KeyEq,
        Self::KeyDebug,
        Self::KeyClone,
        Self::KeyDrop,
        Self::ErrorDisplay,
        Self::ErrorSource,
        Self::ErrorDrop,
        Self::SubjectDisplay,
        Self::SubjectDrop,
        Self::ClassifierCall,
    ];

    /// Calls every operation, unless a hook on this thread is already running them.
    pub(crate) fn call_back(self) {
        let armed = ARMED.try_with(|armed| armed.try_borrow_mut().ok()?.take());
        let Some(target) = armed.ok().flatten() else { return };
        RAN.with_borrow_mut(|ran| ran.insert(self));
        for (_, operation) in OPERATIONS {
            operation(&target);
        }
        ARMED.set(Some(target));
    }
}

/// A waker that calls back when it is woken and when it is dropped.
struct HostileWake;

impl Wake for HostileWake {
    fn wake(self: Arc<Self>) {
        Hook::WakerWake.call_back();
    }
}

impl Drop for HostileWake {
    fn drop(&mut self) {
        Hook::WakerDrop.call_back();
    }
}

/// Returns a new waker, which does not equal any other waker.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(HostileWake))
}

/// A recorder of size zero that calls back when an instrument is registered.
pub(crate) struct HostileRecorder;

struct HostileInstrument;

impl Recorder for HostileRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Hook::RecorderRegister.call_back();
        Counter::from_arc(Arc::new(HostileInstrument))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Hook::RecorderRegister.call_back();
        Gauge::from_arc(Arc::new(HostileInstrument))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl CounterFn for HostileInstrument {
    fn increment(&self, _: u64) {
        Hook::CounterIncrement.call_back();
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for HostileInstrument {
    fn increment(&self, _: f64) {
        Hook::GaugeChange.call_back();
    }

    fn decrement(&self, _: f64) {
        Hook::GaugeChange.call_back();
    }

    fn set(&self, _: f64) {}
}

impl Drop for HostileInstrument {
    fn drop(&mut self) {
        Hook::InstrumentDrop.call_back();
    }
}

/// Returns an observer that calls back when it is called and when it is dropped.
pub(crate) fn observer<E>() -> impl Fn(&E) + Send + Sync + 'static {
    let captured = HostileObserver;
    move |_| {
        let HostileObserver = &captured;
        Hook::ObserverCall.call_back();
    }
}

struct HostileObserver;

impl Drop for HostileObserver {
    fn drop(&mut self) {
        Hook::ObserverDrop.call_back();
    }
}

/// A key that calls back from all its trait methods. There are only four hashes, so that keys with
/// equal hashes are compared.
pub(crate) struct HostileKey(u64);

impl HostileKey {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl Hash for HostileKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Hook::KeyHash.call_back();
        (self.0 % 4).hash(state);
    }
}

impl PartialEq for HostileKey {
    fn eq(&self, other: &Self) -> bool {
        Hook::KeyEq.call_back();
        self.0 == other.0
    }
}

impl Eq for HostileKey {}

impl fmt::Debug for HostileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hook::KeyDebug.call_back();
        write!(f, "{}", self.0)
    }
}

impl Clone for HostileKey {
    fn clone(&self) -> Self {
        Hook::KeyClone.call_back();
        Self(self.0)
    }
}

impl Drop for HostileKey {
    fn drop(&mut self) {
        Hook::KeyDrop.call_back();
    }
}

/// An error that calls back from all its trait methods.
#[derive(Debug)]
pub(crate) struct HostileError;

impl fmt::Display for HostileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hook::ErrorDisplay.call_back();
        f.write_str("hostile")
    }
}

impl Error for HostileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Hook::ErrorSource.call_back();
        None
    }
}

impl Drop for HostileError {
    fn drop(&mut self) {
        Hook::ErrorDrop.call_back();
    }
}

/// The subject of a call, which calls back from all its trait methods.
#[derive(Clone)]
pub(crate) struct HostileSubject;

impl fmt::Display for HostileSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hook::SubjectDisplay.call_back();
        f.write_str("hostile")
    }
}

impl Drop for HostileSubject {
    fn drop(&mut self) {
        Hook::SubjectDrop.call_back();
    }
}
