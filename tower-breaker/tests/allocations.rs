//! A call allocates nothing, in any state of the circuit. The inner service allocates nothing
//! itself.

use std::future::{Future, Ready, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::{Layer, Service};
use tower_breaker::control::{Command, Signal};
use tower_breaker::fault_classify::classify_error;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, Clock};

const OPEN_FOR: Duration = Duration::from_secs(30);

/// Returns a builder for a circuit that opens after five failures in a row at any speed.
fn quick(clock: Clock) -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .clock(clock)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(OPEN_FOR)
        .open_jitter(0.0)
}

/// A service that fails if the request is `true`.
#[derive(Clone)]
struct Answers;

impl Service<bool> for Answers {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<Result<(), io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, fails: bool) -> Self::Future {
        ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
    }
}

fn call<S: Service<bool>>(service: &mut S, fails: bool) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("the service must be ready") };
    let Poll::Ready(result) = pin!(service.call(fails)).poll(&mut cx) else {
        panic!("the call must complete immediately")
    };
    result
}

/// Returns the number of allocations of 100 calls. A first call, which may allocate, is not
/// counted.
fn allocations(mut run: impl FnMut()) -> u64 {
    run();
    allocation_counter::measure(|| (0..100).for_each(|_| run())).count_total
}

#[test]
fn success_allocates_nothing() {
    for config in [BreakerConfig::default(), BreakerConfig::builder().count_window(100).build().unwrap()] {
        let mut service = BreakerLayer::new(config).layer(Answers);
        assert_eq!(allocations(|| call(&mut service, false).unwrap()), 0);
    }
}

#[test]
fn failure_allocates_nothing() {
    let config = BreakerConfig::builder().consecutive_failures(0).minimum_calls(u32::MAX).build().unwrap();
    let mut service = BreakerLayer::new(config).layer(Answers);
    assert_eq!(allocations(|| assert!(call(&mut service, true).is_err())), 0);
    assert_eq!(
        allocations(|| assert!(call(&mut service, true).is_err() && call(&mut service, false).is_ok())),
        0
    );
}

#[test]
fn rejection_allocates_nothing() {
    let config = quick(Clock::default()).build().unwrap();
    let mut service = BreakerLayer::new(config).layer(Answers);
    for _ in 0..5 {
        call(&mut service, true).unwrap_err();
    }
    let rejected = |error| matches!(error, Err(BreakerError::Rejected(_)));
    assert_eq!(allocations(|| assert!(rejected(call(&mut service, false)))), 0);
}

#[test]
fn rejection_that_is_read_allocates_nothing() {
    let circuit = Circuit::new(quick(Clock::default()).build().unwrap());
    for trip in [Circuit::trip, Circuit::force_open] {
        trip(&circuit).unwrap();
        let count = allocations(|| {
            let error =
                circuit.try_acquire().map(drop).map_err(BreakerError::<io::Error>::Rejected).unwrap_err();
            let fault = classify_error(&error);
            assert_eq!(error.rejection().unwrap().retry_after(), fault.retry_after());
            assert!(error.rejection().cloned().is_some());
        });
        assert_eq!(count, 0);
    }
}

#[test]
fn signal_allocates_nothing() {
    let sent = Arc::new(AtomicU64::new(0));
    let listen = |circuit: &Circuit| {
        let counted = Arc::clone(&sent);
        circuit.on_signal(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
    };
    let config = BreakerConfig::builder().consecutive_failures(0).minimum_calls(u32::MAX).build().unwrap();
    let mut failing = BreakerLayer::new(config).layer(Answers);
    let open = Circuit::new(BreakerConfig::default());
    let probing = Circuit::new(BreakerConfig::default());
    [&failing.circuit(), &open, &probing].into_iter().for_each(listen);
    open.trip().unwrap();
    probing.trip().unwrap();
    probing.apply(Command::Probe { start_within: OPEN_FOR, remaining: OPEN_FOR });
    let count = allocations(|| {
        failing.circuit().rearm(Signal::Failure);
        call(&mut failing, true).unwrap_err();
        open.rearm(Signal::Demand);
        open.try_acquire().unwrap_err();
        probing.try_acquire().unwrap().cancel();
    });
    assert_eq!((count, sent.load(Ordering::Relaxed)), (0, 4 * 101));
}

#[test]
fn probe_allocates_nothing() {
    let (clock, time) = Clock::manual();
    let config = quick(clock).successes_to_close(1_000).build().unwrap();
    let mut service = BreakerLayer::new(config).layer(Answers);
    for _ in 0..5 {
        call(&mut service, true).unwrap_err();
    }
    time.advance(OPEN_FOR);
    assert_eq!(allocations(|| call(&mut service, false).unwrap()), 0);
}

#[test]
fn service_clone_allocates_nothing() {
    let service = BreakerLayer::new(BreakerConfig::default()).layer(Answers);
    assert_eq!(allocations(|| call(&mut service.clone(), false).unwrap()), 0);
}

#[test]
fn service_that_opens_and_closes_keeps_memory_constant() {
    let (clock, time) = Clock::manual();
    let mut service = BreakerLayer::new(quick(clock).build().unwrap()).layer(Answers);
    let mut cycle = || {
        for _ in 0..5 {
            call(&mut service, true).unwrap_err();
        }
        time.advance(OPEN_FOR);
        for _ in 0..2 {
            call(&mut service, false).unwrap();
        }
    };
    cycle();
    let info = allocation_counter::measure(|| (0..1_000).for_each(|_| cycle()));
    assert_eq!(info.bytes_current, 0, "{info:?}");
}
