//! Statements of the front page of `tower-breaker`.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::FrozenTime;
use reqwest::Method;
use test_servers::{Action, Http};
use tokio::task::JoinSet;
use tokio::time::{advance, timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerError, BreakerLayer, Circuit, CircuitState, Clock, Verdict};
use tower_fault_classify::{FaultClassifyLayer, classify_error};

use super::{SECOND, circuit, client, request};

/// A `Retry-After` lengthens the open time, up to five minutes, and never shortens it.
#[tokio::test(start_paused = true)]
async fn retry_after_of_any_value_extends_open_duration() {
    let rows = [
        ("1", 30),
        ("0", 30),
        ("soon", 30),
        ("-120", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 30),
        ("120", 120),
        ("300", 300),
        ("3600", 300),
        ("3155760000", 300),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
    ];
    for (hint, open_for) in rows {
        let server = Http::start().await;
        server.script([Action::status(503).header("retry-after", hint)]);
        let layer = BreakerLayer::new(circuit().consecutive_failures(1).build().unwrap());
        let circuit = layer.circuit();
        let stack = ServiceBuilder::new().layer(layer).layer(FaultClassifyLayer::new()).service(client());
        {
            let _frozen = FrozenTime::start();
            stack.clone().oneshot(request(Method::POST, &server)).await.unwrap();
        }
        let retry_after = circuit.status().retry_after.unwrap();
        assert!((open_for..=open_for + 1).contains(&retry_after.as_secs()), "{hint}: {retry_after:?}");
        advance(Duration::from_secs(open_for - 1)).await;
        let Err(BreakerError::Rejected(rejection)) =
            stack.clone().oneshot(request(Method::POST, &server)).await
        else {
            panic!("{hint}: the circuit is open")
        };
        // A caller that waits as long as the rejection says is admitted.
        advance(rejection.retry_after().unwrap()).await;
        let _frozen = FrozenTime::start();
        stack.oneshot(request(Method::POST, &server)).await.unwrap();
        assert_eq!(server.requests().len(), 2, "{hint}");
    }
}

/// Ten cancelled calls and no completed call in a second look like a server that hangs. A body that
/// has delivered data, and one that is never polled, are completed calls.
#[tokio::test]
async fn ten_dropped_bodies_without_data_open_circuit() {
    // The data that the server sends, whether the body is polled, and the circuit afterwards.
    let rows = [
        ("", true, CircuitState::Open, 0),
        ("data", true, CircuitState::Closed, 0),
        ("", false, CircuitState::Closed, 10),
        ("data", false, CircuitState::Closed, 10),
    ];
    for (data, polled, state, calls) in rows {
        let server = Http::start().await;
        server.set_default(Action::status(200).body(data).content_length(100));
        let (clock, time) = Clock::manual();
        let layer = BreakerLayer::new(circuit().clock(clock).build().unwrap()).track_body();
        let circuit = layer.circuit();
        let stack = ServiceBuilder::new().layer(layer).service(client());
        for _ in 0..10 {
            time.advance(SECOND / 5);
            let mut response = stack.clone().oneshot(request(Method::GET, &server)).await.unwrap();
            if polled && data.is_empty() {
                timeout(Duration::ZERO, response.chunk()).await.unwrap_err();
            } else if polled {
                response.chunk().await.unwrap().unwrap();
            }
        }
        let status = circuit.status();
        assert_eq!((status.state, status.window.calls), (state, calls), "{data:?}, polled: {polled}");
    }
}

/// Each runtime with paused time starts at the present. Calls that an earlier runtime counted at
/// later times are not in the window of the next one.
#[test]
fn circuit_in_runtime_with_earlier_time_still_counts() {
    let counted = |step: u32| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let circuit = Circuit::new(circuit().failure_rate(None).build().unwrap());
            for _ in 0..16 {
                advance(step * SECOND).await;
                circuit.try_acquire().unwrap().record(Verdict::Success);
                circuit
                    .try_acquire()
                    .unwrap()
                    .record(classify_error(&io::Error::from(ErrorKind::ConnectionReset)).into());
            }
            circuit.status().window
        })
    };
    let (first, second) = (counted(3_600), counted(0));
    assert_eq!((first.calls, first.failures), (2, 1));
    assert_eq!((second.calls, second.failures), (32, 16));
}

/// A thousand concurrent calls arrive when the open time is over. The probes are sent, and the
/// other calls are rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_circuit_under_1000_tasks_sends_only_probes() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let (clock, time) = Clock::manual();
    let layer = BreakerLayer::new(circuit().clock(clock).probes(3).build().unwrap());
    let handle = layer.circuit();
    let stack = ServiceBuilder::new().layer(layer).layer(FaultClassifyLayer::new()).service(client());
    handle.trip().unwrap();
    time.advance(30 * SECOND);
    let rejected = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let (stack, rejected, request) =
            (stack.clone(), Arc::clone(&rejected), request(Method::GET, &server));
        tasks.spawn(async move {
            if let Err(BreakerError::Rejected(_)) = stack.oneshot(request).await {
                rejected.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    server.wait_for_requests(3).await;
    for _ in 0..997 {
        tasks.join_next().await.unwrap().unwrap();
    }
    assert_eq!((rejected.load(Ordering::Relaxed), server.requests().len()), (997, 3));
    // The probes are cancelled, which frees their slots.
    tasks.shutdown().await;
    server.set_default(Action::status(200));
    for _ in 0..2 {
        stack.clone().oneshot(request(Method::GET, &server)).await.unwrap();
    }
    assert_eq!(handle.status().state, CircuitState::Closed);
}
