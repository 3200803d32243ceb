//! How cancelled calls are counted, by policy.

use super::*;

/// A server whose calls never complete. If `ready` is false, it does not even become ready.
#[derive(Clone)]
struct Connection {
    ready: bool,
}

impl Service<()> for Connection {
    type Response = Response;
    type Error = io::Error;
    type Future = std::future::Pending<Result<Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

/// Cancels calls, each after `after`, until the state of the circuit changes. Returns the number of
/// calls, or 100 if the state has not changed after 100 calls.
fn cancel_calls(connection: &Connection, layer: &BreakerLayer, time: &ManualClock, after: Duration) -> usize {
    let before = layer.circuit().status().state;
    for calls in 0..100 {
        if layer.circuit().status().state != before {
            return calls;
        }
        let mut service = layer.layer(connection.clone());
        let ready = task::spawn(()).enter(|cx, _| service.poll_ready(cx));
        assert_eq!(ready.is_ready(), connection.ready);
        let call = connection.ready.then(|| {
            let mut call = task::spawn(service.call(()));
            assert_pending!(call.poll());
            call
        });
        time.advance(after);
        drop((call, service));
    }
    100
}

/// Returns how many cancelled calls open a closed circuit, and the reason.
fn until_open(policy: CancelledPolicy, ready: bool, after: Duration) -> (usize, Option<Reason>) {
    let limits = config().failure_rate(None).time_window(Duration::from_secs(3_600));
    let (layer, time) = layer(limits.cancelled(policy));
    let number = cancel_calls(&Connection { ready }, &layer, &time, after);
    (number, layer.circuit().status().last_trip.map(|trip| trip.reason))
}

#[test]
fn cancelled_call_counts_by_policy() {
    use CancelledPolicy::{Failure, FailureAfter, IfNoneCompletes, Ignore};
    let just_under = Duration::from_nanos(999_999_999);
    assert_eq!(until_open(IfNoneCompletes, true, SECOND), (10, Some(Reason::NoneCompletes)));
    assert_eq!(until_open(Ignore, true, SECOND), (100, None));
    assert_eq!(until_open(Failure, true, Duration::ZERO), (5, Some(Reason::ConsecutiveFailures)));
    assert_eq!(until_open(FailureAfter(SECOND), true, just_under), (100, None));
    assert_eq!(until_open(FailureAfter(SECOND), true, SECOND), (5, Some(Reason::ConsecutiveFailures)));
}

#[test]
fn service_dropped_while_waiting_counts_by_policy() {
    use CancelledPolicy::{Failure, FailureAfter, IfNoneCompletes, Ignore};
    let just_under = Duration::from_nanos(999_999_999);
    assert_eq!(until_open(IfNoneCompletes, false, SECOND), (10, Some(Reason::NoneCompletes)));
    assert_eq!(until_open(Ignore, false, SECOND), (100, None));
    assert_eq!(until_open(Failure, false, Duration::ZERO), (5, Some(Reason::ConsecutiveFailures)));
    assert_eq!(until_open(FailureAfter(SECOND), false, just_under), (100, None));
}

#[test]
fn service_dropped_after_limit_of_policy_counts_as_failure() {
    let policy = CancelledPolicy::FailureAfter(SECOND);
    assert_eq!(until_open(policy, false, SECOND), (5, Some(Reason::ConsecutiveFailures)));
}

/// Returns how many cancelled probes open a half-open circuit, and the reason.
fn probes_until_open(policy: CancelledPolicy, ready: bool) -> (usize, Reason) {
    let (layer, time) = layer(config().cancelled(policy));
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    circuit.try_acquire().unwrap().cancel();
    let number = cancel_calls(&Connection { ready }, &layer, &time, SECOND);
    (number, circuit.status().last_trip.unwrap().reason)
}

#[test]
fn cancelled_probe_counts_by_policy() {
    use CancelledPolicy::{Failure, FailureAfter, IfNoneCompletes, Ignore};
    assert_eq!(probes_until_open(IfNoneCompletes, true), (10, Reason::NoneCompletes));
    assert_eq!(probes_until_open(Ignore, true), (100, Reason::Tripped));
    assert_eq!(probes_until_open(Failure, true), (1, Reason::ProbeFailed));
    assert_eq!(probes_until_open(FailureAfter(SECOND), true), (1, Reason::ProbeFailed));
}

#[test]
fn probes_cancelled_while_waiting_reopen_by_default() {
    assert_eq!(probes_until_open(CancelledPolicy::Ignore, false), (100, Reason::Tripped));
    assert_eq!(probes_until_open(CancelledPolicy::IfNoneCompletes, false), (10, Reason::NoneCompletes));
}

#[test]
fn probe_cancelled_while_waiting_counts_as_failure_by_policy() {
    assert_eq!(probes_until_open(CancelledPolicy::Failure, false), (1, Reason::ProbeFailed));
}

/// The body of a request whose source sends nothing.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Infallible>>> {
        Poll::Pending
    }
}

#[test]
fn call_dropped_during_upload_is_not_counted_and_frees_slot() {
    let policies = [
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(SECOND),
    ];
    for policy in policies {
        let (layer, time) =
            layer(config().consecutive_failures(1).probes(1).open_for(OPEN_FOR).cancelled(policy));
        let circuit = layer.circuit();
        let inner = service_fn(async |request: http::Request<UploadBody<Stalled>>| {
            request.into_body().frame().await;
            pending::<Result<Response, io::Error>>().await
        });
        let mut service = UploadLayer::new().layer(layer.layer(inner));
        let mut cancel_call = || {
            let mut call = task::spawn((&mut service).oneshot(http::Request::new(Stalled)));
            assert_pending!(call.poll());
            time.advance(2 * SECOND);
        };
        for _ in 0..20 {
            cancel_call();
        }
        assert_eq!((state(&circuit), circuit.status().window.cancelled), (CircuitState::Closed, 0));
        circuit.trip().unwrap();
        time.advance(OPEN_FOR);
        for _ in 0..20 {
            cancel_call();
            assert_eq!(state(&circuit), CircuitState::HalfOpen, "{policy:?}");
        }
    }
}

#[test]
fn completed_call_restarts_count_of_cancelled_calls() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    (0..9).for_each(|_| assert_pending!(start(&mut service, HANGS).poll()));
    send(&mut service, 503, 2 * SECOND, &time).unwrap();
    (0..9).for_each(|_| assert_pending!(start(&mut service, HANGS).poll()));
    time.advance(SECOND);
    assert_eq!(state(&circuit), CircuitState::Closed, "the server responded once, with an error");
    assert_pending!(start(&mut service, HANGS).poll());
    assert_eq!(trip_reason(&circuit), Reason::NoneCompletes);
}

#[test]
fn cancelled_calls_at_one_moment_are_ignored() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    (0..100).for_each(|_| assert_pending!(start(&mut service, HANGS).poll()));
    time.advance(Duration::from_nanos(999_999_999));
    assert_pending!(start(&mut service, HANGS).poll());
    assert_eq!(state(&circuit), CircuitState::Closed);
    time.advance(Duration::from_nanos(1));
    assert_pending!(start(&mut service, HANGS).poll());
    assert_eq!(trip_reason(&circuit), Reason::NoneCompletes);
}

#[test]
fn count_of_cancelled_calls_is_at_most_ten_and_at_most_minimum_calls() {
    for (minimum, number) in [(1, 2), (2, 2), (5, 5), (10, 10), (100, 10)] {
        let (layer, time) = layer(config().minimum_calls(minimum));
        assert_eq!(cancel_calls(&Connection { ready: true }, &layer, &time, SECOND), number, "{minimum}");
        time.advance(OPEN_FOR);
        layer.circuit().try_acquire().unwrap().cancel();
        let probes = cancel_calls(&Connection { ready: true }, &layer, &time, SECOND);
        assert_eq!(probes, minimum.min(10) as usize, "probes, {minimum}");
    }
}

#[test]
fn reconfigure_keeps_cancelled_calls_and_applies_number_and_policy() {
    let (clock, time) = Clock::manual();
    let config = || config().clock(clock);
    let circuit = Circuit::new(config().build().unwrap());
    let cancel = |times| (0..times).for_each(|_| drop(circuit.try_acquire().unwrap()));
    cancel(3);
    time.advance(SECOND);
    circuit.reconfigure(config().cancelled(CancelledPolicy::Ignore).build().unwrap()).unwrap();
    cancel(100);
    assert_eq!(state(&circuit), CircuitState::Closed);
    circuit.reconfigure(config().minimum_calls(5).count_window(9).build().unwrap()).unwrap();
    cancel(1);
    assert_eq!(state(&circuit), CircuitState::Closed, "four calls since the last completed one");
    cancel(1);
    assert_eq!(trip_reason(&circuit), Reason::NoneCompletes);
}

#[tokio::test(start_paused = true)]
async fn outer_timeout_over_hung_server_opens_by_default() {
    for ready in [true, false] {
        let layer: BreakerLayer = BreakerLayer::new(config().clock(Clock::tokio()).build().unwrap());
        let service = layer.layer(Connection { ready });
        let call = async || tokio::time::timeout(SECOND, service.clone().oneshot(())).await;
        for number in 0..10 {
            assert!(call().await.is_err(), "call {number} times out, ready: {ready}");
        }
        assert!(is_rejected(&call().await.expect("a rejection is immediate")), "ready: {ready}");
    }
}
