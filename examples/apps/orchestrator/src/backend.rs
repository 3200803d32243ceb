//! The interface of the backends that perform tasks.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use tower_breaker::fault_classify::{BoxError, Fault, Health, Kind, Origin, Retryable};

/// A task for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The ID of the task.
    pub task: String,
    /// The prompt, with the results of the task's dependencies.
    pub prompt: String,
}

/// The answer of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The text of the answer.
    pub text: String,
}

/// A backend: an agent that answers prompts.
///
/// All tasks of a run share one backend for each type, so several sends run at the same time.
pub trait Backend: Send + Sync {
    /// Sends a message, and resolves to the answer.
    ///
    /// The caller cancels a send by dropping its future. The backend must then stop its work.
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Response, SendError>>;

    /// Returns the ID of the session to which all messages of a run belong.
    fn session_id(&self) -> &str;

    /// Ends the session. It is called once, after the last send.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The error of a send.
#[derive(Debug)]
pub struct SendError {
    message: String,
    source: Option<BoxError>,
    fault: Fault,
}

/// The backend failed. The message may be sent again, and the circuit counts a failure.
const TRANSIENT: Fault =
    Fault::new(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

/// This machine cannot run the backend now. The message may be sent again. That says nothing about
/// the backend, so the circuit does not count it.
const LOCAL: Fault = Fault::new(Kind::Transient, Retryable::Unsent, Health::Neutral, Origin::Caller);

/// The message fails each time that it is sent. That says nothing about other messages, so the
/// circuit does not count it.
const PERMANENT: Fault = Fault::new(Kind::Client, Retryable::Never, Health::Neutral, Origin::Caller);

impl SendError {
    /// Creates an error that is retried, and that the circuit counts as a failure.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, fault: TRANSIENT }
    }

    /// Creates an error of this machine. It is retried, and the circuit does not count it.
    pub fn local(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, fault: LOCAL }
    }

    /// Creates an error that is not retried, and that the circuit does not count.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, fault: PERMANENT }
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Returns the verdict for retries and for the circuit.
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// The backends of a run, by type.
#[derive(Clone, Default)]
pub struct Backends {
    by_type: BTreeMap<String, Arc<dyn Backend>>,
}

impl Backends {
    /// Creates an empty set of backends.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend. It replaces the backend of the same type.
    #[must_use]
    pub fn with(mut self, backend_type: impl Into<String>, backend: impl Backend + 'static) -> Self {
        self.by_type.insert(backend_type.into(), Arc::new(backend));
        self
    }

    /// Returns the backend of a type.
    pub fn get(&self, backend_type: &str) -> Option<&Arc<dyn Backend>> {
        self.by_type.get(backend_type)
    }

    /// Ends the sessions of all backends.
    pub async fn close(&self) {
        join_all(self.by_type.values().map(|backend| backend.close())).await;
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.by_type.iter().map(|(name, backend)| (name, backend.session_id().to_owned()));
        f.debug_map().entries(sessions).finish()
    }
}
