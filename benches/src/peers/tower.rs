//! tower's retry layer, with the policies of its documentation.

use std::future::{Ready, ready};
use std::sync::Arc;

use tower::Layer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};

use crate::bare::Bare;
use crate::variant::{Expect, Variants};

const TOWER: &str = "tower";

/// Retries each error that is no rejection twice, without a delay.
#[derive(Clone, Copy)]
pub(super) struct Attempts(u32);

/// Says whether an error is a rejection, which is not retried.
pub(super) trait IsRejection {
    fn is_rejection(&self) -> bool {
        false
    }
}

impl IsRejection for std::io::Error {}

impl<E> IsRejection for recloser::Error<E> {
    fn is_rejection(&self) -> bool {
        matches!(self, recloser::Error::Rejected)
    }
}

impl<E: IsRejection> Policy<bool, u32, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut bool, result: &mut Result<u32, E>) -> Option<Ready<()>> {
        if result.as_ref().map_or_else(IsRejection::is_rejection, |_| true) {
            return None;
        }
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &bool) -> Option<bool> {
        Some(*request)
    }
}

/// Retries each error while the budget allows it.
#[derive(Clone)]
struct WithBudget(Arc<TpsBudget>);

impl<E> Policy<bool, u32, E> for WithBudget {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut bool, result: &mut Result<u32, E>) -> Option<Ready<()>> {
        if result.is_ok() {
            self.0.deposit();
            return None;
        }
        self.0.withdraw().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &bool) -> Option<bool> {
        Some(*request)
    }
}

pub(crate) fn add(variants: &mut Variants) {
    let budget = || {
        let layer = RetryLayer::new(WithBudget(Arc::new(TpsBudget::default())));
        move || layer.layer(Bare)
    };
    variants.add("retry, budget", TOWER, Expect::Success, budget, |_| false);
    let no_budget = || || retry_layer().layer(Bare);
    variants.add("retry, no budget", TOWER, Expect::Success, no_budget, |_| false);
}

pub(super) fn retry_layer() -> RetryLayer<Attempts> {
    RetryLayer::new(Attempts(2))
}
