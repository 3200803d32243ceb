//! failsafe, which wraps futures. Each call of the service is wrapped, as its documentation shows.

use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use failsafe::backoff::{self, EqualJittered};
use failsafe::failure_policy::{self, ConsecutiveFailures, OrElse, SuccessRateOverTimeWindow};
use failsafe::futures::{CircuitBreaker, ResponseFuture};
use failsafe::{Any, Config, Error, FailurePolicy, StateMachine};
use tower::Service;

use super::AN_HOUR;
use crate::bare::Bare;
use crate::call::finish;
use crate::variant::{Expect, Variants};

const FAILSAFE: &str = "failsafe";

type DefaultPolicy = OrElse<SuccessRateOverTimeWindow<EqualJittered>, ConsecutiveFailures<EqualJittered>>;

/// The defaults of failsafe's failure rate.
const MINIMUM: u32 = 5;
const WINDOW: Duration = Duration::from_secs(30);

pub(crate) fn add(variants: &mut Variants) {
    let succeeds = |_| false;
    let default = default_breaker;
    variants.add("breaker, success", FAILSAFE, Expect::Success, default, succeeds);
    let never_trips = || shared(Config::new().failure_policy(success_rate(0.0)).build());
    variants.add("breaker, failure", FAILSAFE, Expect::Failure, never_trips, |_| true);
    // The moving average weighs a call by the time since the previous one. So the first call of a
    // batch, which fails, has almost all of the weight.
    let tolerant = || {
        let policy = success_rate(0.0).or_else(ConsecutiveFailures::default());
        shared(Config::new().failure_policy(policy).build())
    };
    variants
        .add("breaker, every fourth fails", FAILSAFE, Expect::ThreeOfFour, tolerant, |call| call % 4 == 0);
    let open = || {
        let policy = failure_policy::consecutive_failures(MINIMUM, backoff::constant(AN_HOUR));
        let policy = success_rate(0.8).or_else(policy);
        let service = shared(Config::new().failure_policy(policy).build());
        let mut opening = service();
        while !matches!(finish(pin!(opening.call(true))), Err(Error::Rejected)) {}
        service
    };
    variants.add("breaker, rejected", FAILSAFE, Expect::Failure, open, succeeds);
    variants.add_cloned("breaker, a clone per call", FAILSAFE, Expect::Success, default, succeeds);
}

/// A policy that opens the circuit if fewer calls succeed.
fn success_rate(rate: f64) -> SuccessRateOverTimeWindow<backoff::Constant> {
    failure_policy::success_rate_over_time_window(rate, MINIMUM, WINDOW, backoff::constant(AN_HOUR))
}

fn shared<P>(breaker: StateMachine<P, ()>) -> impl Fn() -> Guarded<P> {
    let guarded = Guarded { breaker, inner: Bare };
    move || guarded.clone()
}

/// A service whose calls are wrapped.
pub(super) struct Guarded<P> {
    breaker: StateMachine<P, ()>,
    inner: Bare,
}

impl<P> Clone for Guarded<P> {
    fn clone(&self) -> Self {
        Self { breaker: self.breaker.clone(), inner: self.inner }
    }
}

impl<P: FailurePolicy + Send + Sync> Service<bool> for Guarded<P> {
    type Response = u32;
    type Error = Error<std::io::Error>;
    type Future = ResponseFuture<<Bare as Service<bool>>::Future, P, (), Any>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<bool>::poll_ready(&mut self.inner, cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: bool) -> Self::Future {
        CircuitBreaker::call(&self.breaker, self.inner.call(request))
    }
}

pub(super) fn default_breaker() -> impl Fn() -> Guarded<DefaultPolicy> {
    shared(Config::new().build())
}
