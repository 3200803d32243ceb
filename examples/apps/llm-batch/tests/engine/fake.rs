//! A client without a server, and helpers for units and events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use llm_batch::config::{Mode, ProcessingConfig};
use llm_batch::engine::{Engine, Event};
use llm_batch::errors::{CircuitOpenError, FailedLlmError, FatalLlmError, LlmError};
use llm_batch::llm::{Ask, Complete};
use llm_batch::prompt::PromptTemplate;
use llm_batch::unit::Unit;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long each call takes.
pub(crate) const CALL: Duration = Duration::from_secs(1);

/// How long `ready` waits.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

pub(crate) type Reply = Result<String, LlmError>;

/// Makes a reply from the question and the number of earlier calls with the same prompt.
type Script = dyn Fn(&Ask, usize) -> Reply + Send + Sync;

/// A client whose replies come from a script. Clones share their log.
#[derive(Clone)]
pub(crate) struct Fake {
    script: Arc<Script>,
    log: Arc<Mutex<Log>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The prompts in the order of the calls.
    pub(crate) prompts: Vec<String>,
    pub(crate) models: Vec<Option<String>>,
    pub(crate) running: usize,
    pub(crate) most_running: usize,
    pub(crate) dropped: usize,
    pub(crate) waits: usize,
    calls_of_prompt: HashMap<String, usize>,
}

impl Fake {
    pub(crate) fn new(script: impl Fn(&Ask, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), log: Arc::default() }
    }

    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    fn begin(&self, ask: &Ask) -> usize {
        let mut log = self.log.lock().unwrap();
        log.prompts.push(ask.prompt.clone());
        log.models.push(ask.model.clone());
        log.running += 1;
        log.most_running = log.most_running.max(log.running);
        let calls = log.calls_of_prompt.entry(ask.prompt.clone()).or_default();
        *calls += 1;
        *calls - 1
    }
}

impl Complete for Fake {
    async fn complete(&self, ask: &Ask) -> Reply {
        let earlier_calls = self.begin(ask);
        let mut call = Call { log: &self.log, is_finished: false };
        sleep(CALL).await;
        call.is_finished = true;
        (self.script)(ask, earlier_calls)
    }

    async fn complete_unless_stopped(&self, ask: &Ask, _stopped: &CancellationToken) -> Option<Reply> {
        Some(self.complete(ask).await)
    }

    async fn ready(&self, _model: Option<&str>) {
        self.log.lock().unwrap().waits += 1;
        sleep(WAIT).await;
    }
}

/// A call in flight.
struct Call<'a> {
    log: &'a Mutex<Log>,
    is_finished: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut log = self.log.lock().unwrap();
        log.running -= 1;
        log.dropped += usize::from(!self.is_finished);
    }
}

pub(crate) fn fatal() -> LlmError {
    LlmError::Fatal(fatal_error())
}

pub(crate) fn fatal_error() -> FatalLlmError {
    FatalLlmError::new("AuthenticationError", "the key is invalid: check it")
}

pub(crate) fn quota() -> LlmError {
    LlmError::Quota(FatalLlmError::new("RateLimitError", "the quota is used up"))
}

pub(crate) fn failed() -> LlmError {
    LlmError::Failed(FailedLlmError::new("InternalServerError", "try later", 3))
}

pub(crate) fn circuit_open() -> LlmError {
    let last_failure = Some("InternalServerError: try later".to_owned());
    LlmError::CircuitOpen(CircuitOpenError { model: "small".to_owned(), last_failure })
}

#[expect(clippy::unnecessary_wraps, reason = "scripts return it in place of an error")]
pub(crate) fn good() -> Reply {
    Ok("{\"answer\": 42}".to_owned())
}

pub(crate) fn unit(value: Value) -> Unit {
    serde_json::from_value(value).unwrap()
}

/// Returns units whose prompts are `0`, `1` and so on.
pub(crate) fn units(count: usize) -> Vec<(usize, Unit)> {
    (0..count).map(|index| (index, unit(json!({"q": index.to_string()})))).collect()
}

pub(crate) fn sequential(threshold: u32) -> ProcessingConfig {
    ProcessingConfig {
        mode: Mode::Sequential,
        circuit_breaker_threshold: threshold,
        ..ProcessingConfig::default()
    }
}

pub(crate) fn concurrent(batch_size: usize, threshold: u32) -> ProcessingConfig {
    ProcessingConfig { batch_size, circuit_breaker_threshold: threshold, ..ProcessingConfig::default() }
}

pub(crate) fn engine(client: &Fake, config: &ProcessingConfig) -> Engine<Fake> {
    Engine::new(client.clone(), PromptTemplate::new("{q}").unwrap(), config)
}

/// What a stream of events has delivered.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) results: Vec<Value>,
    /// The last event, if it is no result.
    pub(crate) end: Option<Event>,
}

impl Outcome {
    /// Returns the indices of the results in their order.
    pub(crate) fn indices(&self) -> Vec<u64> {
        self.results.iter().map(|result| result["_idx"].as_u64().unwrap()).collect()
    }

    pub(crate) fn is_tripped(&self) -> bool {
        matches!(self.end, Some(Event::Tripped(_)))
    }
}

pub(crate) async fn run(engine: &Engine<Fake>, units: Vec<(usize, Unit)>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut events = std::pin::pin!(engine.process(units));
    while let Some(event) = events.next().await {
        assert!(outcome.end.is_none(), "no event follows {:?}", outcome.end);
        match event {
            Event::Result(result) => outcome.results.push(result.into()),
            end => outcome.end = Some(end),
        }
    }
    outcome
}
