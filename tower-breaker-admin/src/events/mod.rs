//! The event stream, and the history of each circuit.
//!
//! | part | |
//! |---|---|
//! | `inbox` | transitions and audit entries that are not in the log yet |
//! | `sampler` | the task that reads the circuits once per second, and writes all events |
//! | `log` | the last events, and where each stream is in them |
//! | `stream` | the body of a response, which reads the log |
//! | `history` | the last three minutes of each circuit |
//!
//! The sampler is the only writer of the log. So each event is serialized once, and a view of a
//! circuit is never older than the transitions before it.
//!
//! A transition may be older than a view before it: two threads may report two transitions in the
//! wrong order, and a transition may follow the view that already shows it. So a client applies
//! every view, but a transition only if its epoch is newer than that of the view.

mod changes;
mod frame;
mod history;
mod inbox;
mod log;
mod sampler;
mod stream;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::history::Histories;
use self::inbox::{Entry, Inbox};
use self::log::Log;
use crate::audit::AuditEntry;
use crate::auth::User;
use crate::problem::Problem;
use crate::source::{Sources, Subscription, TransitionObserver};
use crate::view::History;

pub(crate) use self::stream::EventStream;

/// How many streams may be open at the same time, and how many of them readers may have. So readers
/// leave some to operators.
const MAX_STREAMS: usize = 1024;
const MAX_STREAMS_OF_READERS: usize = 960;

/// Distributes events to the open streams, and keeps the history.
///
/// The sampler and all streams end when it is dropped.
pub(crate) struct Hub {
    sources: Arc<Sources>,
    has_history: bool,
    shared: Arc<Shared>,
    _subscription: Subscription,
}

/// What the hub shares with its streams and observers, which do not keep the hub alive.
struct Shared {
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    histories: Mutex<Histories>,
    /// Wakes the sampler.
    wake: Notify,
    /// Wakes the streams.
    written: Arc<Notify>,
}

struct State {
    log: Log,
    /// How many streams are open.
    streams: usize,
    sampler: Option<AbortHandle>,
    /// All streams end, and no stream is opened.
    is_closed: bool,
}

impl Hub {
    /// Creates a hub. `has_history`: circuits are sampled also while no stream is open.
    pub(crate) fn new(sources: Arc<Sources>, has_history: bool) -> Arc<Self> {
        let shared = Arc::new(Shared::new());
        let weak = Arc::downgrade(&shared);
        let observer: TransitionObserver = Arc::new(move |transition| {
            if let Some(shared) = Weak::upgrade(&weak) {
                shared.push(Entry::Transition(transition.clone()));
            }
        });
        let subscription = sources.on_transition(&observer);
        Arc::new(Self { sources, has_history, shared, _subscription: subscription })
    }

    /// Starts the sampler if it is needed and does not run. Must be called within a tokio runtime;
    /// every request calls it.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.shared.state();
        let is_needed = self.has_history || state.streams > 0;
        // The sampler also ends with its runtime. Another runtime may then continue.
        let is_running = state.sampler.as_ref().is_some_and(|sampler| !sampler.is_finished());
        if is_needed && !is_running {
            state.log.interrupt();
            let sampler = sampler::run(Arc::downgrade(self), Arc::clone(&self.shared));
            state.sampler = Some(tokio::spawn(sampler).abort_handle());
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// Too many streams are open, or the hub is closed.
    pub(crate) fn stream(
        self: &Arc<Self>,
        user: &User,
        last_event_id: Option<&str>,
    ) -> Result<EventStream, Problem> {
        let hello = frame::hello(user, self.sources.fleet_status(), self.has_history);
        let stream = EventStream::open(&self.shared, user.role(), hello, last_event_id)?;
        self.start();
        Ok(stream)
    }

    /// Ends all streams, and refuses new ones.
    pub(crate) fn close(&self) {
        self.shared.state().is_closed = true;
        self.shared.written.notify_waiters();
    }

    /// Sends an entry of the audit to all streams.
    pub(crate) fn publish_audit(&self, entry: &AuditEntry) {
        self.shared.push(Entry::Audit(entry.clone()));
    }

    /// Returns the last three minutes of a circuit. `None`: there is no sample of it.
    pub(crate) fn history(&self, circuit: &str) -> Option<History> {
        self.shared.histories().get(circuit)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn new() -> Self {
        // The standard library seeds its hashers at random.
        let boot = RandomState::new().hash_one(());
        let state = State { log: Log::new(boot), streams: 0, sampler: None, is_closed: false };
        Self {
            inbox: Mutex::default(),
            state: Mutex::new(state),
            histories: Mutex::default(),
            wake: Notify::new(),
            written: Arc::default(),
        }
    }

    fn push(&self, entry: Entry) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.wake.notify_one();
    }

    fn take_inbox(&self) -> Inbox {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn histories(&self) -> MutexGuard<'_, Histories> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
