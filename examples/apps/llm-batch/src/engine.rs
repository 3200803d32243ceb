//! Sends the units of a job to the LLM API, and stops when no call can succeed.
//!
//! Two kinds of circuits are involved:
//!
//! - The [job's circuit](JobCircuit) counts fatal errors, such as an invalid key. When it opens, no
//!   further attempt begins. The attempts in flight finish, and the stream of events ends with
//!   [`Event::Tripped`].
//! - The client has a circuit for each model, which opens while the API is down. The units of that
//!   model wait until it admits calls again, and fail after `max_wait`.

mod circuit;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use tower_fault_classify::ErrorChain;

pub use self::circuit::{CircuitBreakerTripped, JobCircuit, TripStatus};
use crate::config::{Mode, ProcessingConfig};
use crate::errors::{CircuitOpenError, FatalLlmError, LlmError};
use crate::llm::{Ask, Complete};
use crate::prompt::PromptTemplate;
use crate::reply;
use crate::unit::{self, Unit};

/// What happened to a job.
#[derive(Debug)]
pub enum Event {
    /// The result of a unit, with its `_idx`. Results come in the order in which they complete.
    Result(Unit),
    /// The job's circuit is open. This is the last event.
    Tripped(CircuitBreakerTripped),
    /// The quota of the account is used up. This is the last event. A unit that was refused for
    /// this reason has no result, so that it is asked again when the job is resumed.
    QuotaExhausted {
        /// The error of the first unit that was refused.
        error: FatalLlmError,
    },
}

/// Sends units to the LLM API.
#[derive(Debug)]
pub struct Engine<C> {
    client: C,
    template: PromptTemplate,
    config: ProcessingConfig,
    model_field: Option<String>,
    circuit: JobCircuit,
    concurrency: usize,
    /// Bounds the concurrent calls. A unit that waits for the circuit of its model makes no call.
    calls: Semaphore,
}

/// What the units of one stream share.
#[derive(Debug, Default)]
struct Run {
    /// Cancelled when no further call may begin.
    stopped: CancellationToken,
    quota_error: OnceLock<FatalLlmError>,
}

impl<C: Complete + Sync> Engine<C> {
    /// Creates an engine.
    pub fn new(client: C, template: PromptTemplate, config: &ProcessingConfig) -> Self {
        let concurrency = match config.mode {
            Mode::Sequential => 1,
            Mode::Async => config.batch_size,
        };
        Self {
            client,
            template,
            config: config.clone(),
            model_field: None,
            circuit: JobCircuit::new(config.circuit_breaker_threshold),
            concurrency,
            calls: Semaphore::new(concurrency),
        }
    }

    /// Sets the field of a unit that names its model. `None`, the default: all units use the model
    /// of the client.
    #[must_use]
    pub fn model_field(mut self, field: Option<String>) -> Self {
        self.model_field = field;
        self
    }

    /// Closes the job's circuit, for example after the person has changed the key.
    pub fn reset_circuit_breaker(&self) {
        self.circuit.reset();
    }

    /// Returns the state of the job's circuit.
    pub fn status(&self) -> TripStatus {
        self.circuit.status()
    }

    /// Processes units, each with its position in the input.
    ///
    /// The stream has a result for each unit, unless the job is stopped before. In sequential mode,
    /// the units are asked one after the other. In async mode, up to `batch_size` calls run at
    /// once, and the units of each model are started in their order. A unit is started only when
    /// there is room for it.
    ///
    /// Drop the stream to drop the calls in flight.
    pub fn process(&self, units: Vec<(usize, Unit)>) -> impl Stream<Item = Event> {
        let run = Arc::new(Run::default());
        let queues = match self.config.mode {
            Mode::Sequential => vec![units],
            Mode::Async => self.by_model(units),
        };
        let results = stream::select_all(queues.into_iter().map(|units| {
            let run = Arc::clone(&run);
            stream::iter(units)
                .take_until(run.stopped.clone().cancelled_owned())
                .map(move |(index, unit)| self.process_unit(Arc::clone(&run), index, unit))
                .buffer_unordered(self.concurrency)
                .filter_map(ready)
                .boxed()
        }));
        let end = stream::once(async move { self.last_event(&run) }).filter_map(ready);
        results.map(Event::Result).chain(end)
    }

    /// Returns a queue for each model, so that units whose model is down do not delay the others.
    fn by_model(&self, units: Vec<(usize, Unit)>) -> Vec<Vec<(usize, Unit)>> {
        let mut queues: BTreeMap<Option<String>, Vec<(usize, Unit)>> = BTreeMap::new();
        for (index, unit) in units {
            // A unit without a valid model fails without a call, in any queue.
            let model = self.model(&unit).unwrap_or_default();
            queues.entry(model).or_default().push((index, unit));
        }
        queues.into_values().collect()
    }

    /// Returns the last event, if the job was stopped.
    fn last_event(&self, run: &Run) -> Option<Event> {
        // The quota first: to continue is of no use, whatever the circuit is.
        if let Some(error) = run.quota_error.get() {
            return Some(Event::QuotaExhausted { error: error.clone() });
        }
        let status = self.status();
        status.is_tripped.then_some(Event::Tripped(CircuitBreakerTripped(status)))
    }

    /// Returns the result of a unit. `None`: the job was stopped before the unit was finished.
    async fn process_unit(&self, run: Arc<Run>, index: usize, unit: Unit) -> Option<Unit> {
        let mut item = unit.clone();
        unit::move_reserved_fields(&mut item);
        let mut result = match self.ask(&unit) {
            Ok(ask) => self.answer(&run, &unit, &item, &ask).await?,
            Err(error) => failed(item, &*error),
        };
        result.insert(unit::IDX.to_owned(), index.into());
        Some(result)
    }

    fn ask(&self, unit: &Unit) -> Result<Ask, BoxError> {
        Ok(Ask { prompt: self.template.render(unit)?, model: self.model(unit)?, ..Ask::default() })
    }

    /// Returns the model that a unit names.
    fn model(&self, unit: &Unit) -> Result<Option<String>, InvalidModel> {
        let Some(field) = &self.model_field else { return Ok(None) };
        match unit.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(model)) if !model.is_empty() => Ok(Some(model.clone())),
            Some(_) => Err(InvalidModel { field: field.clone() }),
        }
    }

    /// Makes the result from a reply. Asks again if the reply does not parse.
    async fn answer(&self, run: &Run, unit: &Unit, item: &Unit, ask: &Ask) -> Option<Unit> {
        let mut attempts = 0;
        let mut wait_left = self.config.max_wait;
        loop {
            let reply = match self.complete(run, unit, ask, &mut wait_left).await? {
                Ok(reply) => reply,
                Err(error) => return Some(failed(item.clone(), &*error)),
            };
            attempts += 1;
            match reply::result_of(item, &reply, &self.config) {
                Ok(result) => return Some(result),
                Err(error) if attempts > self.config.parse_error_retries => {
                    let mut result = reply::unparsed(item, &reply, &error);
                    result.insert(unit::RETRIES_EXHAUSTED.to_owned(), true.into());
                    result.insert(unit::ATTEMPTS.to_owned(), attempts.into());
                    return Some(result);
                }
                Err(error) => tracing::debug!(%error, attempts, "the reply does not parse, asking again"),
            }
        }
    }

    /// Returns the outcome of a call that the circuit of the model admits, or an error if the unit
    /// has waited for the circuit for too long. `None`: the job was stopped before.
    async fn complete(
        &self,
        run: &Run,
        unit: &Unit,
        ask: &Ask,
        wait_left: &mut Duration,
    ) -> Option<Result<String, BoxError>> {
        loop {
            match self.call(run, unit, ask).await? {
                Err(LlmError::CircuitOpen(error)) => {
                    tracing::debug!(%error, "waiting for the circuit of the model");
                    if !self.wait_for_model(run, ask, wait_left).await? {
                        let waited = self.config.max_wait;
                        return Some(Err(WaitedTooLong { waited, source: error }.into()));
                    }
                }
                Err(LlmError::Quota(error)) => {
                    run.stopped.cancel();
                    // If several calls were refused, the first error is kept.
                    let _ = run.quota_error.set(error);
                    return None;
                }
                outcome => return Some(outcome.map_err(Into::into)),
            }
        }
    }

    /// Waits until the circuit of the model admits calls, and returns whether it does. `None`: the
    /// job was stopped before.
    async fn wait_for_model(&self, run: &Run, ask: &Ask, wait_left: &mut Duration) -> Option<bool> {
        let start = Instant::now();
        let ready = timeout(*wait_left, self.client.ready(ask.model.as_deref()));
        let is_ready = run.stopped.run_until_cancelled(ready).await?.is_ok();
        *wait_left = wait_left.saturating_sub(start.elapsed());
        Some(is_ready)
    }

    /// Makes a call, and records its outcome. `None`: the job was stopped before an attempt.
    async fn call(&self, run: &Run, unit: &Unit, ask: &Ask) -> Option<Result<String, LlmError>> {
        let _slot = self.calls.acquire().await.ok()?;
        if run.stopped.is_cancelled() {
            return None;
        }
        let permit = self.circuit.try_acquire().ok()?;
        let outcome = self.client.complete_unless_stopped(ask, &run.stopped).await?;
        match &outcome {
            Ok(_) => self.circuit.record_success(permit),
            Err(LlmError::Fatal(error)) => {
                if self.circuit.record_failure(permit, error, unit) {
                    run.stopped.cancel();
                }
            }
            // Other errors neither count nor end the run of fatal errors.
            Err(_) => permit.cancel(),
        }
        Some(outcome)
    }
}

/// Returns the result of an item that was not answered.
fn failed(item: Unit, error: &(dyn Error + 'static)) -> Unit {
    let mut result = item;
    result.insert(unit::ERROR.to_owned(), ErrorChain(error).to_string().into());
    result
}

/// An item has waited for the circuit of its model for `max_wait`.
#[derive(Debug)]
struct WaitedTooLong {
    waited: Duration,
    source: CircuitOpenError,
}

impl fmt::Display for WaitedTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.waited.as_secs_f64();
        write!(f, "the item waited {seconds} s in all; to retry it, use `resume --retry-failures`")
    }
}

impl Error for WaitedTooLong {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// An item names its model with something else than a text.
#[derive(Debug)]
struct InvalidModel {
    field: String,
}

impl fmt::Display for InvalidModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the item's field `{}` is not the name of a model; write a text, or remove it", self.field)
    }
}

impl Error for InvalidModel {}
