//! The command `run`.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{CommandError, FAILED, INTERRUPTED, SUCCESS};
use crate::breaker::CircuitBreaker;
use crate::cli::RunArgs;
use crate::config::WorkerConfig;
use crate::llm::{LlmClient, LlmError};
use crate::output::{Call, Console, Event, Outcome};
use crate::registry::get_circuit_breaker;
use crate::signals::Signals;

/// The least time after a rejected call, so that a worker without an interval does not spin.
const AFTER_REJECTION: Duration = Duration::from_millis(100);

/// The calls of a worker, and their counts.
#[derive(Debug)]
struct Work {
    config: WorkerConfig,
    breaker: CircuitBreaker,
    client: LlmClient,
    console: Console,
    begun: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

/// Calls the API until all calls are made, or until a signal interrupts the worker.
pub(super) async fn run(arguments: RunArgs, console: Console) -> Result<u8, CommandError> {
    let RunArgs { common, options } = arguments;
    let mut signals = Signals::new();
    let config = options.resolve(common.config.as_deref()).map_err(CommandError::usage)?;
    let breaker = tokio::select! {
        breaker = get_circuit_breaker(&config.redis_url, &config.name, config.breaker.clone()) => breaker,
        () = signals.next() => return Ok(INTERRUPTED),
    };
    let breaker = breaker.map_err(CommandError::usage)?;
    let client = LlmClient::new(config.llm.clone(), breaker.clone()).map_err(CommandError::usage)?;
    print_start(&breaker, console);
    let work = Arc::new(Work {
        config,
        breaker,
        client,
        console,
        begun: AtomicU64::new(0),
        succeeded: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        rejected: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..work.config.concurrency {
        let work = Arc::clone(&work);
        tasks.spawn(async move { work.make_calls().await });
    }
    let is_interrupted = tokio::select! {
        () = signals.next() => true,
        () = join(&mut tasks) => false,
    };
    tasks.shutdown().await;
    tokio::select! {
        () = work.breaker.close() => {}
        // A second signal, or one after the last call.
        () = signals.next() => {}
    }
    Ok(work.end(is_interrupted))
}

fn print_start(breaker: &CircuitBreaker, console: Console) {
    let fleet = breaker.fleet().status();
    console.print(&Event::Started {
        breaker: breaker.name(),
        instance: &fleet.instance,
        state: breaker.state(),
        retry_after: breaker.circuit().status().retry_after,
        attached: fleet.attached,
    });
}

impl Work {
    /// Makes one call after the other.
    async fn make_calls(&self) {
        loop {
            let number = 1 + self.begun.fetch_add(1, Ordering::Relaxed);
            if self.config.calls.is_some_and(|calls| number > calls) {
                return;
            }
            let result = self.client.complete(&self.config.prompt).await;
            let pause = match &result {
                Err(LlmError::Rejected(_)) => self.config.interval.max(AFTER_REJECTION),
                _ => self.config.interval,
            };
            self.report(number, &result);
            sleep(pause).await;
        }
    }

    fn report(&self, number: u64, result: &Result<String, LlmError>) {
        let state = self.breaker.state();
        let (outcome, count, kind, retry_after, text) = match result {
            Ok(reply) => (Outcome::Succeeded, &self.succeeded, None, None, reply.clone()),
            Err(error) => {
                let kind = Some(error.kind().as_str());
                match error {
                    LlmError::Rejected(rejection) => {
                        let text = rejection.to_string();
                        (Outcome::Rejected, &self.rejected, kind, rejection.retry_after(), text)
                    }
                    LlmError::Failed(_) => (Outcome::Failed, &self.failed, kind, None, error.to_string()),
                }
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.console.print(&Event::Call(Call { number, outcome, state, kind, retry_after, text: &text }));
    }

    /// Prints the counts, and returns the exit code.
    fn end(&self, is_interrupted: bool) -> u8 {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (succeeded, failed) = (count(&self.succeeded), count(&self.failed));
        let rejected = count(&self.rejected);
        let exit_code = match (is_interrupted, failed + rejected) {
            (true, _) => INTERRUPTED,
            (false, 0) => SUCCESS,
            (false, _) => FAILED,
        };
        let calls = succeeded + failed + rejected;
        let state = self.breaker.state();
        self.console.print(&Event::Ended { calls, succeeded, failed, rejected, state, exit_code });
        exit_code
    }
}

/// Waits until all tasks have ended. A panic of a task propagates, so that no call is lost unseen.
async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
    }
}
