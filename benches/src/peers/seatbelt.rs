//! seatbelt, through its own service trait (`layered`) and through tower's.

use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use layered::Layer;
use seatbelt::breaker::{Breaker, BreakerId, BreakerLayer};
use seatbelt::retry::{Retry, RetryLayer};
use seatbelt::typestates::Set;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tick::Clock;
use tick::runtime::InactiveClock;

use super::AN_HOUR;
use crate::bare::{Bare, Fails, FailsTwice};
use crate::call::{finish, poll_out_of_line};
use crate::keys::random_key;
use crate::variant::{Calls, Expect, Variants};

const SEATBELT: &str = "seatbelt";
const SEATBELT_TOWER: &str = "seatbelt, tower";

type Guarded<Req, S = Bare> = Breaker<Req, io::Result<u32>, S>;

impl<Req: Fails + Send> layered::Service<Req> for Bare {
    type Out = io::Result<u32>;

    async fn execute(&self, request: Req) -> io::Result<u32> {
        tower::Service::call(&mut Bare, request).await
    }
}

impl layered::Service<bool> for FailsTwice {
    type Out = io::Result<u32>;

    async fn execute(&self, request: bool) -> io::Result<u32> {
        tower::Service::call(&mut FailsTwice, request).await
    }
}

pub(crate) fn add(variants: &mut Variants) {
    let succeeds = |_| false;
    let default = default_breaker;
    add_both(variants, "breaker, success", Expect::Success, default, succeeds);
    let never_trips = || shared(breaker_layer().min_throughput(u32::MAX).layer(Bare));
    add_both(variants, "breaker, failure", Expect::Failure, never_trips, |_| true);
    let tolerant = || shared(breaker_layer().failure_threshold(0.5).layer(Bare));
    add_both(variants, "breaker, every fourth fails", Expect::ThreeOfFour, tolerant, |call| call % 4 == 0);
    let rejected = || shared(open());
    add_both(variants, "breaker, rejected", Expect::Failure, rejected, succeeds);
    variants.add_cloned("breaker, a clone per call", SEATBELT_TOWER, Expect::Success, default, succeeds);

    let retry = || shared(retry_layer().layer(Bare));
    add_both(variants, "retry, no budget", Expect::Success, retry, succeeds);
    let both = || shared(retry_layer().layer(breaker_layer().layer(Bare)));
    add_both(variants, "retry over breaker, success", Expect::Success, both, succeeds);
    let two_retries = || {
        let breaker = breaker_layer().failure_threshold(0.9).layer(FailsTwice);
        shared(retry_layer().base_delay(Duration::ZERO).layer(breaker))
    };
    add_both(variants, "retry over breaker, two retries", Expect::Success, two_retries, succeeds);
    let rejected = || shared(retry_layer().layer(open()));
    add_both(variants, "retry over breaker, rejected", Expect::Failure, rejected, succeeds);

    add_both(variants, "keyed, 1 key", Expect::Success, || shared(keyed(1)), |_| 0);
    let thousand = || shared(keyed(1_000));
    add_both(variants, "keyed, 1,000 keys", Expect::Success, thousand, |call| random_key(call, 1_000));
    let many = || shared(keyed(100_000));
    add_both(variants, "keyed, 100,000 keys", Expect::Success, many, |call| random_key(call, 100_000));
}

/// Adds both styles through both service traits.
pub(crate) fn add_both<S, Req, Res, M>(
    variants: &mut Variants,
    row: &'static str,
    expect: Expect,
    set_up: impl Fn() -> M + Copy + 'static,
    request: impl Fn(u32) -> Req + Copy + Send + Sync + 'static,
) where
    S: layered::Service<Req, Out = io::Result<Res>>,
    S: tower::Service<Req, Response = Res, Error = io::Error> + 'static,
    M: Fn() -> S + Send + Sync + 'static,
    Req: 'static,
{
    let raw = move |service| raw(service, request);
    variants.add_calls(row, SEATBELT, expect, set_up, raw, move |service| awaited(service, request));
    variants.add(row, SEATBELT_TOWER, expect, set_up, request);
}

fn raw<S, Req, Res>(service: S, request: impl Fn(u32) -> Req + 'static) -> Calls
where
    S: layered::Service<Req, Out = io::Result<Res>> + 'static,
{
    let mut numbers = 0_u32..;
    Box::new(move |calls| {
        let mut successes = 0;
        for number in numbers.by_ref().take(calls as usize) {
            successes += u32::from(black_box(finish(pin!(service.execute(request(number)))).is_ok()));
        }
        successes
    })
}

fn awaited<S, Req, Res>(service: S, request: impl Fn(u32) -> Req + 'static) -> Calls
where
    S: layered::Service<Req, Out = io::Result<Res>> + 'static,
{
    let mut numbers = 0_u32..;
    Box::new(move |calls| {
        let batch = async {
            let mut successes = 0;
            for number in numbers.by_ref().take(calls as usize) {
                let mut future = pin!(execute(&service, request(number)));
                let result = poll_fn(|cx| poll_out_of_line(future.as_mut(), cx)).await;
                successes += u32::from(black_box(result.is_ok()));
            }
            successes
        };
        finish(pin!(batch))
    })
}

async fn execute<S: layered::Service<Req>, Req>(service: &S, request: Req) -> S::Out {
    service.execute(request).await
}

pub(crate) fn shared<S: Clone>(service: S) -> impl Fn() -> S {
    move || service.clone()
}

fn keyed(keys: u32) -> Guarded<u64> {
    let service = breaker_layer().breaker_id(|key: &u64| BreakerId::from(*key)).layer(Bare);
    crate::keys::call_each_key(&mut service.clone(), keys);
    service
}

fn open() -> Guarded<bool> {
    let mut service = breaker_layer().break_duration(AN_HOUR).layer(Bare);
    while !is_rejection(&finish(pin!(tower::Service::call(&mut service, true)))) {}
    service
}

fn breaker_layer<Req: Send + 'static>() -> BreakerLayer<Req, io::Result<u32>, Set, Set> {
    Breaker::layer("breaker", &ResilienceContext::new(clock()))
        .recovery_with(|result: &io::Result<u32>, _| recovery(result))
        .rejected_input_error(|_, _| io::ErrorKind::Other.into())
}

fn retry_layer() -> RetryLayer<bool, io::Result<u32>, Set, Set> {
    Retry::layer("retry", &ResilienceContext::new(clock()))
        .clone_input()
        .recovery_with(|result: &io::Result<u32>, _| recovery(result))
}

fn recovery(result: &io::Result<u32>) -> RecoveryInfo {
    if result.is_ok() || is_rejection(result) { RecoveryInfo::never() } else { RecoveryInfo::retry() }
}

pub(crate) fn is_rejection<Res>(result: &io::Result<Res>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Other)
}

/// A clock whose timers never fire. It reads the fast clock, as the layers of this workspace do.
pub(crate) fn clock() -> Clock {
    let (clock, _driver) = InactiveClock::default().activate(Waker::noop().clone());
    clock.with_fast_instant(true)
}

pub(super) fn default_breaker() -> impl Fn() -> Guarded<bool> {
    shared(breaker_layer().layer(Bare))
}
