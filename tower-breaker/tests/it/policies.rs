//! What opens a circuit, what a call counts for, and how long the circuit stays open: through tower, by a clock that is moved by hand.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerError, BreakerLayer, CancelledPolicy, Circuit, CircuitState, Clock, Health, Kind,
    ManualClock, Reason, Verdict,
};
use tower_fault_classify::classifiers::NestedErrors;
use tower_fault_classify::upload::{UploadBody, UploadLayer};

use crate::support::{FAILURE, OPEN_FOR, SECOND, config, layer, state};

type Response = http::Response<()>;
type Answer = Result<Response, BreakerError<io::Error>>;

/// In place of a status.
const REFUSED: u16 = 0;
const HANGS: u16 = 1;
const PANICS: u16 = 2;
const PANICS_IN_CALL: u16 = 3;

/// Answers with the status that it is asked for, and with the number of seconds as `Retry-After`.
fn server()
-> impl Service<(u16, u64), Response = Response, Error = io::Error, Future: Send> + Clone + Send + Sync {
    service_fn(|(status, retry_after): (u16, u64)| {
        assert_ne!(status, PANICS_IN_CALL);
        async move {
            match status {
                HANGS => pending().await,
                PANICS => panic!("it was asked to"),
                REFUSED => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody is there")),
                _ => {
                    let response = http::Response::builder().status(status);
                    Ok(response.header("retry-after", retry_after).body(()).unwrap())
                }
            }
        }
    })
}

fn start<S: Service<(u16, u64)>>(service: &mut S, status: u16) -> task::Spawn<S::Future> {
    start_with(service, (status, 0))
}

fn start_with<S: Service<(u16, u64)>>(service: &mut S, request: (u16, u64)) -> task::Spawn<S::Future> {
    let ready = task::spawn(()).enter(|cx, _| service.poll_ready(cx));
    assert!(assert_ready!(ready).is_ok());
    task::spawn(service.call(request))
}

/// Sends a request and waits for the answer, for `took`.
fn send<S>(service: &mut S, status: u16, took: Duration, hand: &ManualClock) -> Answer
where
    S: Service<(u16, u64), Response = Response, Error = BreakerError<io::Error>>,
{
    let mut call = start(service, status);
    hand.advance(took);
    assert_ready!(call.poll())
}

fn is_rejected(answer: &Answer) -> bool {
    matches!(answer, Err(BreakerError::Rejected(_)))
}

fn why(circuit: &Circuit) -> Reason {
    assert_eq!(state(circuit), CircuitState::Open);
    circuit.status().last_trip.expect("it has opened").reason
}

fn close(circuit: &Circuit) {
    (0..2).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
    assert_eq!(state(circuit), CircuitState::Closed);
}

#[test]
fn slow_calls_at_threshold_open_and_so_does_slow_probe() {
    for status in [200, 404, 503] {
        let limits = config().slow_call_rate(SECOND, 0.5).consecutive_failures(0).failure_rate(None);
        let (layer, hand) = layer(limits);
        let circuit = layer.circuit();
        let mut service = layer.layer(server());
        let under = Duration::from_millis(999);
        (0..5).for_each(|_| assert!(send(&mut service, 200, under, &hand).is_ok()));
        for slow in 0..5 {
            assert_eq!((state(&circuit), circuit.status().window.slow), (CircuitState::Closed, slow));
            send(&mut service, status, SECOND, &hand).unwrap();
        }
        assert_eq!(why(&circuit), Reason::SlowRate, "{status}");
        hand.advance(OPEN_FOR);
        send(&mut service, 200, SECOND, &hand).unwrap();
        assert_eq!(why(&circuit), Reason::ProbeSlow);
        hand.advance(OPEN_FOR);
        (0..2).for_each(|_| assert!(send(&mut service, 200, under, &hand).is_ok()));
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

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

/// Runs into a panic, and says whether there was one.
fn panics<T>(run: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn panic_counts_one_failure_and_poisons_nothing() {
    type Step = fn(&BreakerLayer) -> bool;
    let panicking: [Step; 5] = [
        |layer| panics(|| start(&mut layer.layer(server()), PANICS_IN_CALL)),
        |layer| panics(|| start(&mut layer.layer(server()), PANICS).poll()),
        |layer| {
            // The future is there after the panic, and dropped: its outcome is recorded already.
            let mut call = start(&mut layer.layer(server()), PANICS);
            panics(|| call.poll())
        },
        |layer| {
            let call = async { panic!("it was asked to") };
            panics(|| task::spawn(layer.circuit().call::<_, (), io::Error, _>(call)).poll())
        },
        |layer| panics(|| layer.circuit().call_blocking::<(), io::Error, _>(|| panic!("it was asked to"))),
    ];
    for (place, panicking) in panicking.into_iter().enumerate() {
        let (layer, hand) = layer(config().cancelled(CancelledPolicy::Failure));
        let circuit = layer.circuit();
        for failures in 1..=5 {
            assert!(panicking(&layer), "place {place}");
            let counted = circuit.status().consecutive_failures;
            assert_eq!(counted, failures % 5, "place {place}");
        }
        assert_eq!(why(&circuit), Reason::ConsecutiveFailures, "place {place}");
        hand.advance(OPEN_FOR);
        assert!(panicking(&layer), "place {place}");
        assert_eq!(why(&circuit), Reason::ProbeFailed, "place {place}");
        hand.advance(OPEN_FOR);
        let mut service = layer.layer(server());
        (0..2).for_each(|_| assert!(send(&mut service, 200, SECOND, &hand).is_ok()));
        assert_eq!(state(&circuit), CircuitState::Closed, "place {place}");
    }
}

#[test]
fn slow_start_admits_share_and_rejects_others_with_retry_after() {
    let (layer, hand) = layer(config().slow_start(Duration::from_secs(10)));
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    circuit.trip().unwrap();
    hand.advance(OPEN_FOR);
    close(&circuit);
    for (half, expected) in [(0_u8, 250), (1, 750)] {
        let mut admitted = 0_usize;
        for call in 0..1_000 {
            let answer = send(&mut service, 200, Duration::from_millis(5), &hand);
            admitted += usize::from(answer.is_ok());
            if let Err(BreakerError::Rejected(rejection)) = answer {
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
    (0..100).for_each(|_| assert!(send(&mut service, 200, Duration::ZERO, &hand).is_ok()));
    assert_eq!(circuit.status().slow_start, None);
}

#[test]
fn half_open_rejection_has_retry_after_of_1s() {
    for (lease, expected) in [(30 * SECOND, SECOND), (SECOND / 2, SECOND / 2)] {
        let (layer, hand) = layer(config().probes(1).probe_lease(lease));
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        hand.advance(OPEN_FOR);
        let probe = circuit.try_acquire().unwrap();
        let rejection = circuit.try_acquire().unwrap_err();
        assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::HalfOpen, Some(expected)));
        probe.record(Verdict::Success);
        assert!(circuit.try_acquire().is_ok(), "a probe that has ended frees its slot at once");
    }
}

#[test]
fn open_time_grows_to_cap_and_jitter_only_adds() {
    let mut added = Vec::new();
    for _ in 0..50 {
        let growing = config().open_for(10 * SECOND).open_backoff(2.0, 100 * SECOND).open_jitter(0.25);
        let (layer, hand) = layer(growing);
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        for base in [10, 20, 40, 80, 100, 100] {
            let period = circuit.status().retry_after.unwrap();
            let share = period.as_secs_f64() / f64::from(base) - 1.0;
            // Kept to the millisecond.
            assert!((0.0..=0.250_1).contains(&share), "{period:?} for {base} s");
            added.push(share);
            hand.advance(period.saturating_sub(Duration::from_millis(1)));
            assert!(circuit.try_acquire().is_err());
            hand.advance(Duration::from_millis(1));
            circuit.try_acquire().unwrap().record(FAILURE);
        }
    }
    let mean = added.iter().sum::<f64>() / added.len() as f64;
    assert!((0.08..0.17).contains(&mean), "{mean}: drawn evenly, circuit by circuit");
}

#[test]
fn open_time_growth_resets_after_long_closed_period() {
    let (layer, hand) = layer(config().open_for(10 * SECOND).open_backoff(3.0, 1_000 * SECOND));
    let circuit = layer.circuit();
    for (period, closed_for) in
        [(10, Duration::from_millis(9_999)), (30, SECOND), (90, 90 * SECOND), (10, SECOND)]
    {
        circuit.trip().unwrap();
        assert_eq!(circuit.status().retry_after, Some(period * SECOND));
        hand.advance(period * SECOND);
        close(&circuit);
        hand.advance(closed_for);
    }
}

#[test]
fn open_until_reset_ignores_retry_after() {
    for limits in [config().open_until_reset(), BreakerConfig::single_flight()] {
        let (layer, hand) = layer(limits);
        let circuit = layer.circuit();
        let mut service = layer.layer(server());
        (0..5).for_each(|_| {
            assert_ready!(start_with(&mut service, (503, 60)).poll()).unwrap();
        });
        hand.advance(365 * 86_400 * SECOND);
        let answer = send(&mut service, 200, SECOND, &hand);
        let rejection = answer.as_ref().unwrap_err().rejection().unwrap();
        assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::Open, None));
        assert_eq!(circuit.status().retry_after, None);
        circuit.reset().unwrap();
        assert!(send(&mut service, 200, SECOND, &hand).is_ok());
    }
}

#[test]
fn retry_after_of_tripping_call_extends_open_time() {
    for (asked_for, open_for) in [(0, 30), (29, 30), (90, 90), (300, 300), (86_400, 300)] {
        let (layer, hand) = layer(config());
        let mut service = layer.layer(server());
        for hint in [200, 200, 200, 200, asked_for] {
            assert_ready!(start_with(&mut service, (503, hint)).poll()).unwrap();
        }
        let open_for = Duration::from_secs(open_for);
        assert_eq!(layer.circuit().status().retry_after, Some(open_for), "asked for {asked_for} s");
        hand.advance(open_for);
        // The same of a probe.
        assert_ready!(start_with(&mut service, (503, asked_for)).poll()).unwrap();
        assert_eq!(layer.circuit().status().retry_after, Some(open_for));
    }
}

#[test]
fn health_function_overrides_health_of_fault() {
    let (layer, hand) = layer(config());
    let circuit = layer.circuit();
    let layer = layer.health(|fault| match fault.kind() {
        Kind::Auth => Health::Unhealthy,
        Kind::Server => Health::Neutral,
        _ => fault.health(),
    });
    let mut service = layer.layer(server());
    (0..100).for_each(|_| assert!(send(&mut service, 500, SECOND, &hand).is_ok()));
    assert_eq!(circuit.status().window.calls, 0, "neutral");
    (0..5).for_each(|_| assert!(send(&mut service, 401, SECOND, &hand).is_ok()));
    assert_eq!(why(&circuit), Reason::ConsecutiveFailures);
    circuit.reset().unwrap();
    (0..5).for_each(|_| assert!(send(&mut service, 503, SECOND, &hand).is_ok()));
    assert_eq!(why(&circuit), Reason::ConsecutiveFailures, "the others keep theirs");
}

#[test]
fn last_failure_has_type_message_and_label() {
    let (layer, hand) = layer(config());
    let circuit = layer.circuit();
    let mut service = layer.keep_last_failure("orders").layer(server());
    for status in [200, 404, 429] {
        send(&mut service, status, SECOND, &hand).unwrap();
        assert!(circuit.status().last_failure.is_none(), "{status} is no failure");
    }
    send(&mut service, 503, SECOND, &hand).unwrap();
    let last = circuit.status().last_failure.unwrap();
    assert_eq!((&*last.label, last.fault.kind()), ("orders", Kind::Unavailable));
    assert_eq!(last.message, last.fault.to_string());
    assert!(last.type_name.contains("Response"), "{}", last.type_name);
    send(&mut service, REFUSED, SECOND, &hand).unwrap_err();
    send(&mut service, 200, SECOND, &hand).unwrap();
    let last = circuit.status().last_failure.unwrap();
    assert_eq!((&*last.message, &*last.label), ("nobody is there", "orders"));
    assert_eq!(last.type_name, std::any::type_name::<io::Error>());
}

#[test]
fn last_failure_allocates_only_at_failures() {
    let limits = || config().consecutive_failures(0).failure_rate(None);
    let (plain, keeps) = (layer(limits()).0, layer(limits()).0);
    let circuit = plain.circuit();
    let (mut plain, mut keeps) = (plain.layer(server()), keeps.keep_last_failure("orders").layer(server()));
    let [success, failure] = [429, REFUSED].map(|status| allocations(&mut plain, status));
    assert!(circuit.status().last_failure.is_none(), "nobody asked for it");
    assert_eq!(allocations(&mut keeps, 429), success);
    assert!(allocations(&mut keeps, REFUSED) > failure);
}

fn allocations<S: Service<(u16, u64), Future: std::future::Future>>(service: &mut S, status: u16) -> u64 {
    allocation_counter::measure(|| drop(assert_ready!(start(service, status).poll()))).count_total
}

/// A worker's query under a timeout: the query's own error is nested in the timeout's result.
#[test]
fn nested_results_count_inner_error() {
    type Nested<T> = Result<Result<T, io::Error>, io::Error>;
    struct Row;

    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let state_after = |layer: &BreakerLayer, answer: fn() -> Nested<u32>| {
        let mut service = layer.layer(service_fn(move |()| std::future::ready(answer())));
        for _ in 0..5 {
            assert!(tokio_test::block_on(async { service.ready().await.unwrap().call(()).await }).is_ok());
        }
        layer.circuit().status().state
    };
    let (layer, _) = layer(config());
    assert_eq!(state_after(&layer, || Ok(Ok(1))), CircuitState::Closed);
    assert_eq!(state_after(&layer, || Ok(Err(io::ErrorKind::ConnectionRefused.into()))), CircuitState::Open);

    // A value without an `Outcome`.
    let layer = BreakerLayer::new(BreakerConfig::default()).classify(NestedErrors::new());
    let mut service =
        layer.layer(service_fn(move |()| std::future::ready(Nested::<Row>::Ok(Err(refused())))));
    for _ in 0..5 {
        assert!(tokio_test::block_on(async { service.ready().await.unwrap().call(()).await }).is_ok());
    }
    assert_eq!(layer.circuit().status().state, CircuitState::Open);
}
