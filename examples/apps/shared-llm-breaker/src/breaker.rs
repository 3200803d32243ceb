//! A circuit breaker that workers share.

use std::cell::Cell;
use std::fmt::{self, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tower_breaker::{Circuit, CircuitState as LocalState, ConfigError, Permit, Verdict};
use tower_breaker_fleet::{FileStore, Fleet, FleetAction, FleetBuilder, FleetOperation, RedisStore};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

use crate::error::{CircuitBreakerError, ResetError, SetupError};
use crate::events;
use crate::settings::BreakerSettings;
use crate::state::{CircuitState, Progress};

/// The prefix of the address of a folder.
const FILE_SCHEME: &str = "file:";

/// The fault of an error that is not classified.
const FAILURE: Fault = Fault::new(Kind::Unknown, Retryable::Never, Health::Unhealthy, Origin::Remote);

thread_local! {
    /// The failure that the circuit has counted for the call that this thread records.
    static COUNTED: Cell<Option<Counted>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Counted {
    fail_counter: u64,
    is_probe: bool,
}

/// A circuit breaker that workers share through Redis. Clones are handles to the same breaker.
///
/// Each worker decides in its memory. A task exchanges messages with the store. If Redis is away,
/// each worker decides for itself, with the same limits.
///
/// The task and the connections end with [`close`](Self::close), or with the last handle.
#[derive(Clone)]
pub struct CircuitBreaker {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    store_url: String,
    settings: BreakerSettings,
    circuit: Circuit,
    progress: Arc<Progress>,
    fleet: Fleet,
    /// The task that exchanges messages with the store. `None`: the breaker is closed.
    agent: Mutex<Option<JoinHandle<()>>>,
}

impl CircuitBreaker {
    /// The name of a breaker for which no other is chosen.
    pub const DEFAULT_NAME: &str = "claude_api";

    /// The address of the store for which no other is chosen.
    pub const DEFAULT_REDIS_URL: &str = "redis://localhost:6379/0";

    /// Creates a breaker, and starts the task that connects it with its store.
    ///
    /// `redis_url` is an address such as `redis://localhost:6379/0`, or `file:/FOLDER`: then the
    /// workers of one machine share files in this folder. Wait for [`ready`](Self::ready) before
    /// the first call.
    ///
    /// # Errors
    ///
    /// Returns an error if the address, the name or a setting is invalid. A store that does not
    /// answer is no error.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start(redis_url: &str, name: &str, settings: BreakerSettings) -> Result<Self, SetupError> {
        let circuit = Circuit::new(settings.circuit(name)?);
        let (fleet, agent) = open_store(redis_url, &settings)?.build()?;
        fleet.share(&circuit)?;
        let progress = Arc::new(Progress::default());
        observe(&circuit, &progress);
        let agent = Mutex::new(Some(tokio::spawn(agent)));
        let (name, store_url) = (name.to_owned(), redis_url.to_owned());
        Ok(Self { inner: Arc::new(Inner { name, store_url, settings, circuit, progress, fleet, agent }) })
    }

    /// Waits for the decisions of the other workers, at most for
    /// [`ready_within`](BreakerSettings::ready_within).
    ///
    /// Returns `false` if the store has not answered. The breaker then decides for itself until the
    /// store answers.
    pub async fn ready(&self) -> bool {
        self.inner.fleet.ready(self.inner.settings.ready_within).await
    }

    /// Runs a call, and returns its result unchanged. Every error counts as a failure.
    ///
    /// # Errors
    ///
    /// Returns the error of the call, or [`CircuitBreakerError`] if the breaker rejects the call.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the call, which then counts as cancelled. If ten calls were
    /// cancelled within at least 1 s and none has completed meanwhile, the circuit opens.
    ///
    /// # Panics
    ///
    /// A panic of the call counts as a failure, and propagates.
    pub async fn call<F, T, E>(&self, call: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<CircuitBreakerError> + Display,
    {
        self.call_classified(|_| FAILURE.into(), call).await
    }

    /// Like [`call`](Self::call), with a function that says how an error counts: as a failure if it
    /// is unhealthy, as a success if it is healthy, and else not at all.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// See [`call`](Self::call).
    pub async fn call_classified<F, T, E>(
        &self,
        classify: impl FnOnce(&E) -> Verdict,
        call: F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<CircuitBreakerError> + Display,
    {
        let permit = self.admit()?;
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(Ok(value)) => {
                self.record(permit, Verdict::Success, &"");
                Ok(value)
            }
            Ok(Err(error)) => {
                self.record(permit, classify(&error), &error);
                Err(error)
            }
            Err(panic) => {
                self.record(permit, FAILURE.into(), &"the call panicked");
                resume_unwind(panic)
            }
        }
    }

    /// Wraps an async function, so that each of its calls runs through the breaker.
    pub fn protect<A, F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Fn(A) -> BoxFuture<'static, Result<T, E>> + use<A, F, Fut, T, E>
    where
        F: Fn(A) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<CircuitBreakerError> + Display + Send + 'static,
    {
        let breaker = self.clone();
        move |argument| {
            let (breaker, call) = (breaker.clone(), function(argument));
            async move { breaker.call(call).await }.boxed()
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the settings.
    pub fn settings(&self) -> &BreakerSettings {
        &self.inner.settings
    }

    /// Returns the state in this worker.
    ///
    /// After the open time, the state stays open until a call shows that there is demand.
    pub fn state(&self) -> CircuitState {
        self.inner.progress.state()
    }

    /// Returns the consecutive failures of this worker. Redis adds up those of all workers.
    ///
    /// While the circuit is not closed, the number that it had counted before remains. A failed
    /// probe adds 1, and a successful probe sets it to 0.
    pub fn fail_counter(&self) -> u64 {
        self.inner.circuit.status().consecutive_failures
    }

    /// Closes the circuit of all workers. Failures and successful probes are forgotten.
    ///
    /// # Errors
    ///
    /// Returns an error if the store does not answer. The circuit of this worker is then closed,
    /// and that of the other workers is unchanged.
    pub async fn reset(&self) -> Result<(), ResetError> {
        self.inner.progress.forget_successes();
        let instance = self.inner.fleet.status().instance;
        let reset = FleetOperation::new(FleetAction::Reset).by(instance).reason("reset");
        let operated = self.inner.fleet.operate(self.name(), reset).await;
        // After the store: a message from before its reset could open the circuit again.
        self.inner.circuit.reset().map_err(ResetError::Forced)?;
        events::reset(self.name());
        operated.map(drop).map_err(ResetError::Store)
    }

    /// Closes the connections to the store. Calls are admitted by the circuit of this worker from
    /// then on. Closing a breaker twice has no effect.
    pub async fn close(&self) {
        let Some(agent) = self.take_agent() else { return };
        self.inner.fleet.clone().leave().await;
        // It has ended, unless the store did not answer.
        agent.abort();
    }

    /// Returns the circuit of this worker.
    pub fn circuit(&self) -> &Circuit {
        &self.inner.circuit
    }

    /// Returns the handle to the store.
    pub fn fleet(&self) -> &Fleet {
        &self.inner.fleet
    }

    /// Whether the breaker is closed, or the runtime of its task has ended.
    pub(crate) fn is_closed(&self) -> bool {
        let agent = self.inner.agent.lock().unwrap_or_else(PoisonError::into_inner);
        agent.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether the breaker was created with these arguments.
    pub(crate) fn is_same(&self, redis_url: &str, settings: &BreakerSettings) -> bool {
        self.inner.store_url == redis_url && self.inner.settings == *settings
    }

    fn take_agent(&self) -> Option<JoinHandle<()>> {
        self.inner.agent.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns a permit and, if the call is a probe, the number of the half-open state.
    fn admit(&self) -> Result<(Permit, Option<u32>), CircuitBreakerError> {
        let circuit = &self.inner.circuit;
        let permit =
            circuit.try_acquire().map_err(|rejection| CircuitBreakerError::new(self.state(), rejection))?;
        let is_probe = circuit.status().state == LocalState::HalfOpen;
        Ok((permit, is_probe.then(|| self.inner.progress.round())))
    }

    /// Records the outcome of a call, and logs it.
    fn record(&self, (permit, round): (Permit, Option<u32>), verdict: Verdict, error: &dyn Display) {
        let name = self.name();
        if verdict.health() == Health::Healthy {
            events::success(name);
            // Before the circuit closes, so that the events are in this order.
            let successes = round.and_then(|round| self.inner.progress.count_success(round));
            if let Some(successes) = successes {
                events::half_open_success(name, successes, self.inner.settings.success_threshold);
            }
            permit.record(verdict);
            return;
        }
        COUNTED.set(None);
        permit.record(verdict);
        // An outcome from before the last transition is not counted.
        if let Some(Counted { fail_counter, is_probe }) = COUNTED.take() {
            events::failure(name, fail_counter, error);
            if is_probe {
                events::half_open_failure(name);
            }
        }
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address can contain a password.
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .field("settings", self.settings())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.get_mut().unwrap_or_else(PoisonError::into_inner) {
            agent.abort();
        }
    }
}

/// Returns the settings of a fleet that shares the store at an address.
pub(crate) fn open_store(url: &str, settings: &BreakerSettings) -> Result<FleetBuilder, SetupError> {
    Ok(match url.strip_prefix(FILE_SCHEME) {
        Some(folder) => {
            // `file:///FOLDER` is the same as `file:/FOLDER`.
            let folder = Path::new(folder.strip_prefix("//").unwrap_or(folder));
            if !folder.is_absolute() {
                let allowed = "an absolute folder, such as file:/var/lib/app/circuits";
                return Err(ConfigError::new("redis", url, allowed).into());
            }
            settings.fleet(FileStore::open(folder)?)
        }
        None => settings.fleet(RedisStore::open(url)?),
    })
}

fn observe(circuit: &Circuit, progress: &Arc<Progress>) {
    let (observed, progress) = (circuit.downgrade(), Arc::clone(progress));
    circuit.on_transition(move |transition| {
        if let Some(circuit) = observed.upgrade() {
            progress.on_transition(transition, &circuit.status());
        }
    });
    // Called on the thread that records the call.
    circuit.on_failure(|failure| {
        let is_probe = failure.state == LocalState::HalfOpen;
        COUNTED.set(Some(Counted { fail_counter: failure.consecutive_failures, is_probe }));
    });
}
