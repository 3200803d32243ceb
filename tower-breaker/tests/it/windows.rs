//! The counts of a circuit's window: after any idle time, any number of calls, cancelled calls, and
//! on a clock that runs back. Most tests cover both a single circuit and a keyed one.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{
    BreakerConfigBuilder, BreakerLayer, Circuit, CircuitState, Clock, Fault, Health, Kind, ManualClock,
    Permit, Reason, Rejection, Status, Verdict,
};

use crate::support::SECOND;

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

const FAILURE: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
const TOO_MANY_REQUESTS: Fault =
    Fault::new(Kind::Throttled, Retryable::Never, Health::Neutral, Origin::Remote);

#[derive(Clone, Copy, Debug)]
enum End {
    Success,
    Failure,
    /// The server responds with a 429.
    Neutral,
    /// The caller drops the call.
    Cancelled,
}

/// A single circuit, or a keyed one.
enum Guard {
    Single(Circuit),
    Keyed(KeyedCircuit<u64>),
}

impl Guard {
    fn single(config: BreakerConfigBuilder) -> Self {
        Self::Single(Circuit::new(config.build().unwrap()))
    }

    fn keyed(config: BreakerConfigBuilder) -> Self {
        let config = KeyedConfig::builder(config.build().unwrap()).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key);
        Self::Keyed(layer.circuits().get_or_insert(7).unwrap())
    }

    /// Returns a circuit of each kind. Not for a count window, which a keyed circuit does not have.
    fn both(config: &BreakerConfigBuilder) -> [Self; 2] {
        [Self::single(config.clone()), Self::keyed(config.clone())]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Keyed(_) => "keyed",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Single(circuit) => circuit.status(),
            Self::Keyed(circuit) => circuit.status(),
        }
    }

    fn state(&self) -> CircuitState {
        self.status().state
    }

    /// Returns the calls, failures, slow calls and cancelled calls in the window.
    fn counts(&self) -> [u64; 4] {
        let window = self.status().window;
        [window.calls, window.failures, window.slow, window.cancelled]
    }

    fn trip(&self) {
        match self {
            Self::Single(circuit) => circuit.trip().unwrap(),
            Self::Keyed(circuit) => circuit.trip().unwrap(),
        }
    }

    /// Runs a call that takes `duration`.
    fn run_for(&self, time: &ManualClock, duration: Duration, end: End) {
        match self {
            Self::Single(circuit) => finish(circuit.try_acquire(), time, duration, end),
            Self::Keyed(circuit) => finish(circuit.try_acquire(), time, duration, end),
        }
    }

    fn run(&self, end: End) {
        self.run_for(&Clock::manual().1, Duration::ZERO, end);
    }

    fn repeat(&self, times: u64, end: End) {
        let (_, time) = Clock::manual();
        (0..times).for_each(|_| self.run_for(&time, Duration::ZERO, end));
    }
}

fn finish<H: CircuitRef>(
    permit: Result<Permit<H>, Rejection>,
    time: &ManualClock,
    duration: Duration,
    end: End,
) {
    let permit = permit.expect("the circuit must admit the call");
    time.advance(duration);
    match end {
        End::Success => permit.record(Verdict::Success),
        End::Failure => permit.record(FAILURE.into()),
        End::Neutral => permit.record(TOO_MANY_REQUESTS.into()),
        End::Cancelled => drop(permit),
    }
}

/// Returns a configuration that opens at 50 % failures of at least ten calls. The clock shows 1,000
/// s.
fn config() -> (BreakerConfigBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(1_000 * SECOND);
    (crate::support::config().clock(clock).consecutive_failures(0).minimum_calls(10), time)
}

/// Returns the length of a bucket, in nanoseconds, in the window of a single circuit and of a keyed
/// one.
fn buckets(window: Duration) -> [u64; 2] {
    [15, 10].map(|parts| (window.as_nanos() as u64).div_ceil(parts))
}

/// Returns idle times. Among them are those after which the lowest 20 to 32 bits of a tag repeat,
/// and times that are some buckets shorter or longer.
fn idle_times(window: Duration) -> Vec<Duration> {
    let mut times = vec![Duration::ZERO, 5 * 60 * SECOND, 31 * DAY, 3 * YEAR, 100 * YEAR];
    for bucket in buckets(window) {
        for bits in [20, 22, 23, 24, 26, 28, 31, 32] {
            let wrap = u128::from(bucket) << bits;
            for buckets in [-300, -130, -12, -1, 0, 1, 12, 300] {
                let nanos = wrap.saturating_add_signed(i128::from(bucket) * buckets);
                // Leave out times that the clock cannot show.
                times.extend(
                    u64::try_from(nanos).ok().filter(|nanos| *nanos < 1 << 62).map(Duration::from_nanos),
                );
            }
        }
    }
    times
}

#[test]
fn time_window_is_empty_after_idle_time() {
    for millis in [1, 100, 1_000, 60_000, 3_600_000] {
        let window = Duration::from_millis(millis);
        for idle in idle_times(window).into_iter().filter(|idle| *idle > 2 * window) {
            let (config, time) = config();
            for guard in Guard::both(&config.clone().time_window(window)) {
                time.set(1_000 * SECOND);
                // Each bucket of the window gets at least one call.
                for _ in 0..32 {
                    guard.run_for(&time, window / 32, End::Success);
                    guard.run(End::Cancelled);
                }
                guard.repeat(4, End::Failure);
                time.advance(idle);
                let case = format!("{} circuit, {window:?}, idle for {idle:?}", guard.name());
                assert_eq!(guard.counts(), [0; 4], "{case}");
                for _ in 0..16 {
                    guard.run_for(&time, window / 32, End::Success);
                }
                guard.repeat(8, End::Failure);
                assert_eq!(guard.counts(), [24, 8, 0, 0], "{case}");
                guard.repeat(8, End::Failure);
                assert_eq!(guard.state(), CircuitState::Open, "{case}");
            }
        }
    }
}

proptest! {
    /// Compares the window with a list of all outcomes, over phases of calls with idle times
    /// between them.
    #[test]
    fn time_window_agrees_with_list_after_idle_time(
        millis in prop::sample::select(vec![1_u64, 100, 1_000, 60_000, 3_600_000]),
        keyed in any::<bool>(),
        phases in proptest::collection::vec(
            (any::<prop::sample::Index>(), proptest::collection::vec((0_u64..40, 0_u8..3), 1..12)),
            1..8,
        ),
    ) {
        let window = Duration::from_millis(millis);
        let (clock, time) = Clock::manual();
        let config = crate::support::config().clock(clock).consecutive_failures(0).failure_rate(None);
        let config = config.minimum_calls(100_000).time_window(window);
        let guard = if keyed { Guard::keyed(config) } else { Guard::single(config) };
        let (bucket, span) = if keyed { (buckets(window)[1], 11) } else { (buckets(window)[0], 16) };
        let idle_times = idle_times(window);
        let mut events: Vec<(u128, u8)> = Vec::new();
        // Ten cancelled calls in a row would open the circuit.
        let mut cancelled_in_a_row = 0;
        for (idle, calls) in phases {
            time.advance(*idle.get(&idle_times));
            if clock.now() > 1 << 62 {
                break;
            }
            for (tenths, end) in calls {
                time.advance(Duration::from_nanos(bucket * tenths / 10));
                let end = if end == 2 && cancelled_in_a_row == 9 { 0 } else { end };
                cancelled_in_a_row = if end == 2 { cancelled_in_a_row + 1 } else { 0 };
                guard.run([End::Success, End::Failure, End::Cancelled][usize::from(end)]);
                // The number of the bucket, rounded as in the window.
                let scale = u128::from(u64::MAX / bucket + 1);
                let now = (u128::from(clock.now()) * scale) >> 64;
                events.push((now, end));
                let number = |wanted: &[u8]| {
                    events.iter().filter(|(at, end)| now - at < span && wanted.contains(end)).count() as u64
                };
                prop_assert_eq!(guard.counts(), [number(&[0, 1]), number(&[1]), 0, number(&[2])]);
            }
        }
    }
}

#[test]
fn cancelled_calls_since_completed_one_open_any_window() {
    for end in [End::Success, End::Failure, End::Neutral] {
        let (config, time) = config();
        let config = config.failure_rate(None);
        let count = Guard::single(config.clone().count_window(20));
        for guard in Guard::both(&config).into_iter().chain([count]) {
            for _ in 0..20 {
                guard.repeat(9, End::Cancelled);
                time.advance(10 * SECOND);
                guard.run(end);
            }
            guard.repeat(100, End::Cancelled);
            time.advance(Duration::from_nanos(999_999_999));
            guard.run(End::Cancelled);
            assert_eq!(guard.state(), CircuitState::Closed, "{end:?}, {}", guard.name());
            time.advance(Duration::from_nanos(1));
            guard.run(End::Cancelled);
            assert_eq!(guard.state(), CircuitState::Open, "{end:?}, {}", guard.name());
            assert_eq!(guard.status().last_trip.unwrap().reason, Reason::NoneCompletes);
        }
    }
}

#[test]
fn neutral_answer_is_completed_call() {
    let (config, time) = config();
    let count = Guard::single(config.clone().count_window(100));
    for guard in Guard::both(&config).into_iter().chain([count]) {
        for _ in 0..1_000 {
            guard.run(End::Cancelled);
            guard.run_for(&time, SECOND, End::Neutral);
        }
        assert_eq!(guard.state(), CircuitState::Closed, "{}", guard.name());
        let [calls, failures, slow, cancelled] = guard.counts();
        assert_eq!((calls, failures, slow), (0, 0, 0), "neutral answers count in no rate");
        assert!(cancelled > 50, "{cancelled}");
    }
}

#[test]
fn inner_rejection_is_not_a_completed_call() {
    let shed = Fault::new(Kind::Rejected, Retryable::Unsent, Health::Neutral, Origin::Local);
    let (config, time) = config();
    let circuit = Circuit::new(config.build().unwrap());
    for _ in 0..10 {
        circuit.try_acquire().unwrap().record(shed.into());
        time.advance(SECOND / 5);
        drop(circuit.try_acquire());
    }
    assert_eq!(circuit.status().state, CircuitState::Open, "the server has not answered any call");
}

#[test]
fn half_open_counts_cancelled_probes_since_completed_probe() {
    let (config, time) = config();
    for end in [End::Success, End::Neutral] {
        for guard in Guard::both(&config.clone().successes_to_close(100)) {
            guard.trip();
            time.advance(30 * SECOND);
            for _ in 0..3 {
                guard.run(end);
                guard.repeat(9, End::Cancelled);
            }
            assert_eq!(guard.state(), CircuitState::HalfOpen, "{end:?}, {}", guard.name());
            guard.run(End::Cancelled);
            assert_eq!(guard.state(), CircuitState::Open, "{end:?}, {}", guard.name());
        }
    }
}

/// An endless body.
#[derive(Debug, Default)]
struct Frames;

impl Body for Frames {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(b"tick"))))
    }
}

/// A service that responds with an endless body.
#[derive(Clone)]
struct Streams {
    grpc: bool,
}

impl Service<u64> for Streams {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        let mut response = Response::new(Frames);
        if self.grpc {
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        }
        ready(Ok(response))
    }
}

/// Makes a call, reads this number of frames, and drops the body.
async fn read<S, B>(service: &mut S, frames: usize)
where
    S: Service<u64, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: Body + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut body = service.ready().await.unwrap().call(7).await.unwrap().into_body();
    for _ in 0..frames {
        body.frame().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn stream_dropped_after_data_is_completed_call() {
    for grpc in [false, true] {
        let (config, time) = config();
        let layer = BreakerLayer::<_, _>::new(config.clone().build().unwrap()).track_body();
        let circuit = layer.circuit();
        let mut own = layer.layer(Streams { grpc });
        let each = KeyedConfig::builder(config.clone().build().unwrap()).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(each, |key: &u64| *key).track_body();
        let circuits = layer.circuits();
        let mut keyed = layer.layer(Streams { grpc });
        for _ in 0..10 {
            read(&mut own, 1_000).await;
            read(&mut keyed, 1_000).await;
            time.advance(SECOND);
        }
        for guard in [Guard::Single(circuit), Guard::Keyed(circuits.get(&7).unwrap())] {
            assert_eq!(guard.state(), CircuitState::Closed, "{}", guard.name());
        }
        let layer = BreakerLayer::<_, _>::new(config.count_window(50).build().unwrap()).track_body();
        for _ in 0..100 {
            read(&mut layer.layer(Streams { grpc }), 1).await;
            time.advance(SECOND);
        }
        assert_eq!(layer.circuit().status().state, CircuitState::Closed);
    }
}

#[tokio::test]
async fn grpc_stream_dropped_without_data_is_cancelled_call() {
    let (config, time) = config();
    let layer = BreakerLayer::<_, _>::new(config.build().unwrap()).track_body();
    for _ in 0..10 {
        time.advance(SECOND / 5);
        read(&mut layer.layer(Streams { grpc: true }), 0).await;
    }
    assert_eq!(layer.circuit().status().state, CircuitState::Open);
}

#[test]
fn keyed_bucket_counts_more_than_a_million_calls() {
    const CALLS: u64 = 1_200_000;
    let (config, time) = config();
    let guard = Guard::keyed(config.time_window(600 * SECOND));
    guard.repeat(1, End::Failure);
    time.advance(60 * SECOND);
    // A third of the calls fail.
    for _ in 0..CALLS / 3 {
        guard.run(End::Success);
        guard.run(End::Failure);
        guard.run(End::Success);
    }
    assert_eq!(guard.counts(), [CALLS + 1, CALLS / 3 + 1, 0, 0]);
    assert_eq!(guard.state(), CircuitState::Closed);
    time.advance(599 * SECOND);
    guard.run(End::Success);
    assert_eq!(guard.counts(), [CALLS + 1, CALLS / 3, 0, 0], "the oldest bucket has left the window");
    time.advance(60 * SECOND);
    guard.run(End::Success);
    assert_eq!(guard.counts(), [2, 0, 0, 0]);
}

#[test]
fn keyed_circuit_with_quarter_slow_calls_stays_closed() {
    let (config, time) = config();
    let config = config.failure_rate(None).slow_call_rate(SECOND / 1_000, 0.5);
    let guard = Guard::keyed(config.time_window(YEAR));
    for _ in 0..300_000 {
        guard.run_for(&time, SECOND / 1_000, End::Success);
        guard.repeat(3, End::Success);
    }
    assert_eq!((guard.state(), guard.counts()), (CircuitState::Closed, [1_200_000, 0, 300_000, 0]));
}

#[test]
fn keyed_circuit_counts_up_to_minimum_calls() {
    const MINIMUM: u32 = 1_100_000;
    let (config, _time) = config();
    let guard = Guard::keyed(config.minimum_calls(MINIMUM));
    guard.repeat(u64::from(MINIMUM) - 1, End::Failure);
    assert_eq!(guard.state(), CircuitState::Closed);
    guard.run(End::Failure);
    assert_eq!(guard.state(), CircuitState::Open);
}

#[test]
fn clock_that_runs_back_loses_no_outcome() {
    let (config, time) = config();
    for to in [999, 940, 100] {
        for guard in Guard::both(&config) {
            time.set(1_000 * SECOND);
            guard.run(End::Failure);
            time.set(to * SECOND);
            for _ in 0..10 {
                guard.repeat(2, End::Success);
                guard.run(End::Failure);
            }
            let case = format!("{} circuit, back to {to} s", guard.name());
            assert_eq!(guard.state(), CircuitState::Closed, "{case}");
            assert_eq!(guard.counts(), [31, 11, 0, 0], "{case}");
            guard.repeat(9, End::Failure);
            assert_eq!(guard.state(), CircuitState::Open, "{case}");
        }
    }
}

#[test]
fn clock_that_runs_back_after_successes_loses_no_failure() {
    let (config, time) = config();
    for guard in Guard::both(&config) {
        time.set(1_000 * SECOND);
        guard.repeat(5, End::Success);
        time.set(100 * SECOND);
        guard.repeat(4, End::Failure);
        assert_eq!(guard.counts(), [9, 4, 0, 0], "{}", guard.name());
        guard.run(End::Failure);
        assert_eq!(guard.state(), CircuitState::Open, "{}", guard.name());
    }
}

#[test]
fn window_of_new_shape_counts_after_clock_ran_back() {
    let (config, time) = config();
    let circuit = Circuit::new(config.clone().build().unwrap());
    let guard = Guard::Single(circuit.clone());
    guard.repeat(5, End::Success);
    time.set(500 * SECOND);
    guard.repeat(5, End::Success);
    circuit.reconfigure(config.time_window(600 * SECOND).build().unwrap()).unwrap();
    for _ in 0..10 {
        guard.repeat(2, End::Success);
        guard.run_for(&time, 10 * SECOND, End::Failure);
    }
    assert_eq!(guard.counts(), [30, 10, 0, 0]);
}
