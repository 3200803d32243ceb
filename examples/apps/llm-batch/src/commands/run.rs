//! Processes the items of a job until they are finished or the job is stopped.

use std::collections::BTreeSet;
use std::io::{self, StdinLock, Write};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::job::Job;
use super::signals::INTERRUPTED;
use crate::ask::{self, Choice};
use crate::checkpoint::Counts;
use crate::console::Console;
use crate::engine::{CircuitBreakerTripped, Engine, Event, TripStatus};
use crate::events::JobEvent;
use crate::files::FileError;
use crate::llm::LlmClient;
use crate::progress::{Circuits, Progress};
use crate::prompt::PromptTemplate;
use crate::unit;

/// How often the checkpoint is saved while items are processed.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Why the processing has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No item is left.
    Completed,
    /// The person has aborted the job after consecutive fatal errors.
    Aborted,
    /// The person has stopped the job at a check-in.
    Stopped,
    /// The quota is used up.
    QuotaExhausted,
    /// A signal has interrupted the program.
    Interrupted,
}

impl End {
    /// Returns the exit code of the program.
    pub(super) fn exit_code(self, failed: usize) -> u8 {
        match self {
            Self::Completed if failed == 0 => 0,
            Self::Completed => 1,
            Self::Aborted | Self::Stopped => 3,
            Self::QuotaExhausted => 4,
            Self::Interrupted => INTERRUPTED,
        }
    }
}

/// Why the engine has paused.
enum Pause {
    Finished,
    Tripped(TripStatus),
    QuotaExhausted(String),
    Interrupted,
}

/// A job that is processed.
struct Run {
    job: Job,
    client: LlmClient,
    engine: Engine<LlmClient>,
    /// The items that are not finished.
    pending: BTreeSet<usize>,
    /// Is cancelled when the program is to end.
    interrupted: CancellationToken,
}

/// Processes the pending items of a job, and returns the exit code of the program.
pub(super) async fn run_job(
    job: Job,
    client: LlmClient,
    template: PromptTemplate,
    pending: BTreeSet<usize>,
    interrupted: CancellationToken,
) -> Result<u8, CommandError> {
    job.warn(&template);
    let config = &job.checkpoint().config;
    let engine =
        Engine::new(client.clone(), template, &config.processing).model_field(config.llm.model_field.clone());
    report_circuits(&client, job.console);
    let mut run = Run { job, client, engine, pending, interrupted };
    match run.process().await {
        Ok(end) => run.job.finish(end),
        Err(error) => {
            run.job.console.line(format_args!("To resume later: {}", run.job.resume_command));
            Err(error.into())
        }
    }
}

/// Prints an event whenever the circuit of a model changes its state.
fn report_circuits(client: &LlmClient, console: Console) {
    client.circuits().on_transition(move |transition| {
        console.event(&JobEvent::ModelCircuit {
            model: transition.key.as_deref().unwrap_or_default(),
            from: transition.from.to_string(),
            to: transition.to.to_string(),
        });
    });
}

impl Run {
    /// Processes the pending items. The checkpoint is saved whenever the processing pauses.
    async fn process(&mut self) -> Result<End, FileError> {
        let checkin_interval = self.job.checkpoint().config.processing.checkin_interval;
        self.job.save()?;
        while !self.pending.is_empty() {
            let length = checkin_interval.unwrap_or(self.pending.len());
            let part: Vec<usize> = self.pending.iter().copied().take(length).collect();
            let pause = self.process_part(&part).await?;
            let counts = self.job.save()?;
            let end = match pause {
                Pause::Interrupted => Some(End::Interrupted),
                Pause::QuotaExhausted(error) => {
                    self.job.console.line(format_args!("The quota is used up: {error}"));
                    self.job.console.event(&JobEvent::QuotaExhausted { error: &error });
                    Some(End::QuotaExhausted)
                }
                Pause::Tripped(status) => self.ask_after_trip(status, counts).await,
                Pause::Finished if self.pending.is_empty() => None,
                Pause::Finished => self.check_in(counts).await,
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
        Ok(End::Completed)
    }

    /// Processes these items. Calls in flight are dropped if the program is interrupted.
    async fn process_part(&mut self, part: &[usize]) -> Result<Pause, FileError> {
        let progress = Progress::new(self.job.counts());
        let mut events = pin!(self.engine.process(self.job.units(part)));
        let mut show = interval(progress.interval());
        let mut save = interval_at(Instant::now() + SAVE_INTERVAL, SAVE_INTERVAL);
        let pause = loop {
            tokio::select! {
                biased;
                () = self.interrupted.cancelled() => break Pause::Interrupted,
                _ = save.tick() => drop(self.job.save()?),
                _ = show.tick() => progress.show(self.job.counts(), self.circuits()),
                event = events.next() => match event {
                    None => break Pause::Finished,
                    Some(Event::Result(result)) => {
                        self.job.record(&result)?;
                        self.pending.remove(&unit::index(&result).expect("a result has its index"));
                    }
                    Some(Event::Tripped(CircuitBreakerTripped(status))) => break Pause::Tripped(status),
                    Some(Event::QuotaExhausted { error }) => break Pause::QuotaExhausted(error.to_string()),
                },
            }
        };
        progress.show(self.job.counts(), self.circuits());
        Ok(pause)
    }

    fn circuits(&self) -> Circuits {
        Circuits { job: self.engine.status(), models: self.client.circuits().statuses() }
    }

    /// Asks the person after a trip. `None`: the job continues.
    async fn ask_after_trip(&self, status: TripStatus, counts: Counts) -> Option<End> {
        self.job.console.event(&JobEvent::Tripped {
            consecutive_failures: status.consecutive_failures,
            error_type: status.last_error_type.as_deref(),
            message: status.last_error_message.as_deref(),
        });
        let answer = self.ask(move |input, output| ask::after_trip(input, output, &status, counts)).await;
        match answer {
            None => Some(End::Interrupted),
            Some(Choice::Abort) => Some(End::Aborted),
            Some(Choice::Continue) => {
                self.engine.reset_circuit_breaker();
                self.job.console.event(&JobEvent::Resumed);
                None
            }
        }
    }

    /// Asks the person at a check-in. `None`: the job continues.
    async fn check_in(&self, counts: Counts) -> Option<End> {
        self.job.console.event(&JobEvent::CheckIn);
        match self.ask(move |input, output| ask::check_in(input, output, counts)).await {
            None => Some(End::Interrupted),
            Some(Choice::Abort) => Some(End::Stopped),
            Some(Choice::Continue) => {
                self.job.console.event(&JobEvent::Resumed);
                None
            }
        }
    }

    /// Asks a question on a thread of its own. `None`: the program is interrupted.
    ///
    /// If the question cannot be asked, the job is aborted.
    async fn ask<F>(&self, question: F) -> Option<Choice>
    where
        F: FnOnce(&mut StdinLock<'_>, &mut Box<dyn Write>) -> io::Result<Choice> + Send + 'static,
    {
        let console = self.job.console;
        let asked =
            tokio::task::spawn_blocking(move || question(&mut io::stdin().lock(), &mut console.writer()));
        tokio::select! {
            () = self.interrupted.cancelled() => None,
            answer = asked => Some(answer.ok().and_then(Result::ok).unwrap_or(Choice::Abort)),
        }
    }
}
