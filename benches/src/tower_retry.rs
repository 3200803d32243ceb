//! tower's retry layer, with a policy of a few lines.

use std::future::{Ready, ready};
use std::io;

use tower::Layer;
use tower::retry::{Policy, RetryLayer};

use crate::service::Bare;
use crate::variant::{Expect, Variants};

const TOWER: &str = "tower";

/// The policy of tower's documentation: it retries each error a number of times, without a delay.
#[derive(Clone, Copy)]
struct Attempts(u32);

impl Policy<bool, u32, io::Error> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut bool, result: &mut io::Result<u32>) -> Option<Ready<()>> {
        if result.is_ok() {
            return None;
        }
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &bool) -> Option<bool> {
        Some(*request)
    }
}

pub(crate) fn add(variants: &mut Variants) {
    let no_budget = || || RetryLayer::new(Attempts(2)).layer(Bare);
    variants.add("retry, no budget", TOWER, Expect::Success, no_budget, |_| false);
}
