//! Validators with a fixed behavior.

use std::future::pending;
use std::io;

use futures::FutureExt;
use futures::future::BoxFuture;
use validator::error::CheckError;
use validator::orchestrator::ValidationOrchestrator;
use validator::result::{Details, Verdict};
use validator::timeouts::{Seconds, Timeouts};
use validator::validator::Validator;

/// How a [`Stub`] behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behavior {
    Passes,
    Fails,
    Hangs,
    /// Fails with an error whose text has 300 characters of two bytes each.
    ReturnsError,
    Panics,
    /// Panics before it returns its future.
    PanicsAtOnce,
}

#[derive(Debug)]
pub(crate) struct Stub(pub(crate) &'static str, pub(crate) Behavior);

impl Stub {
    async fn run(&self) -> Result<Verdict, CheckError> {
        let passed = match self.1 {
            Behavior::Passes => true,
            Behavior::Fails => false,
            Behavior::Hangs => pending().await,
            Behavior::ReturnsError => return Err(io::Error::other("é".repeat(300)).into()),
            Behavior::Panics | Behavior::PanicsAtOnce => panic!("index {} is wrong", 7),
        };
        Ok(Verdict { passed, message: format!("{} has run", self.0), details: Details::new() })
    }
}

impl Validator for Stub {
    fn dimension(&self) -> &str {
        self.0
    }

    fn tier(&self) -> u8 {
        1
    }

    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>> {
        assert!(!matches!(self.1, Behavior::PanicsAtOnce), "not ready");
        self.run().boxed()
    }
}

/// Returns an orchestrator of validators, with the default time limits.
pub(crate) fn orchestrator(
    validators: impl IntoIterator<Item = impl Validator + 'static>,
) -> ValidationOrchestrator {
    let validators = validators.into_iter().map(|validator| Box::new(validator) as Box<dyn Validator>);
    ValidationOrchestrator::new(validators.collect(), Timeouts::new())
}

/// Returns the time limits of a configuration, in seconds.
pub(crate) fn timeouts<const N: usize>(seconds: [(&str, f64); N]) -> Timeouts {
    seconds
        .into_iter()
        .map(|(dimension, seconds)| (dimension.to_owned(), Seconds::try_from(seconds).unwrap()))
        .collect()
}
