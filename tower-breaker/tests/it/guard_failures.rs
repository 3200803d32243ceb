//! The last failure that a guard keeps.

use std::any::type_name;
use std::fmt;
use std::future::{Future, pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tower::BoxError;
use tower_breaker::fault_classify::classifiers::NestedErrors;
use tower_breaker::fault_classify::rules::StatusRules;
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerError, Circuit, Clock, Health, Kind, TimedOut};

use crate::support::{SECOND, config, refused, timed};

fn circuit() -> Circuit {
    Circuit::new(config().clock(Clock::tokio()).build().unwrap())
}

/// Returns the subject and the text of the last failure.
fn last<R: CircuitRef>(circuit: &Circuit<R>) -> Option<(String, String)> {
    circuit.status().last_failure.map(|last| (last.subject, last.message))
}

fn is_last<R: CircuitRef>(circuit: &Circuit<R>, subject: &str, message: &str) -> bool {
    last(circuit).is_some_and(|(last, text)| last == subject && text == message)
}

fn respond(status: u16) -> impl Future<Output = io::Result<Response<()>>> {
    ready(Ok(Response::builder().status(status).body(()).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_last_failure_with_subject_of_call() {
    let circuit = circuit();
    let guard = circuit.errors_only();
    for item in [7, 8] {
        let _ = guard.clone().keep_last_failure(item).call(ready(Err::<(), _>(refused()))).await;
    }
    assert!(is_last(&circuit, "8", "connection refused"));
    guard.clone().keep_last_failure(9).call(ready(Ok::<_, io::Error>(()))).await.unwrap();
    assert!(is_last(&circuit, "8", "connection refused"), "a success keeps it");
    let _ = guard.call(ready(Err::<(), _>(io::Error::other("not kept")))).await;
    let status = circuit.status();
    let kept = status.last_failure.unwrap();
    assert_eq!((&*kept.subject, kept.type_name), ("8", type_name::<io::Error>()));
    assert_eq!((kept.fault.kind(), status.window.failures), (Kind::Unavailable, 3));
    circuit.trip().unwrap();
    assert!(guard.keep_last_failure(10).call(ready(Ok::<_, io::Error>(()))).await.is_err());
    assert!(is_last(&circuit, "8", "connection refused"), "a rejection keeps it");
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_failed_response() {
    let circuit = circuit();
    let guard = circuit.keep_last_failure("search");
    guard.call(respond(404)).await.unwrap();
    assert_eq!(last(&circuit), None, "a 404 is no failure");
    guard.call(respond(503)).await.unwrap();
    let kept = circuit.status().last_failure.unwrap();
    assert_eq!((&*kept.subject, kept.type_name), ("search", type_name::<Response<()>>()));
    assert_eq!(kept.message, kept.fault.to_string());
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_elapsed_timeout_and_errors_within_limit() {
    let circuit = circuit();
    let guard = circuit.keep_last_failure("import".to_owned());
    let result = guard.call_within(SECOND, pending::<io::Result<u32>>()).await;
    assert!(matches!(result, Err(BreakerError::TimedOut(_))));
    let kept = circuit.status().last_failure.unwrap();
    assert_eq!((&*kept.subject, &*kept.message), ("import", "call timed out after 1 s"));
    assert_eq!((kept.type_name, kept.fault.kind()), (type_name::<TimedOut>(), Kind::Timeout));
    let _ = guard.call_within(SECOND, ready(Err::<u32, _>(refused()))).await;
    assert!(is_last(&circuit, "import", "connection refused"));
    guard.call_within(SECOND, respond(503)).await.unwrap();
    let kept = circuit.status().last_failure.unwrap();
    assert_eq!(kept.type_name, type_name::<Response<()>>());
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_boxed_errors_and_nested_ones() {
    let circuit = circuit();
    let guard = circuit.keep_last_failure("job");
    let error: BoxError = guard.call(ready(Err::<u32, BoxError>(refused().into()))).await.unwrap_err();
    assert!(error.is::<io::Error>());
    assert!(is_last(&circuit, "job", "connection refused"));
    let guard = circuit.keep_last_failure("report");
    let query = async { anyhow::Ok(Err::<u32, _>(anyhow::anyhow!("no such table"))?) };
    let _: anyhow::Error = guard.call_within(SECOND, query).await.unwrap_err();
    assert!(is_last(&circuit, "report", "no such table"));
    let guard = circuit.classify(NestedErrors::new()).keep_last_failure("nested");
    let _ = guard.call(ready(Ok::<_, io::Error>(Err::<u32, _>(refused())))).await.unwrap();
    let kept = circuit.status().last_failure.unwrap();
    assert_eq!((&*kept.subject, kept.fault.kind()), ("nested", Kind::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn blocking_call_and_protected_function_keep_failure() {
    let circuit = circuit();
    let guard = circuit.errors_only().keep_last_failure("shard 3");
    assert!(guard.call_blocking(|| Err::<u32, _>(refused())).is_err());
    assert!(is_last(&circuit, "shard 3", "connection refused"));
    let search = circuit.keep_last_failure("search").protect(respond);
    search(500).await.unwrap();
    assert_eq!(circuit.status().last_failure.unwrap().subject, "search");
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_failure_by_verdict_of_later_rules() {
    let circuit = circuit();
    let neutral = StatusRules::row(503).with_health(Health::Neutral);
    let guard = circuit
        .keep_last_failure("search")
        .health(|fault| if fault.kind() == Kind::Auth { Health::Unhealthy } else { fault.health() })
        .rule(StatusRules::new().status(404, StatusRules::row(503)).status(503, neutral));
    guard.call(respond(503)).await.unwrap();
    assert_eq!(last(&circuit), None);
    for status in [404, 401] {
        guard.clone().call(respond(status)).await.unwrap();
        assert_eq!(circuit.status().last_failure.unwrap().subject, "search", "{status}");
        circuit.reset().unwrap();
    }
}

/// A subject that counts how often its text is made, and panics then.
#[derive(Clone)]
struct HostileSubject(Arc<AtomicUsize>);

impl fmt::Display for HostileSubject {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("no text")
    }
}

#[tokio::test(start_paused = true)]
async fn guard_subject_text_is_made_only_for_failure() {
    let circuit = circuit();
    let texts = Arc::new(AtomicUsize::new(0));
    let guard = circuit.keep_last_failure(HostileSubject(Arc::clone(&texts)));
    guard.call(respond(200)).await.unwrap();
    let panics = AssertUnwindSafe(|| guard.call_blocking(|| -> io::Result<u32> { panic!("the call") }));
    catch_unwind(panics).unwrap_err();
    assert_eq!(texts.load(Ordering::Relaxed), 0);
    assert_eq!((last(&circuit), circuit.status().window.failures), (None, 1), "a panic is not kept");
    guard.call(respond(500)).await.unwrap();
    assert_eq!(texts.load(Ordering::Relaxed), 1);
    let status = circuit.status();
    assert_eq!((&*status.last_failure.unwrap().subject, status.window.failures), ("", 2));
}

#[tokio::test]
async fn guard_of_keyed_circuit_keeps_failure_of_its_key() {
    let (each, _time) = timed(config());
    let circuits = KeyedCircuits::<u32>::new(KeyedConfig::builder(each).build().unwrap());
    let shards = [1, 2].map(|shard| circuits.circuit(&shard));
    let guard = shards[0].errors_only().keep_last_failure("query");
    assert!(guard.call_blocking(|| Err::<u32, _>(refused())).is_err());
    assert!(is_last(&shards[0], "query", "connection refused"));
    assert_eq!(last(&shards[1]), None);
}

#[test]
fn guard_success_allocates_nothing_for_subject() {
    let circuit = circuit();
    let [plain, kept] = [circuit.errors_only(), circuit.errors_only()];
    let kept = kept.keep_last_failure("subject");
    let success = || Ok::<_, io::Error>(7);
    plain.call_blocking(success).unwrap();
    let allocations = allocation_counter::measure(|| drop(kept.call_blocking(success)));
    assert_eq!(allocations.count_total, 0);
}
