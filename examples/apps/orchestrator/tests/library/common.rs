//! Backends and plans for the tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use orchestrator::backend::{Backend, Backends, Message, Response, SendError};
use orchestrator::plan::{Format, Plan};
use orchestrator::report::{Event, Outcome, Report};
use orchestrator::resilience::{CircuitSettings, RetrySettings};
use orchestrator::runner::Runner;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_breaker::HumanDuration;

pub(crate) type Answer = Result<Response, SendError>;

type AnswerFn = dyn Fn(Message, u32) -> BoxFuture<'static, Answer> + Send + Sync;

/// A backend that answers with a function. A clone counts in the same counters.
#[derive(Clone)]
pub(crate) struct TestBackend {
    answer: Arc<AnswerFn>,
    sends: Arc<AtomicU32>,
    closes: Arc<AtomicU32>,
}

impl TestBackend {
    /// `answer` gets the message, and the number of the send, from 1.
    pub(crate) fn new<F>(answer: impl Fn(Message, u32) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer =
            Arc::new(move |message, send| -> BoxFuture<'static, Answer> { Box::pin(answer(message, send)) });
        Self { answer, sends: Arc::default(), closes: Arc::default() }
    }

    /// Answers each message with its prompt.
    pub(crate) fn echo() -> Self {
        Self::new(async |message, _| Ok(response(&message.prompt)))
    }

    /// Fails each send with a transient error.
    pub(crate) fn dead() -> Self {
        Self::new(async |_, _| Err(SendError::transient("the backend is down")))
    }

    /// Answers after a day, so that a test that does not cancel the send ends.
    pub(crate) fn hanging() -> Self {
        Self::new(async |_, _| {
            sleep(Duration::from_secs(24 * 60 * 60)).await;
            Ok(response("late"))
        })
    }

    pub(crate) fn sends(&self) -> u32 {
        self.sends.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> u32 {
        self.closes.load(Ordering::SeqCst)
    }
}

impl Backend for TestBackend {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Answer> {
        let send = self.sends.fetch_add(1, Ordering::SeqCst) + 1;
        (self.answer)(message.clone(), send)
    }

    fn session_id(&self) -> &'static str {
        "test"
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closes.fetch_add(1, Ordering::SeqCst);
        })
    }
}

pub(crate) fn response(text: &str) -> Response {
    Response { text: text.to_owned() }
}

pub(crate) fn message(prompt: &str) -> Message {
    Message { task: "task".to_owned(), prompt: prompt.to_owned() }
}

/// Retries with delays of 10 ms to 50 ms, for 1 s.
pub(crate) fn short_retries() -> RetrySettings {
    RetrySettings {
        initial_backoff: HumanDuration(Duration::from_millis(10)),
        max_backoff: HumanDuration(Duration::from_millis(50)),
        max_elapsed: HumanDuration(Duration::from_secs(1)),
        ..RetrySettings::default()
    }
}

/// A task. Its prompt is its ID.
pub(crate) fn task(id: &str, agent: &str, depends_on: &[&str]) -> Value {
    json!({ "id": id, "agent": agent, "prompt": id, "depends_on": depends_on })
}

/// A plan of these tasks, for the backends `claude` and `codex`.
pub(crate) fn plan(tasks: &[Value]) -> Plan {
    let command = json!({ "command": ["true"] });
    let plan = json!({ "tasks": tasks, "backends": { "claude": command, "codex": command } });
    Plan::parse("plan.json", &plan.to_string(), Format::Json).expect("the plan is valid")
}

/// A runner with short retries.
pub(crate) fn runner() -> Runner {
    Runner::new(&short_retries(), &CircuitSettings::default()).unwrap()
}

pub(crate) fn backends(claude: &TestBackend, codex: &TestBackend) -> Backends {
    Backends::new().with("claude", claude.clone()).with("codex", codex.clone())
}

/// Runs a plan to its end, and returns the events, too.
pub(crate) async fn run(
    runner: &Runner,
    plan: &Plan,
    backends: &Backends,
    cancel: &CancellationToken,
) -> (Report, Vec<Event>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let report = runner.run(plan, backends, cancel, sender).await;
    (report, drain(&mut receiver))
}

pub(crate) fn drain(receiver: &mut UnboundedReceiver<Event>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        events.push(event);
    }
    events
}

pub(crate) fn completed(text: &str) -> Outcome {
    Outcome::Completed { response: text.to_owned() }
}

pub(crate) fn outcomes(report: &Report) -> BTreeMap<&str, &Outcome> {
    report.tasks.iter().map(|task| (task.id.as_str(), &task.outcome)).collect()
}
