//! The limits that open a closed circuit, and the memory that its window uses.

use std::future::ready;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower::{Layer, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerError, CircuitState, Counts, HealthReport, Verdict};

use crate::support::{FAILURE, call_once, circuit, config, layer, send, state};

#[test]
fn count_window_opens_at_50_percent_after_many_successes() {
    for calls in [10, 64, 1_000] {
        let (circuit, _time) = circuit(config().consecutive_failures(0).count_window(calls));
        (0..100_000).for_each(|_| assert!(send(&circuit, Verdict::Success)));
        for failures in 0..calls / 2 {
            assert_eq!(state(&circuit), CircuitState::Closed, "{failures} failures in {calls}");
            send(&circuit, FAILURE);
        }
        assert_eq!(state(&circuit), CircuitState::Open, "{calls}");
    }
}

#[test]
fn limit_of_ten_opens_at_tenth_failure() {
    let limits = [
        config().consecutive_failures(10).failure_rate(None),
        config().consecutive_failures(0).failure_rate(1.0).minimum_calls(10),
        config().consecutive_failures(0).failure_rate(0.0).minimum_calls(10),
        config().consecutive_failures(0).failure_rate(1.0).count_window(10),
        config().consecutive_failures(0).failure_rate(0.5).count_window(20).minimum_calls(10),
    ];
    for limits in limits {
        let (layer, _time) = layer(limits);
        let sent = AtomicUsize::new(0);
        let mut service = layer.layer(service_fn(|()| {
            sent.fetch_add(1, Ordering::Relaxed);
            ready(Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)))
        }));
        for call in 1..=100 {
            let rejected = matches!(call_once(&mut service, ()), Err(BreakerError::Rejected(_)));
            assert_eq!(rejected, call > 10, "call {call}");
        }
        assert_eq!(sent.load(Ordering::Relaxed), 10);
    }
}

#[test]
fn time_window_of_1ms_to_1y_counts_its_span() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let millis = [1, 2, 3, 4, 5, 7, 14, 15, 16, 99, 999, 1_001, 59_999].map(Duration::from_millis);
    let odd = [Duration::from_nanos(1_000_001), Duration::from_nanos(999_999_999)];
    for span in millis.into_iter().chain(odd).chain([year / 7, year]) {
        for start in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(1_700_000_000)] {
            let limits =
                config().consecutive_failures(0).failure_rate(0.6).minimum_calls(10).time_window(span);
            let (circuit, time) = circuit(limits);
            time.set(start);
            (0..9).for_each(|_| assert!(send(&circuit, FAILURE)));
            // The window is at least as long as configured, and at most a fifteenth longer.
            time.advance(span + span / 15 + Duration::from_nanos(15));
            assert_eq!(circuit.status().window, Counts::default(), "{span:?} from {start:?}");
            (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
            (0..4).for_each(|_| assert!(send(&circuit, Verdict::Success)));
            time.advance(span);
            assert_eq!(circuit.status().window.calls, 9, "{span:?} from {start:?}");
            assert_eq!(state(&circuit), CircuitState::Closed);
            assert!(send(&circuit, FAILURE));
            assert_eq!(state(&circuit), CircuitState::Open, "six of ten in {span:?} from {start:?}");
        }
    }
}

#[test]
fn neutral_faults_neither_open_nor_prevent_closing() {
    let limits = config().consecutive_failures(1).failure_rate(0.0).minimum_calls(1);
    let (layer, time) = layer(limits);
    let circuit = layer.circuit();
    let mut service = layer.layer(service_fn(|status: u16| {
        let retry_after = http::Response::builder().status(status).header("retry-after", "60");
        ready(Ok::<_, io::Error>(retry_after.body(()).unwrap()))
    }));
    for status in (400..500).chain([429; 1_000]) {
        assert_eq!(call_once(&mut service, status).unwrap().status(), status);
        assert_eq!(state(&circuit), CircuitState::Closed, "{status}");
    }
    assert_eq!(circuit.status().window.failures, 0);
    circuit.trip().unwrap();
    time.advance(Duration::from_secs(30));
    for status in [429; 100] {
        assert!(call_once(&mut service, status).is_ok(), "a neutral outcome frees its slot");
    }
    assert_eq!(state(&circuit), CircuitState::HalfOpen, "neutral outcomes do not close it");
    // A 404 counts as a success: the server has responded.
    assert!(call_once(&mut service, 404).is_ok() && call_once(&mut service, 404).is_ok());
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// A time window keeps counts per bucket, not an entry per call.
#[test]
fn time_window_keeps_memory_constant_for_many_calls() {
    let (circuit, time) = circuit(config().consecutive_failures(0).failure_rate(1.0));
    let calls = |number: u64| {
        for _ in 0..number {
            time.advance(Duration::from_micros(1));
            assert!(send(&circuit, Verdict::Success) && send(&circuit, FAILURE));
        }
    };
    calls(1);
    let info = allocation_counter::measure(|| calls(49_999));
    assert_eq!((info.count_total, info.bytes_max), (0, 0));
    let Counts { calls, failures, .. } = circuit.status().window;
    assert_eq!((calls, failures), (100_000, 50_000), "every call is counted");
}

#[test]
fn circuit_that_opens_and_closes_keeps_memory_constant() {
    let (circuit, _time) = circuit(config().successes_to_close(1));
    let each = KeyedConfig::builder(config().successes_to_close(1).build().unwrap()).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(each, |key: &u64| *key);
    let keyed = layer.circuits().get_or_insert(7).unwrap();
    let mut unread = circuit.transitions();
    let cycle = || {
        circuit.trip().unwrap();
        circuit.report(HealthReport::Recovered);
        circuit.try_acquire().unwrap().record(Verdict::Success);
        keyed.trip().unwrap();
        keyed.report(HealthReport::Recovered);
        keyed.try_acquire().unwrap().record(Verdict::Success);
    };
    (0..1_000).for_each(|_| cycle());
    let info = allocation_counter::measure(|| (0..10_000).for_each(|_| cycle()));
    assert_eq!(info.bytes_current, 0, "{info:?}");
    let missed = futures::executor::block_on(futures::StreamExt::next(&mut unread)).unwrap().unwrap_err();
    assert_eq!(missed.transitions(), 33_000 - 256);
}
