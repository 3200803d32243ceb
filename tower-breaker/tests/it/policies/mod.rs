//! The settings of a circuit, tested through a service.

mod cancelled;
mod open_time;
mod outcomes;
mod seed;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerError, BreakerLayer, CancelledPolicy, Circuit, CircuitState, Clock, Health, Kind,
    ManualClock, Reason, Verdict,
};
use tower_fault_classify::classifiers::NestedErrors;
use tower_fault_classify::upload::{UploadBody, UploadLayer};

use crate::support::{FAILURE, OPEN_FOR, SECOND, config, layer, state};

type Response = http::Response<()>;

type CallResult = Result<Response, BreakerError<io::Error>>;

// In place of a status, a request can ask for one of these.

const REFUSED: u16 = 0;

const HANGS: u16 = 1;

const PANICS: u16 = 2;

const PANICS_IN_CALL: u16 = 3;

/// Responds with the status of the request, and with the request's number of seconds as
/// `Retry-After`.
fn server()
-> impl Service<(u16, u64), Response = Response, Error = io::Error, Future: Send> + Clone + Send + Sync {
    service_fn(|(status, retry_after): (u16, u64)| {
        assert_ne!(status, PANICS_IN_CALL);
        async move {
            match status {
                HANGS => pending().await,
                PANICS => panic!("requested panic"),
                REFUSED => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "server is down")),
                _ => {
                    let response = http::Response::builder().status(status);
                    Ok(response.header("retry-after", retry_after).body(()).unwrap())
                }
            }
        }
    })
}

fn start<S: Service<(u16, u64)>>(service: &mut S, status: u16) -> task::Spawn<S::Future> {
    start_with(service, (status, 0))
}

fn start_with<S: Service<(u16, u64)>>(service: &mut S, request: (u16, u64)) -> task::Spawn<S::Future> {
    let ready = task::spawn(()).enter(|cx, _| service.poll_ready(cx));
    assert!(assert_ready!(ready).is_ok());
    task::spawn(service.call(request))
}

/// Sends a request that takes the duration `took`, and returns its result.
fn send<S>(service: &mut S, status: u16, took: Duration, time: &ManualClock) -> CallResult
where
    S: Service<(u16, u64), Response = Response, Error = BreakerError<io::Error>>,
{
    let mut call = start(service, status);
    time.advance(took);
    assert_ready!(call.poll())
}

fn is_rejected(result: &CallResult) -> bool {
    matches!(result, Err(BreakerError::Rejected(_)))
}

fn trip_reason(circuit: &Circuit) -> Reason {
    assert_eq!(state(circuit), CircuitState::Open);
    circuit.status().last_trip.expect("an open circuit has tripped").reason
}

fn close(circuit: &Circuit) {
    (0..2).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
    assert_eq!(state(circuit), CircuitState::Closed);
}
