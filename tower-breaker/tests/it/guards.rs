//! Guards of a circuit: classifiers, protected functions, and the error types of boxed errors.

use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::io;

use http::Response;
use tower::BoxError;
use tower_breaker::call::Guard;
use tower_breaker::fault_classify::classifiers::{Auto, ErrorsOnly};
use tower_breaker::fault_classify::rules::{StatusRules, UnknownErrors};
use tower_breaker::fault_classify::{classify_error, rule_fn};
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerError, Circuit, CircuitState, Clock, Health, Kind, Rejection, TimedOut, Verdict};

use crate::support::{SECOND, config, refused, state};

/// Opens after one failure.
fn circuit() -> Circuit {
    Circuit::new(config().consecutive_failures(1).build().unwrap())
}

fn respond(status: u16) -> impl Future<Output = io::Result<Response<()>>> {
    ready(Ok(Response::builder().status(status).body(()).unwrap()))
}

fn failures<R: CircuitRef>(circuit: &Circuit<R>) -> (u64, u64) {
    let window = circuit.status().window;
    (window.calls, window.failures)
}

#[tokio::test]
async fn call_classifies_response_by_status() {
    let circuit = circuit();
    assert_eq!(circuit.call(respond(404)).await.unwrap().status(), 404);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(circuit.call(respond(503)).await.unwrap().status(), 503);
    assert_eq!(state(&circuit), CircuitState::Open);
    assert!(matches!(circuit.call(respond(200)).await, Err(BreakerError::Rejected(_))));
}

#[test]
fn call_blocking_classifies_response_by_status() {
    let circuit = circuit();
    let respond = |status: u16| Ok::<_, io::Error>(Response::builder().status(status).body(()).unwrap());
    assert!(circuit.call_blocking(|| respond(200)).is_ok());
    assert!(circuit.call_blocking(|| respond(500)).is_ok());
    assert!(matches!(circuit.call_blocking(|| respond(200)), Err(BreakerError::Rejected(_))));
}

#[tokio::test]
async fn errors_only_accepts_any_value_and_counts_errors() {
    struct Rows;
    let circuit = circuit();
    let guard: Guard<ErrorsOnly> = circuit.errors_only();
    assert!(guard.call(ready(Ok::<_, io::Error>(Rows))).await.is_ok());
    assert!(guard.call_blocking(|| Ok::<_, io::Error>(Rows)).is_ok());
    assert!(guard.call_within(SECOND, ready(Ok::<_, io::Error>(Rows))).await.is_ok());
    assert_eq!(failures(&circuit), (3, 0));
    assert!(guard.call(ready(Err::<Rows, _>(refused()))).await.is_err());
    assert_eq!(state(guard.circuit()), CircuitState::Open);
}

#[tokio::test]
async fn guard_rules_added_last_are_checked_first() {
    let circuit = circuit();
    let healthy = StatusRules::row(503).with_health(Health::Healthy);
    let guard = circuit
        .rule(StatusRules::new().status(503, healthy).status(404, StatusRules::row(503)))
        .rule(StatusRules::new().status(404, Verdict::Success));
    guard.call(respond(503)).await.unwrap();
    guard.call(respond(404)).await.unwrap();
    assert_eq!(failures(&circuit), (2, 0));
    guard.call(respond(500)).await.unwrap();
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[tokio::test]
async fn guard_rule_applies_to_errors_within_limit() {
    let circuit = circuit();
    let row = UnknownErrors::row().with_health(Health::Neutral);
    let guard = circuit.errors_only().rule(UnknownErrors::new(row));
    let unknown = || ready(Err::<(), _>(std::fmt::Error));
    assert!(guard.call(unknown()).await.is_err());
    assert!(guard.call_within(SECOND, unknown()).await.is_err());
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert!(circuit.call(unknown()).await.is_err());
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[tokio::test]
async fn guard_health_overrides_faults() {
    let circuit = circuit();
    let guard =
        circuit.health(|fault| if fault.kind() == Kind::Auth { Health::Unhealthy } else { Health::Neutral });
    guard.call(respond(503)).await.unwrap();
    assert_eq!(failures(&circuit), (0, 0));
    guard.call(respond(401)).await.unwrap();
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn guard_elapsed_timeout_is_unhealthy_despite_health() {
    let circuit = Circuit::new(config().consecutive_failures(1).clock(Clock::tokio()).build().unwrap());
    let guard = circuit.health(|_| Health::Neutral);
    let error = guard.call_within(SECOND, pending::<io::Result<u32>>()).await.unwrap_err();
    assert!(matches!(error, BreakerError::TimedOut(_)));
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[tokio::test]
async fn guard_classifier_of_closure_decides() {
    let circuit = circuit();
    let classify = |outcome: Result<&u32, &io::Error>| match outcome {
        Ok(rows) if *rows > 2 => StatusRules::row(503).into(),
        _ => Verdict::Success,
    };
    let guard = circuit.classify(classify);
    assert!(guard.call(ready(Err::<u32, _>(refused()))).await.is_err());
    assert_eq!(failures(&circuit), (1, 0));
    guard.clone().call(ready(Ok(3))).await.unwrap();
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[tokio::test]
async fn protected_function_is_owned_and_cloned() {
    fn assert_static<T: Clone + Send + Sync + 'static>(value: T) -> T {
        value
    }
    let circuit = circuit();
    let search = circuit.classify(Auto::new()).protect(async |query: String| {
        if query.is_empty() { Err(refused()) } else { Ok(Response::new(query)) }
    });
    let search = assert_static(search);
    let copy = search.clone();
    drop(search);
    assert_eq!(copy("rust".into()).await.unwrap().body(), "rust");
    assert!(matches!(copy(String::new()).await, Err(BreakerError::Inner(_))));
    assert!(matches!(copy("rust".into()).await, Err(BreakerError::Rejected(_))));
}

#[tokio::test]
async fn protected_function_future_does_not_run_when_rejected() {
    let circuit = circuit();
    let runs = Cell::new(0);
    let count = circuit.protect(async |add: u32| {
        runs.set(runs.get() + add);
        Ok::<_, io::Error>(runs.get())
    });
    assert_eq!(count(2).await.unwrap(), 2);
    drop(count(2));
    circuit.trip().unwrap();
    assert!(count(2).await.is_err());
    assert_eq!(runs.get(), 2);
}

#[tokio::test]
async fn protected_function_may_borrow_its_argument() {
    async fn length(text: &str) -> io::Result<usize> {
        Ok(text.len())
    }
    let text = "users".to_owned();
    assert_eq!(circuit().protect(length)(&text).await.unwrap(), 5);
}

#[tokio::test]
async fn boxed_error_keeps_its_type() {
    let circuit = circuit();
    let fails = || ready(Err::<u32, BoxError>(refused().into()));
    let error: BoxError = circuit.call(fails()).await.unwrap_err();
    assert!(error.is::<io::Error>());
    let error: BoxError = circuit.call(fails()).await.unwrap_err();
    assert!(error.is::<Rejection>());
    let error: BoxError = circuit.call_blocking(|| Err::<u32, BoxError>(refused().into())).unwrap_err();
    assert!(error.is::<Rejection>());
}

#[tokio::test(start_paused = true)]
async fn anyhow_error_propagates_with_question_mark() {
    async fn count(
        circuit: &Circuit,
        query: impl Future<Output = anyhow::Result<u32>>,
    ) -> anyhow::Result<u32> {
        let count = circuit.call_within(SECOND, query).await?;
        Ok(count)
    }
    let circuit = Circuit::new(config().consecutive_failures(3).clock(Clock::tokio()).build().unwrap());
    let error = count(&circuit, ready(Err(refused().into()))).await.unwrap_err();
    assert!(error.is::<io::Error>());
    let error = count(&circuit, pending()).await.unwrap_err();
    assert!(error.is::<TimedOut>());
    assert_eq!(classify_error(&*error).kind(), Kind::Timeout);
    let blocking = || anyhow::bail!("an error without a type");
    let error: anyhow::Error = circuit.call_blocking::<u32, _, _>(blocking).unwrap_err();
    assert_eq!(error.to_string(), "an error without a type");
    let error = count(&circuit, pending()).await.unwrap_err();
    assert!(error.is::<Rejection>());
    assert_eq!(classify_error(&*error).kind(), Kind::Rejected);
}

#[tokio::test]
async fn keyed_circuit_guards_calls() {
    let each = config().consecutive_failures(1).name("tenants").build().unwrap();
    let keyed = KeyedConfig::builder(each).build().unwrap();
    let layer: KeyedBreakerLayer<_, u32> = KeyedBreakerLayer::new(keyed, |tenant: &u32| *tenant);
    let circuits = layer.circuits();
    let (first, second) = (circuits.get_or_insert(1).unwrap(), circuits.get_or_insert(2).unwrap());
    let ignored =
        rule_fn(|outcome: Result<&Response<()>, &io::Error>| outcome.err().map(|_| Verdict::Success));
    let guard = first.rule(ignored);
    assert!(guard.call(ready(Err(refused()))).await.is_err());
    assert_eq!(failures(&first), (1, 0));
    assert!(guard.protect(respond)(503).await.is_ok());
    let error = first.call_within(SECOND, respond(200)).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().key().as_deref(), Some("1"));
    assert!(first.call_blocking(|| Ok::<_, io::Error>(7)).is_err());
    assert!(second.call(respond(200)).await.is_ok());
}
