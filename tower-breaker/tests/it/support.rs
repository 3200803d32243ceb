//! Helpers shared by the tests.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::Service;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerLayer, Circuit, CircuitState, Clock, Fault, Health, Kind,
    ManualClock, Verdict,
};

/// A fault that counts against the server.
pub(crate) const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
pub(crate) const FAILURE: Verdict = Verdict::Fault(FAULT);
/// A fault that counts neither for nor against the server.
pub(crate) const NEUTRAL: Verdict =
    Verdict::Fault(Fault::new(Kind::Throttled, Retryable::Refused, Health::Neutral, Origin::Remote));

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The open time of [`config`].
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(30);

/// Returns a builder for a circuit that opens after five failures in a row at any speed, stays open
/// for exactly [`OPEN_FOR`], and then admits three probes at a time.
pub(crate) fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .consecutive_failures_span(Duration::ZERO)
        .time_window(60 * SECOND)
        .open_for(OPEN_FOR)
        .open_jitter(0.0)
        .probes(3)
}

/// Builds the configuration with a manual clock at 1,000 s.
pub(crate) fn timed(config: BreakerConfigBuilder) -> (BreakerConfig, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    (config.clock(clock).build().unwrap(), time)
}

pub(crate) fn layer(config: BreakerConfigBuilder) -> (BreakerLayer, ManualClock) {
    let (config, time) = timed(config);
    (BreakerLayer::new(config), time)
}

pub(crate) fn circuit(config: BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (config, time) = timed(config);
    (Circuit::new(config), time)
}

/// Makes one call through the circuit. Returns whether the circuit admitted it.
pub(crate) fn send(circuit: &Circuit, verdict: Verdict) -> bool {
    circuit.try_acquire().map(|permit| permit.record(verdict)).is_ok()
}

pub(crate) fn state(circuit: &Circuit) -> CircuitState {
    circuit.status().state
}

/// Makes one call through the service. Panics if the service or the response is not ready
/// immediately.
pub(crate) fn call_once<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("the service must be ready") };
    let Poll::Ready(result) = pin!(service.call(request)).poll(&mut cx) else {
        panic!("the response must be ready immediately")
    };
    result
}

pub(crate) fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}
