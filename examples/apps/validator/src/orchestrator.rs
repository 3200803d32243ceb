//! Runs validators, and returns a result of each of them.

use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Semaphore;

use crate::result::{Report, ValidationResult};
use crate::timeouts::{Timeouts, get_timeout, with_timeout};
use crate::validator::Validator;

/// How many validators run at the same time, if the configuration does not say it.
pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Runs validators concurrently, each with the time limit of its dimension.
#[derive(Debug)]
pub struct ValidationOrchestrator {
    validators: Vec<Box<dyn Validator>>,
    timeouts: Timeouts,
    concurrency: NonZeroUsize,
}

impl ValidationOrchestrator {
    /// Creates an orchestrator that runs [`DEFAULT_CONCURRENCY`] validators at the same time.
    ///
    /// `timeouts` are the time limits of the configuration.
    pub fn new(validators: Vec<Box<dyn Validator>>, timeouts: Timeouts) -> Self {
        Self { validators, timeouts, concurrency: DEFAULT_CONCURRENCY }
    }

    /// Sets how many validators run at the same time.
    pub fn concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Keeps only the validators for which `keep` returns `true`.
    pub fn retain(&mut self, keep: impl Fn(&dyn Validator) -> bool) {
        self.validators.retain(|validator| keep(&**validator));
    }

    /// Returns the validators, in the order of their results.
    pub fn validators(&self) -> &[Box<dyn Validator>] {
        &self.validators
    }

    /// Returns the time limit of the validators of a dimension.
    pub fn get_validator_timeout(&self, dimension: &str) -> Duration {
        get_timeout(dimension, &self.timeouts)
    }

    /// Runs all validators, and returns a result of each, in their order.
    ///
    /// A validator that fails with an error, panics, or does not finish in time does not affect the
    /// others. Its result says what happened.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the futures of the validators that run.
    pub async fn run_graceful(&self) -> Report {
        self.run_graceful_with(|_| {}).await
    }

    /// Runs all validators as [`run_graceful`](Self::run_graceful) does, and passes each result to
    /// `on_result` as soon as it is known, in the order in which the validators finish.
    pub async fn run_graceful_with(&self, on_result: impl Fn(&ValidationResult)) -> Report {
        self.run_graceful_until(pending(), on_result).await
    }

    /// Runs all validators as [`run_graceful_with`](Self::run_graceful_with) does, until
    /// `interrupt` completes.
    ///
    /// Then the futures of the validators that have not finished are dropped. Their results say
    /// that they were interrupted.
    pub async fn run_graceful_until(
        &self,
        interrupt: impl Future<Output = ()>,
        on_result: impl Fn(&ValidationResult),
    ) -> Report {
        let interrupt = interrupt.shared();
        let permits = Semaphore::new(self.concurrency.get().min(Semaphore::MAX_PERMITS));
        let run = async |validator: &dyn Validator| {
            let result = tokio::select! {
                biased;
                () = interrupt.clone() => {
                    ValidationResult::from_interrupt(validator.dimension(), validator.tier())
                }
                result = self.run_with_permit(validator, &permits) => result,
            };
            on_result(&result);
            result
        };
        let results = join_all(self.validators.iter().map(|validator| run(&**validator))).await;
        Report::new(results)
    }

    async fn run_with_permit(&self, validator: &dyn Validator, permits: &Semaphore) -> ValidationResult {
        // The semaphore is never closed.
        let _permit = permits.acquire().await;
        self.run_one(validator).await
    }

    async fn run_one(&self, validator: &dyn Validator) -> ValidationResult {
        let (dimension, tier) = (validator.dimension(), validator.tier());
        let timeout = self.get_validator_timeout(dimension);
        // The block also catches a panic of `validate` before it returns its future.
        let validation = AssertUnwindSafe(async { validator.validate().await }).catch_unwind();
        let result = match with_timeout(validation, timeout, dimension).await {
            Ok(Ok(Ok(verdict))) => return ValidationResult::from_verdict(dimension, tier, verdict),
            Ok(Ok(Err(error))) => ValidationResult::from_error(dimension, tier, &error),
            Ok(Err(payload)) => ValidationResult::from_panic(dimension, tier, &*payload),
            Err(_) => ValidationResult::from_timeout(dimension, tier, timeout),
        };
        tracing::warn!(
            dimension,
            tier,
            error = result.error(),
            message = result.message,
            text = result.error_text(),
            "the validator gave no verdict"
        );
        result
    }
}
