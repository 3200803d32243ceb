//! Calls through a circuit.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use circuit_manager::guard::{CallError, CircuitOpenError};
use circuit_manager::manager::Manager;
use futures::FutureExt;
use tower_breaker::CircuitState::Open;

use crate::support::{AGENT, manager};

type Answer = Result<String, &'static str>;

async fn search(query: String) -> Answer {
    if query == "down" { Err("the agent is down") } else { Ok(format!("results for {query}")) }
}

fn search_blocking(query: &str) -> Answer {
    if query == "down" { Err("the agent is down") } else { Ok(format!("results for {query}")) }
}

/// Returns the successes and failures that the circuit has counted.
fn counts(manager: &Manager) -> (u64, u64) {
    let status = manager.status(AGENT).unwrap();
    (status.success_count, status.failure_count)
}

#[tokio::test]
async fn decorator_fallback_and_guard() {
    let (manager, _time) = manager();
    let search = manager.protect(AGENT, search);
    assert_eq!(search.call("rust".to_owned()).await.unwrap(), "results for rust");
    for _ in 0..5 {
        let error = search.call("down".to_owned()).await.unwrap_err();
        assert!(matches!(error, CallError::Failed("the agent is down")));
    }
    assert_eq!(manager.get_state(AGENT), Some(Open));

    let error = search.call("rust".to_owned()).await.unwrap_err();
    assert_eq!(error.to_string(), "Circuit for search: Circuit is open");
    assert!(matches!(error, CallError::Open(CircuitOpenError { agent_id }) if agent_id == AGENT));

    // The fallback gets the arguments of the call.
    let old = async |query: String| Ok(format!("old results for {query}"));
    assert_eq!(search.call_or_else("rust".to_owned(), old).await.unwrap(), "old results for rust");

    let error = manager.guard(AGENT).unwrap_err();
    assert!(matches!(error, CallError::Open(_)));
    manager.reset(AGENT).unwrap();
    manager.guard(AGENT).unwrap().succeed();
    manager.guard(AGENT).unwrap().fail();
    manager.guard(AGENT).unwrap().settle(&Answer::Err("the agent is down"));
    assert_eq!(counts(&manager), (1, 2));
}

#[test]
fn blocking_decorator_and_fallback() {
    let (manager, _time) = manager();
    let search = manager.protect(AGENT, search_blocking);
    assert_eq!(search.call_blocking("rust").unwrap(), "results for rust");
    for _ in 0..5 {
        search.call_blocking("down").unwrap_err();
    }
    assert!(matches!(search.call_blocking("rust"), Err(CallError::Open(_))));
    let old = |query: &str| Ok(format!("old results for {query}"));
    assert_eq!(search.call_blocking_or_else("rust", old).unwrap(), "old results for rust");
    let failing = |_: &str| Err("no old results");
    let error = search.call_blocking_or_else("rust", failing).unwrap_err();
    assert!(matches!(error, CallError::Failed("no old results")));
}

#[tokio::test]
async fn open_circuit_does_not_call_function() {
    let (manager, _time) = manager();
    manager.get_or_create(AGENT).unwrap();
    manager.force_open(AGENT).unwrap();
    let called = Cell::new(false);
    let call = async || {
        called.set(true);
        Ok::<_, Infallible>(())
    };
    assert!(matches!(manager.call(AGENT, call).await, Err(CallError::Open(_))));
    assert!(!called.get());
}

#[tokio::test]
async fn fallback_is_not_called_for_a_failed_call() {
    let (manager, _time) = manager();
    let fallback = async |_| panic!("the circuit is closed");
    let error = manager.call_or_else(AGENT, "down".to_owned(), search, fallback).await.unwrap_err();
    assert!(matches!(error, CallError::Failed("the agent is down")));
    let answer = manager.call_or_else(AGENT, "rust".to_owned(), search, fallback).await;
    assert_eq!(answer.unwrap(), "results for rust");
    assert_eq!(counts(&manager), (1, 1));
}

#[tokio::test]
async fn panic_is_a_failure_and_propagates() {
    let (manager, _time) = manager();
    let call = manager.call(AGENT, async || -> Result<(), Infallible> { panic!("in the call") });
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    let call = || manager.call_blocking(AGENT, || -> Result<(), Infallible> { panic!("in the call") });
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!(counts(&manager), (0, 2));
}

#[tokio::test]
async fn cancelled_probe_frees_its_place() {
    let (manager, time) = manager();
    manager.get_or_create(AGENT).unwrap();
    manager.force_open(AGENT).unwrap();
    time.advance(Duration::from_secs(60));
    let guards = [AGENT; 3].map(|agent| manager.guard(agent).unwrap());
    assert!(matches!(manager.guard(AGENT), Err(CallError::Open(_))));
    drop(guards);
    assert_eq!(counts(&manager), (0, 0));
    manager.guard(AGENT).unwrap().succeed();
    manager.guard(AGENT).unwrap().succeed();
    assert!(manager.is_closed(AGENT));
}

/// Counts a call in its destructor, as a cleanup does.
struct Cleanup<'a>(&'a Manager);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        drop(self.0.guard(AGENT));
    }
}

#[tokio::test]
async fn call_cancelled_by_panic_of_other_code_is_no_failure() {
    let (manager, _time) = manager();
    let call = manager.call(AGENT, std::future::pending::<Result<(), Infallible>>);
    let joined = async {
        tokio::join!(call, async { panic!("not in the call") });
    };
    assert!(AssertUnwindSafe(joined).catch_unwind().await.is_err());
    let cleanup = || {
        let _cleanup = Cleanup(&manager);
        panic!("not in the cleanup");
    };
    assert!(catch_unwind(AssertUnwindSafe(cleanup)).is_err());
    assert_eq!(counts(&manager), (0, 0));
}
