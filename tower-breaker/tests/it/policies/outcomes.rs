//! How slow calls, panics, overridden health and nested results are counted, and the last failure.

use super::*;

#[test]
fn slow_calls_at_threshold_open_and_so_does_slow_probe() {
    for status in [200, 404, 503] {
        let limits = config().slow_call_rate(SECOND, 0.5).consecutive_failures(0).failure_rate(None);
        let (layer, time) = layer(limits.minimum_calls(10));
        let circuit = layer.circuit();
        let mut service = layer.layer(server());
        let under = Duration::from_millis(999);
        (0..5).for_each(|_| assert!(send(&mut service, 200, under, &time).is_ok()));
        for slow in 0..5 {
            assert_eq!((state(&circuit), circuit.status().window.slow), (CircuitState::Closed, slow));
            send(&mut service, status, SECOND, &time).unwrap();
        }
        assert_eq!(trip_reason(&circuit), Reason::SlowRate, "{status}");
        time.advance(OPEN_FOR);
        send(&mut service, 200, SECOND, &time).unwrap();
        assert_eq!(trip_reason(&circuit), Reason::ProbeSlow);
        time.advance(OPEN_FOR);
        (0..2).for_each(|_| assert!(send(&mut service, 200, under, &time).is_ok()));
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

/// Runs a closure and catches its panic. Returns whether it panicked.
fn panics<T>(run: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn panic_counts_as_one_failure_and_circuit_stays_usable() {
    type Panicking = fn(&BreakerLayer) -> bool;
    let panicking: [Panicking; 5] = [
        |layer| panics(|| start(&mut layer.layer(server()), PANICS_IN_CALL)),
        |layer| panics(|| start(&mut layer.layer(server()), PANICS).poll()),
        |layer| {
            // The future is dropped after the panic. Its outcome is recorded already.
            let mut call = start(&mut layer.layer(server()), PANICS);
            panics(|| call.poll())
        },
        |layer| {
            let call = async { panic!("requested panic") };
            panics(|| task::spawn(layer.circuit().call::<_, (), io::Error, _>(call)).poll())
        },
        |layer| panics(|| layer.circuit().call_blocking::<(), io::Error, _>(|| panic!("requested panic"))),
    ];
    for (index, panicking) in panicking.into_iter().enumerate() {
        let (layer, time) = layer(config().cancelled(CancelledPolicy::Failure));
        let circuit = layer.circuit();
        for failures in 1..=5 {
            assert!(panicking(&layer), "case {index}");
            let counted = circuit.status().consecutive_failures;
            assert_eq!(counted, failures, "case {index}");
        }
        assert_eq!(trip_reason(&circuit), Reason::ConsecutiveFailures, "case {index}");
        time.advance(OPEN_FOR);
        assert!(panicking(&layer), "case {index}");
        assert_eq!(trip_reason(&circuit), Reason::ProbeFailed, "case {index}");
        time.advance(OPEN_FOR);
        let mut service = layer.layer(server());
        (0..2).for_each(|_| assert!(send(&mut service, 200, SECOND, &time).is_ok()));
        assert_eq!(state(&circuit), CircuitState::Closed, "case {index}");
    }
}

#[test]
fn health_function_overrides_health_of_fault() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let layer = layer.health(|fault| match fault.kind() {
        Kind::Auth => Health::Unhealthy,
        Kind::Server => Health::Neutral,
        _ => fault.health(),
    });
    let mut service = layer.layer(server());
    (0..100).for_each(|_| assert!(send(&mut service, 500, SECOND, &time).is_ok()));
    assert_eq!(circuit.status().window.calls, 0, "neutral");
    (0..5).for_each(|_| assert!(send(&mut service, 401, SECOND, &time).is_ok()));
    assert_eq!(trip_reason(&circuit), Reason::ConsecutiveFailures);
    circuit.reset().unwrap();
    (0..5).for_each(|_| assert!(send(&mut service, 503, SECOND, &time).is_ok()));
    assert_eq!(trip_reason(&circuit), Reason::ConsecutiveFailures, "other kinds keep their health");
}

#[test]
fn last_failure_has_type_message_and_subject() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let mut service = layer.keep_last_failure("orders").layer(server());
    for status in [200, 404, 429] {
        send(&mut service, status, SECOND, &time).unwrap();
        assert!(circuit.status().last_failure.is_none(), "{status} is no failure");
    }
    send(&mut service, 503, SECOND, &time).unwrap();
    let last = circuit.status().last_failure.unwrap();
    assert_eq!((&*last.subject, last.fault.kind()), ("orders", Kind::Unavailable));
    assert_eq!(last.message, last.fault.to_string());
    assert!(last.type_name.contains("Response"), "{}", last.type_name);
    send(&mut service, REFUSED, SECOND, &time).unwrap_err();
    send(&mut service, 200, SECOND, &time).unwrap();
    let last = circuit.status().last_failure.unwrap();
    assert_eq!((&*last.message, &*last.subject), ("server is down", "orders"));
    assert_eq!(last.type_name, std::any::type_name::<io::Error>());
}

#[test]
fn last_failure_allocates_only_at_failures() {
    let limits = || config().consecutive_failures(0).failure_rate(None);
    let (plain, keeping) = (layer(limits()).0, layer(limits()).0);
    let circuit = plain.circuit();
    let (mut plain, mut keeping) =
        (plain.layer(server()), keeping.keep_last_failure("orders").layer(server()));
    let [success, failure] = [429, REFUSED].map(|status| allocations(&mut plain, status));
    assert!(circuit.status().last_failure.is_none(), "the layer does not keep it");
    assert_eq!(allocations(&mut keeping, 429), success);
    assert!(allocations(&mut keeping, REFUSED) > failure);
}

fn allocations<S: Service<(u16, u64), Future: std::future::Future>>(service: &mut S, status: u16) -> u64 {
    allocation_counter::measure(|| drop(assert_ready!(start(service, status).poll()))).count_total
}

/// A query under a timeout: the result of the query is nested in the result of the timeout.
#[test]
fn nested_results_count_inner_error() {
    type Nested<T> = Result<Result<T, io::Error>, io::Error>;
    struct Row;

    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let state_after = |layer: &BreakerLayer, result: fn() -> Nested<u32>| {
        let mut service = layer.layer(service_fn(move |()| std::future::ready(result())));
        for _ in 0..5 {
            assert!(tokio_test::block_on(async { service.ready().await.unwrap().call(()).await }).is_ok());
        }
        layer.circuit().status().state
    };
    let (layer, _) = layer(config());
    assert_eq!(state_after(&layer, || Ok(Ok(1))), CircuitState::Closed);
    assert_eq!(state_after(&layer, || Ok(Err(io::ErrorKind::ConnectionRefused.into()))), CircuitState::Open);

    // A value that does not implement `Outcome`.
    let layer = BreakerLayer::new(config().build().unwrap()).classify(NestedErrors::new());
    let mut service =
        layer.layer(service_fn(move |()| std::future::ready(Nested::<Row>::Ok(Err(refused())))));
    for _ in 0..5 {
        assert!(tokio_test::block_on(async { service.ready().await.unwrap().call(()).await }).is_ok());
    }
    assert_eq!(layer.circuit().status().state, CircuitState::Open);
}
