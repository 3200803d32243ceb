//! Runs the tasks of a plan concurrently, each as soon as its dependencies are completed.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_breaker::fault_classify::ErrorChain;
use tower_breaker::{Circuit, ConfigError};
use tower_jitter_retry::RetryPolicy;

use crate::backend::{Backend, Backends, Message, Response, SendError};
use crate::dag::Dag;
use crate::plan::{Plan, Task};
use crate::prompt;
use crate::report::{Event, Outcome, Report, TaskResult, Trip};
use crate::resilience::{CircuitSettings, Circuits, RetrySettings, SendFailure, send_with_retry};

/// The number of tasks that run at the same time, if it is not set.
pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Runs plans. The circuits last from one run to the next.
#[derive(Clone, Debug)]
pub struct Runner {
    concurrency: NonZeroUsize,
    retry: RetryPolicy,
    circuits: Circuits,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new(&RetrySettings::default(), &CircuitSettings::default())
            .unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

impl Runner {
    /// Creates a runner with these settings, and with a [`DEFAULT_CONCURRENCY`].
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range.
    pub fn new(retry: &RetrySettings, circuit: &CircuitSettings) -> Result<Self, ConfigError> {
        let (retry, circuits) = (retry.policy()?, Circuits::new(circuit.config()?));
        Ok(Self { concurrency: DEFAULT_CONCURRENCY, retry, circuits })
    }

    /// Sets how many tasks run at the same time.
    #[must_use]
    pub fn concurrency(self, concurrency: NonZeroUsize) -> Self {
        Self { concurrency, ..self }
    }

    /// Returns the circuits of the backends.
    pub fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// Runs all tasks of a plan, and then closes the backends.
    ///
    /// A task that fails does not affect other tasks, except that the tasks that depend on it are
    /// skipped. The events are sent to `events`, which may be closed.
    ///
    /// # Cancellation
    ///
    /// When `cancel` is cancelled, running tasks end, and no other task starts. The report lists
    /// them as cancelled. Dropping the returned future also ends the running tasks.
    pub async fn run(
        &self,
        plan: &Plan,
        backends: &Backends,
        cancel: &CancellationToken,
        events: UnboundedSender<Event>,
    ) -> Report {
        let started = Instant::now();
        let mut run = Run::new(plan, events);
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.concurrency.get()
                && !cancel.is_cancelled()
                && let Some(task) = run.start_next()
            {
                running.spawn(self.perform(&run, task, backends, cancel));
            }
            let Some(ended) = running.join_next().await else { break };
            // A panic of a backend is caught in the task, and no task is aborted.
            run.end(ended.unwrap_or_else(|error| unreachable!("a task has ended with {error}")));
        }
        run.cancel_pending();
        backends.close().await;
        let tasks = run.into_results();
        log_failures(&tasks);
        Report { tasks, circuits: self.circuits.statuses(), duration: started.elapsed() }
    }

    /// Returns a future that performs a task.
    fn perform(
        &self,
        run: &Run<'_>,
        task: usize,
        backends: &Backends,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let Task { id, agent, .. } = &run.plan.tasks()[task];
        let message = Message { task: id.clone(), prompt: run.prompt(task) };
        let backend = backends.get(agent).cloned();
        let missing = format!("backend `{agent}` of task `{id}` does not exist; add it to the backends");
        let circuit = self.circuits.circuit(agent);
        let (retry, cancel, events) = (self.retry.clone(), cancel.clone(), run.events.clone());
        async move {
            let Some(backend) = backend else {
                let outcome = Outcome::Failed { error: missing, circuit: None };
                return Ended { task, outcome, attempts: 0, duration: Duration::ZERO };
            };
            let started = Instant::now();
            let observed = Observed { backend, attempts: AtomicU32::new(0), events };
            let send = send_with_retry(&observed, &message, &circuit, &retry, &cancel);
            let outcome = match AssertUnwindSafe(send).catch_unwind().await {
                Ok(result) => outcome_of(result, &circuit),
                Err(panic) => Outcome::Failed { error: panic_text(&message.task, &*panic), circuit: None },
            };
            let attempts = observed.attempts.load(Ordering::Relaxed);
            Ended { task, outcome, attempts, duration: started.elapsed() }
        }
    }
}

/// How a started task ended.
struct Ended {
    task: usize,
    outcome: Outcome,
    attempts: u32,
    duration: Duration,
}

/// The state of a run.
struct Run<'a> {
    plan: &'a Plan,
    dag: Dag,
    /// The results of the tasks that have ended.
    results: Vec<Option<TaskResult>>,
    events: UnboundedSender<Event>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, events: UnboundedSender<Event>) -> Self {
        let results = vec![None; plan.tasks().len()];
        Self { plan, dag: plan.dag().clone(), results, events }
    }

    fn start_next(&mut self) -> Option<usize> {
        let task = self.dag.start_next()?;
        notify(&self.events, Event::Started { task: self.plan.tasks()[task].id.clone() });
        Some(task)
    }

    /// Returns the prompt of a task, with the results of its dependencies.
    fn prompt(&self, task: usize) -> String {
        let response = |id: &str| {
            let mut dependencies = self.dag.dependencies(task).iter();
            let result = dependencies.find_map(|&task| self.results[task].as_ref().filter(|r| r.id == id))?;
            match &result.outcome {
                Outcome::Completed { response } => Some(response.as_str()),
                _ => None,
            }
        };
        prompt::fill(&self.plan.tasks()[task].prompt, response)
    }

    /// Records how a started task ended, and skips the tasks that depend on a failed one.
    fn end(&mut self, ended: Ended) {
        let Ended { task, outcome, attempts, duration } = ended;
        let skipped = match &outcome {
            Outcome::Completed { .. } => {
                self.dag.complete(task);
                Vec::new()
            }
            Outcome::Cancelled => {
                self.dag.cancel(task);
                Vec::new()
            }
            Outcome::Failed { .. } | Outcome::Skipped { .. } => self.dag.fail(task),
        };
        self.record(task, outcome, attempts, duration);
        for dependent in skipped {
            let because = self.plan.tasks()[task].id.clone();
            self.record(dependent, Outcome::Skipped { because }, 0, Duration::ZERO);
        }
    }

    fn cancel_pending(&mut self) {
        for task in self.dag.cancel_pending() {
            self.record(task, Outcome::Cancelled, 0, Duration::ZERO);
        }
    }

    fn record(&mut self, task: usize, outcome: Outcome, attempts: u32, duration: Duration) {
        let Task { id, agent, .. } = self.plan.tasks()[task].clone();
        let result = TaskResult { id, agent, outcome, attempts, duration };
        notify(&self.events, Event::Ended(result.clone()));
        self.results[task] = Some(result);
    }

    fn into_results(self) -> Vec<TaskResult> {
        self.results.into_iter().flatten().collect()
    }
}

fn outcome_of(result: Result<Response, SendFailure>, circuit: &Circuit) -> Outcome {
    match result {
        Ok(response) => Outcome::Completed { response: response.text },
        Err(SendFailure::Cancelled) => Outcome::Cancelled,
        Err(error) => Outcome::Failed { error: ErrorChain(&error).to_string(), circuit: Trip::of(circuit) },
    }
}

fn panic_text(task: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    format!("the backend of task `{task}` panicked; report this as a bug: {text}")
}

fn log_failures(tasks: &[TaskResult]) {
    let failed = tasks.iter().filter(|task| matches!(task.outcome, Outcome::Failed { .. })).count();
    if failed > 0 {
        tracing::warn!(failed, "run completed with errors");
    }
}

/// Sends an event. The receiver may be gone.
fn notify(events: &UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

/// The backend of a task. Counts the attempts, and reports them as events.
struct Observed {
    backend: Arc<dyn Backend>,
    attempts: AtomicU32,
    events: UnboundedSender<Event>,
}

impl Backend for Observed {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Response, SendError>> {
        Box::pin(async move {
            let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            notify(&self.events, Event::Sent { task: message.task.clone(), attempt });
            let result = self.backend.send(message).await;
            if let Err(error) = &result {
                let (task, error) = (message.task.clone(), ErrorChain(error).to_string());
                notify(&self.events, Event::AttemptFailed { task, attempt, error });
            }
            result
        })
    }

    fn session_id(&self) -> &str {
        self.backend.session_id()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.backend.close()
    }
}
