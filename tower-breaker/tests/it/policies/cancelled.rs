//! How cancelled calls are counted, by policy.

use super::*;

/// Ready when told, and then it hangs.
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

/// Gives up calls after `after` until the circuit opens, and says how many that took; after 100 it gives that up, too.
fn give_up(connection: &Connection, layer: &BreakerLayer, hand: &ManualClock, after: Duration) -> usize {
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
        hand.advance(after);
        drop((call, service));
    }
    100
}

/// How many calls that are given up it takes to open a closed circuit, and why it opens.
fn until_open(policy: CancelledPolicy, ready: bool, after: Duration) -> (usize, Option<Reason>) {
    let limits = config().failure_rate(None).time_window(Duration::from_secs(3_600));
    let (layer, hand) = layer(limits.cancelled(policy));
    let number = give_up(&Connection { ready }, &layer, &hand, after);
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
fn service_dropped_after_limit_of_policy_counts_failure() {
    let policy = CancelledPolicy::FailureAfter(SECOND);
    assert_eq!(until_open(policy, false, SECOND), (5, Some(Reason::ConsecutiveFailures)));
}

/// The same of probes and a half-open circuit.
fn probes_until_open(policy: CancelledPolicy, ready: bool) -> (usize, Reason) {
    let (layer, hand) = layer(config().cancelled(policy));
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    hand.advance(OPEN_FOR);
    circuit.try_acquire().unwrap().cancel();
    let number = give_up(&Connection { ready }, &layer, &hand, SECOND);
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
fn probe_cancelled_while_waiting_counts_failure_by_policy() {
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
fn call_dropped_during_upload_counts_nothing_and_frees_slot() {
    let policies = [
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(SECOND),
    ];
    for policy in policies {
        let (layer, hand) =
            layer(config().consecutive_failures(1).probes(1).open_for(OPEN_FOR).cancelled(policy));
        let circuit = layer.circuit();
        let reads = service_fn(async |request: http::Request<UploadBody<Stalled>>| {
            request.into_body().frame().await;
            pending::<Result<Response, io::Error>>().await
        });
        let mut service = UploadLayer::new().layer(layer.layer(reads));
        let mut give_up = || {
            let mut call = task::spawn((&mut service).oneshot(http::Request::new(Stalled)));
            assert_pending!(call.poll());
            hand.advance(2 * SECOND);
        };
        for _ in 0..20 {
            give_up();
        }
        assert_eq!((state(&circuit), circuit.status().window.cancelled), (CircuitState::Closed, 0));
        circuit.trip().unwrap();
        hand.advance(OPEN_FOR);
        for _ in 0..20 {
            give_up();
            assert_eq!(state(&circuit), CircuitState::HalfOpen, "{policy:?}");
        }
    }
}

#[test]
fn completed_call_in_window_keeps_cancelled_calls_ignored() {
    let (layer, hand) = layer(config());
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    send(&mut service, 503, SECOND, &hand).unwrap();
    (0..100).for_each(|_| assert_pending!(start(&mut service, HANGS).poll()));
    assert_eq!(state(&circuit), CircuitState::Closed, "it answered, if not well");
    hand.advance(Duration::from_secs(66));
    (0..10).for_each(|_| assert_pending!(start(&mut service, HANGS).poll()));
    assert_eq!(why(&circuit), Reason::NoneCompletes);
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
        assert!(is_rejected(&call().await.expect("it answers at once")), "ready: {ready}");
    }
}
