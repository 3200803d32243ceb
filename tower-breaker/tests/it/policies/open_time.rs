//! The open time of a circuit, and the `retry_after` of its rejections.

use super::*;

#[test]
fn slow_start_admits_share_and_rejects_others_with_retry_after() {
    let (layer, time) = layer(config().slow_start(Duration::from_secs(10)));
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    close(&circuit);
    for (half, expected) in [(0_u8, 250), (1, 750)] {
        let mut admitted = 0_usize;
        for call in 0..1_000 {
            let result = send(&mut service, 200, Duration::from_millis(5), &time);
            admitted += usize::from(result.is_ok());
            if let Err(BreakerError::Rejected(rejection)) = result {
                let left = Duration::from_millis(10_000 - 5_000 * u64::from(half) - 5 * call);
                let expected = (CircuitState::Closed, Some(SECOND.min(left)));
                assert_eq!((rejection.state(), rejection.retry_after()), expected);
                assert!(rejection.to_string().contains("is in slow start"), "{rejection}");
            }
        }
        assert!(admitted.abs_diff(expected) <= 2, "{admitted}, not {expected}");
        let share = circuit.status().slow_start.unwrap();
        assert!((share - 0.5 * f64::from(half + 1)).abs() < 1e-9, "{share}");
    }
    (0..100).for_each(|_| assert!(send(&mut service, 200, Duration::ZERO, &time).is_ok()));
    assert_eq!(circuit.status().slow_start, None);
}

#[test]
fn half_open_rejection_has_retry_after_of_1s() {
    for (lease, expected) in [(30 * SECOND, SECOND), (SECOND / 2, SECOND / 2)] {
        let (layer, time) = layer(config().probes(1).probe_lease(lease));
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        time.advance(OPEN_FOR);
        let probe = circuit.try_acquire().unwrap();
        let rejection = circuit.try_acquire().unwrap_err();
        assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::HalfOpen, Some(expected)));
        probe.record(Verdict::Success);
        assert!(circuit.try_acquire().is_ok(), "a probe that has ended frees its slot immediately");
    }
}

#[test]
fn open_time_grows_to_maximum_and_jitter_only_adds() {
    let mut added = Vec::new();
    for _ in 0..50 {
        let growing = config().open_for(10 * SECOND).open_backoff(2.0, 100 * SECOND).open_jitter(0.25);
        let (layer, time) = layer(growing);
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        for base in [10, 20, 40, 80, 100, 100] {
            let period = circuit.status().retry_after.unwrap();
            let share = period.as_secs_f64() / f64::from(base) - 1.0;
            // The open time has a resolution of a millisecond.
            assert!((0.0..=0.250_1).contains(&share), "{period:?} for {base} s");
            added.push(share);
            time.advance(period.saturating_sub(Duration::from_millis(1)));
            assert!(circuit.try_acquire().is_err());
            time.advance(Duration::from_millis(1));
            circuit.try_acquire().unwrap().record(FAILURE);
        }
    }
    let mean = added.iter().sum::<f64>() / added.len() as f64;
    assert!((0.08..0.17).contains(&mean), "{mean}: the jitter is uniformly random for each circuit");
}

#[test]
fn open_time_growth_resets_after_long_closed_period() {
    let (layer, time) = layer(config().open_for(10 * SECOND).open_backoff(3.0, 1_000 * SECOND));
    let circuit = layer.circuit();
    for (period, closed_for) in
        [(10, Duration::from_millis(9_999)), (30, SECOND), (90, 90 * SECOND), (10, SECOND)]
    {
        circuit.trip().unwrap();
        assert_eq!(circuit.status().retry_after, Some(period * SECOND));
        time.advance(period * SECOND);
        close(&circuit);
        time.advance(closed_for);
    }
}

#[test]
fn open_until_reset_ignores_retry_after() {
    for limits in [config().open_until_reset(true), BreakerConfig::single_flight()] {
        let (layer, time) = layer(limits);
        let circuit = layer.circuit();
        let mut service = layer.layer(server());
        (0..5).for_each(|_| {
            assert_ready!(start_with(&mut service, (503, 60)).poll()).unwrap();
        });
        time.advance(365 * 86_400 * SECOND);
        let result = send(&mut service, 200, SECOND, &time);
        let rejection = result.as_ref().unwrap_err().rejection().unwrap();
        assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::Open, None));
        assert_eq!(circuit.status().retry_after, None);
        circuit.reset().unwrap();
        assert!(send(&mut service, 200, SECOND, &time).is_ok());
    }
}

#[test]
fn retry_after_of_tripping_call_extends_open_time() {
    for (hint, open_for) in [(0, 30), (29, 30), (90, 90), (300, 300), (86_400, 300)] {
        let (layer, time) = layer(config());
        let mut service = layer.layer(server());
        for retry_after in [200, 200, 200, 200, hint] {
            assert_ready!(start_with(&mut service, (503, retry_after)).poll()).unwrap();
        }
        let open_for = Duration::from_secs(open_for);
        assert_eq!(layer.circuit().status().retry_after, Some(open_for), "`Retry-After: {hint}`");
        time.advance(open_for);
        // The `Retry-After` of a failed probe counts, too.
        assert_ready!(start_with(&mut service, (503, hint)).poll()).unwrap();
        assert_eq!(layer.circuit().status().retry_after, Some(open_for));
    }
}

#[test]
fn max_retry_after_bounds_server_delay_and_zero_ignores_it() {
    let limited = |seconds: u64| config().max_retry_after(Duration::from_secs(seconds));
    let (layer, time) = layer(limited(60));
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    // The configuration applies from the next time that the circuit opens.
    for (max, hint, open_for) in [(60, 45, 45), (60, 90, 60), (0, 90, 30), (3_600, 900, 900)] {
        circuit.reconfigure(limited(max).build().unwrap()).unwrap();
        for _ in 0..5 {
            assert_ready!(start_with(&mut service, (503, hint)).poll()).unwrap();
        }
        let open_for = Duration::from_secs(open_for);
        assert_eq!(circuit.status().retry_after, Some(open_for), "{hint} s of at most {max} s");
        time.advance(open_for);
        close(&circuit);
    }
}
