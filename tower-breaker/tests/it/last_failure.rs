//! The last failure that a circuit keeps, and the counts of a transition.

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio_test::{assert_ready, task};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_breaker::fallback::{OnReject, ReturnError};
use tower_breaker::fault_classify::classifiers::AsError;
use tower_breaker::fault_classify::{ClassifiedError, FaultClassifyLayer, classify_error};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::telemetry::LastFailure;
use tower_breaker::{
    BreakerError, BreakerLayer, Circuit, CircuitState, Counts, Health, HealthReport, Kind, Reason, TimedOut,
    Verdict,
};

use crate::support::{FAILURE, FAULT, config, refused, timed};

/// A user-defined error with a source.
#[derive(Debug)]
struct QueryError(Option<io::Error>);

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("query failed")
    }
}

impl Error for QueryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_ref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Returns a service whose calls fail with an error.
fn fails<E>(
    error: fn() -> E,
) -> impl Service<(), Response = (), Error = E, Future = Ready<Result<(), E>>> + Clone {
    service_fn(move |()| ready(Err(error())))
}

/// Calls a service once, and returns the failure that its circuit keeps.
fn failure_of<S>(mut service: S, circuit: &Circuit) -> LastFailure
where
    S: Service<()>,
{
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(assert_ready!(task::spawn(service.call(())).poll()).is_err());
    circuit.status().last_failure.expect("the layer must keep it")
}

/// Returns the last failure of a layer whose inner service fails with an error.
fn failure_of_error<E, K>(error: fn() -> E) -> LastFailure
where
    E: AsError<K>,
    ReturnError<K>: OnReject<(), (), E, Answer = ()>,
{
    let layer = BreakerLayer::new(config().build().unwrap()).errors_only();
    let circuit = layer.circuit();
    failure_of(layer.keep_last_failure("subject").layer(fails(error)), &circuit)
}

fn type_and_message(last: &LastFailure) -> (&str, &str) {
    (last.type_name, &last.message)
}

#[test]
fn last_failure_over_recommended_stack_names_known_cause() {
    let layer = BreakerLayer::new(config().build().unwrap());
    let circuit = layer.circuit();
    let service = ServiceBuilder::new()
        .layer(layer.errors_only().keep_last_failure("subject"))
        .layer(FaultClassifyLayer::new().errors_only())
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .service(fails(|| QueryError(Some(refused()))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let last = failure_of(service, &circuit);
    // The timeout has boxed the outer error, so its type is not known.
    assert_eq!(type_and_message(&last), (type_name::<io::Error>(), "query failed: connection refused"));
    assert_eq!(last.fault.kind(), Kind::Unavailable);
}

#[test]
fn last_failure_of_classified_error_names_the_wrapped_error() {
    let layer = BreakerLayer::new(config().build().unwrap());
    let circuit = layer.circuit();
    let service = ServiceBuilder::new()
        .layer(layer.errors_only().keep_last_failure("subject"))
        .layer(FaultClassifyLayer::new().errors_only())
        .service(fails(|| QueryError(Some(refused()))));
    let last = failure_of(service, &circuit);
    assert_eq!(type_and_message(&last), (type_name::<QueryError>(), "query failed: connection refused"));
}

#[test]
fn last_failure_of_nested_breakers_names_the_wrapped_error() {
    let layer = BreakerLayer::new(config().build().unwrap());
    let circuit = layer.circuit();
    let inner = || BreakerLayer::new(config().build().unwrap()).errors_only();
    let classified = ServiceBuilder::new()
        .layer(layer.clone().errors_only().keep_last_failure("subject"))
        .layer(inner())
        .layer(inner())
        .layer(FaultClassifyLayer::new().errors_only())
        .service(fails(|| QueryError(None)));
    let last = failure_of(classified, &circuit);
    assert_eq!(type_and_message(&last), (type_name::<QueryError>(), "query failed"));
    let typed = ServiceBuilder::new()
        .layer(layer.errors_only().keep_last_failure("subject"))
        .layer(inner())
        .layer(inner())
        .service(fails(|| QueryError(Some(refused()))));
    let last = failure_of(typed, &circuit);
    assert_eq!(type_and_message(&last), (type_name::<QueryError>(), "query failed: connection refused"));
}

#[test]
fn last_failure_of_typed_error_names_outermost_error() {
    let last = failure_of_error(refused);
    assert_eq!(type_and_message(&last), (type_name::<io::Error>(), "connection refused"));
    let last = failure_of_error(|| QueryError(Some(refused())));
    assert_eq!(type_and_message(&last), (type_name::<QueryError>(), "query failed: connection refused"));
}

#[test]
fn last_failure_of_boxed_error_names_first_known_type() {
    let last = failure_of_error(|| BoxError::from(refused()));
    assert_eq!(type_and_message(&last), (type_name::<io::Error>(), "connection refused"));
    let last = failure_of_error(|| BoxError::from(QueryError(Some(refused()))));
    assert_eq!(type_and_message(&last), (type_name::<io::Error>(), "query failed: connection refused"));
    let last = failure_of_error(|| BoxError::from("unknown"));
    assert_eq!(type_and_message(&last), (type_name::<dyn Error>(), "unknown"));
}

#[test]
fn last_failure_of_boxed_wrapper_names_the_wrapped_error() {
    let classified = || ClassifiedError::new(classify_error(&refused()), QueryError(None));
    let errors: [fn(ClassifiedError) -> BoxError; 2] =
        [BoxError::from, |error| BreakerError::Inner(error).into()];
    for boxed in errors {
        let layer = BreakerLayer::new(config().build().unwrap());
        let circuit = layer.circuit();
        let service = service_fn(move |()| ready(Err::<(), BoxError>(boxed(classified()))));
        let last = failure_of(layer.errors_only().keep_last_failure("subject").layer(service), &circuit);
        assert_eq!(type_and_message(&last), (type_name::<QueryError>(), "query failed"));
    }
    let boxed_twice =
        || ClassifiedError::new(classify_error(&refused()), BoxError::from(QueryError(Some(refused()))));
    let last = failure_of_error(boxed_twice);
    assert_eq!(type_and_message(&last), (type_name::<io::Error>(), "query failed: connection refused"));
}

#[test]
fn last_failure_of_timeout_of_inner_circuit_names_it() {
    let last =
        failure_of_error(|| BreakerError::<io::Error>::TimedOut(TimedOut::new(Duration::from_secs(5))));
    assert_eq!(type_and_message(&last), (type_name::<TimedOut>(), "call timed out after 5 s"));
    let last = failure_of_error(|| ClassifiedError::from_fault(FAULT));
    assert_eq!(type_and_message(&last), (type_name::<ClassifiedError>(), &*FAULT.to_string()));
}

fn send(circuit: &Circuit, verdicts: &[Verdict]) {
    for verdict in verdicts {
        circuit.try_acquire().unwrap().record(*verdict);
    }
}

const TWO_SUCCESSES: &[Verdict] = &[Verdict::Success; 2];

fn assert_counts(counts: Option<Counts>, calls: u64, failures: u64) {
    let counts = counts.expect("a transition from closed has counts");
    assert_eq!((counts.calls, counts.failures), (calls, failures));
}

#[test]
fn trip_by_consecutive_failures_keeps_counts() {
    let limits = || config().failure_rate(None);
    for config in [config(), limits(), limits().count_window(20)] {
        let (config, _time) = timed(config);
        let circuit = Circuit::new(config);
        send(&circuit, TWO_SUCCESSES);
        send(&circuit, &[FAILURE; 5]);
        let status = circuit.status();
        assert_eq!(
            (status.state, status.consecutive_failures, status.window.calls),
            (CircuitState::Open, 5, 0)
        );
        let trip = status.last_trip.unwrap();
        assert_eq!((trip.reason, trip.consecutive_failures), (Reason::ConsecutiveFailures, 5));
        assert_counts(trip.counts, 7, 5);
        assert_counts(status.last_transition.unwrap().counts, 7, 5);
    }
}

#[test]
fn every_transition_of_closed_circuit_has_counts() {
    type Change = fn(&Circuit);
    let changes: [Change; 4] = [
        |circuit| circuit.trip().unwrap(),
        |circuit| circuit.report(HealthReport::Critical),
        |circuit| circuit.force_open().unwrap(),
        |circuit| circuit.reset().unwrap(),
    ];
    for change in changes {
        let (config, _time) = timed(config());
        let circuit = Circuit::new(config);
        send(&circuit, TWO_SUCCESSES);
        send(&circuit, &[FAILURE; 3]);
        change(&circuit);
        let last = circuit.status().last_transition.unwrap();
        assert_eq!(last.consecutive_failures, 3, "{}", last.reason);
        assert_counts(last.counts, 5, 3);
    }
}

#[test]
fn trip_by_rate_has_counts_that_led_to_it() {
    let (config, _time) = timed(config().consecutive_failures(0).failure_rate(0.5).minimum_calls(10));
    let circuit = Circuit::new(config);
    send(&circuit, &[Verdict::Success; 5]);
    send(&circuit, &[FAILURE; 5]);
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!((trip.reason, trip.consecutive_failures), (Reason::FailureRate, 5));
    assert_counts(trip.counts, 10, 5);
}

#[test]
fn transition_from_half_open_has_no_counts() {
    let (config, time) = timed(config());
    let circuit = Circuit::new(config);
    send(&circuit, &[FAILURE; 5]);
    time.advance(Duration::from_secs(30));
    send(&circuit, &[FAILURE]);
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!((trip.reason, trip.consecutive_failures, trip.counts), (Reason::ProbeFailed, 0, None));
}

#[test]
fn trip_of_keyed_circuit_keeps_counts() {
    let (each, _time) = timed(config());
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), |key: &u64| *key);
    let circuit = layer.circuits().get_or_insert(7).unwrap();
    (0..5).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!(trip.consecutive_failures, 5);
    assert_counts(trip.counts, 5, 5);
}

type Response = http::Response<String>;

fn status(code: u16) -> Response {
    http::Response::builder().status(code).body(String::new()).unwrap()
}

/// A rule that classifies a 404 as a failure.
fn not_found(outcome: Result<&Response, &io::Error>) -> Option<Verdict> {
    outcome.ok().filter(|response| response.status() == 404).map(|_| FAILURE)
}

/// Calls a service that responds with `code`, and returns the subject of the failure that is kept.
fn subject_after<L, S>(layer: L, circuit: &Circuit, code: u16) -> Option<String>
where
    L: Layer<tower::util::BoxCloneService<(), Response, io::Error>, Service = S>,
    S: Service<()>,
{
    let server = service_fn(move |()| ready(Ok::<_, io::Error>(status(code))));
    let mut service = layer.layer(tower::util::BoxCloneService::new(server));
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(assert_ready!(task::spawn(service.call(())).poll()).is_ok());
    assert_eq!(circuit.status().window.failures, 1);
    circuit.status().last_failure.map(|last| last.subject)
}

#[test]
fn last_failure_is_kept_regardless_of_later_settings() {
    let new = || {
        let layer = BreakerLayer::new(config().build().unwrap());
        let circuit = layer.circuit();
        (layer.keep_last_failure("stock"), circuit)
    };
    let kept = || Some("stock".to_owned());
    let (layer, circuit) = new();
    assert_eq!(subject_after(layer.rule(not_found), &circuit, 404), kept(), "rule");
    let (layer, circuit) = new();
    assert_eq!(subject_after(layer.health(|_| Health::Unhealthy), &circuit, 401), kept(), "health");
    let (layer, circuit) = new();
    let both = layer.health(|_| Health::Neutral).rule(not_found).track_body();
    assert_eq!(subject_after(both, &circuit, 404), kept(), "health, rule and tracked body");
    let (layer, circuit) = new();
    let classify = |_: Result<&Response, &io::Error>| FAILURE;
    assert_eq!(subject_after(layer.classify(classify), &circuit, 200), kept(), "classifier");
    let (layer, circuit) = new();
    assert_eq!(subject_after(layer.errors_only().rule(not_found), &circuit, 404), kept(), "errors only");
    let (layer, circuit) = new();
    assert_eq!(subject_after(layer.rule(not_found).without_clone(), &circuit, 404), kept(), "uncloneable");
}

#[test]
fn last_failure_has_text_written_before_display_failed() {
    #[derive(Debug)]
    struct FailingDisplay;
    impl fmt::Display for FailingDisplay {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("query failed")?;
            Err(fmt::Error)
        }
    }
    impl Error for FailingDisplay {}
    let last = failure_of_error(|| FailingDisplay);
    assert_eq!((&*last.message, last.fault.kind()), ("query failed", Kind::Unknown));
}

#[test]
fn last_failure_of_panicking_display_is_recorded() {
    /// An error whose `Display` or `source` panics.
    #[derive(Debug)]
    struct Panicking {
        in_source: bool,
        source: QueryError,
    }
    impl fmt::Display for Panicking {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")?;
            panic!("no text")
        }
    }
    impl Error for Panicking {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            assert!(!self.in_source, "no source");
            Some(&self.source)
        }
    }
    for (in_source, message) in [(false, "outer: query failed"), (true, "")] {
        let circuit = Circuit::new(config().build().unwrap());
        let error = Panicking { in_source, source: QueryError(None) };
        circuit.try_acquire().unwrap().fail_as(FAULT, &error, PanickingSubject);
        let status = circuit.status();
        assert_eq!(status.window.failures, 1);
        let last = status.last_failure.unwrap();
        assert_eq!((&*last.message, &*last.subject), (message, "order "));
    }
}

/// A subject that panics after it has written its first word.
struct PanickingSubject;

impl fmt::Display for PanickingSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("order ")?;
        panic!("no number")
    }
}
