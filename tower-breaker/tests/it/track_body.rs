//! Calls that end when the body of the response ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceExt};
use tower_breaker::fault_classify::body::{BodyEnd, EndReason};
use tower_breaker::fault_classify::{Origin, Retryable, Rule};
use tower_breaker::{
    BreakerConfigBuilder, BreakerLayer, CancelledPolicy, Circuit, CircuitState, Clock, Fault, Health, Kind,
    ManualClock, Reason, Verdict,
};

/// One step of a body.
#[derive(Clone, Debug)]
enum Step {
    Data(&'static str),
    Trailers(&'static str),
    Fails,
    Panics,
}

use Step::{Data, Fails, Panics, Trailers};

/// A body that follows a script.
#[derive(Clone, Debug, Default)]
struct Script(VecDeque<Step>);

impl Body for Script {
    type Data = &'static [u8];
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        Poll::Ready(self.0.pop_front().map(|step| match step {
            Data(text) => Ok(Frame::data(text.as_bytes())),
            Trailers(code) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                Ok(Frame::trailers(trailers))
            }
            Fails => Err(io::ErrorKind::ConnectionReset.into()),
            Panics => panic!("the body panics"),
        }))
    }
}

/// Sends the body of each request back as the body of the response.
#[derive(Clone, Debug)]
struct Server {
    grpc: bool,
    status: u16,
}

const HTTP: Server = Server { grpc: false, status: 200 };
const GRPC: Server = Server { grpc: true, status: 200 };

impl Service<Request<Script>> for Server {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Script>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Script>) -> Self::Future {
        let mut response = Response::new(request.into_body());
        *response.status_mut() = self.status.try_into().unwrap();
        if self.grpc {
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        }
        ready(Ok(response))
    }
}

fn config() -> (BreakerConfigBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    (crate::support::config().clock(clock).consecutive_failures(1), time)
}

fn tracking(
    config: BreakerConfigBuilder,
) -> BreakerLayer<
    tower_breaker::fault_classify::classifiers::Auto,
    tower_breaker::fallback::ReturnError,
    tower_breaker::body::OnBodyEnd,
> {
    BreakerLayer::new(config.build().unwrap()).track_body()
}

async fn request<S, B>(service: &mut S, steps: &[Step]) -> Response<B>
where
    S: Service<Request<Script>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
{
    let request = Request::new(Script(steps.iter().cloned().collect()));
    service.ready().await.unwrap().call(request).await.unwrap()
}

fn counts(circuit: &Circuit) -> (u64, u64, u64) {
    let window = circuit.status().window;
    (window.calls, window.failures, window.cancelled)
}

#[tokio::test]
async fn call_is_counted_at_end_of_body() {
    let (config, _time) = config();
    let layer = tracking(config);
    let mut service = layer.layer(HTTP);
    let mut body = request(&mut service, &[Data("a"), Data("b")]).await.into_body();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
        assert_eq!(counts(&layer.circuit()), (0, 0, 0), "the call has not ended");
    }
    assert!(body.frame().await.is_none());
    assert_eq!(counts(&layer.circuit()), (1, 0, 0));
    drop(body);
    assert_eq!(counts(&layer.circuit()), (1, 0, 0), "the call is counted once");
}

#[tokio::test]
async fn broken_body_counts_as_failure_and_delivers_earlier_bytes() {
    let (config, _time) = config();
    let layer = tracking(config);
    let mut body = request(&mut layer.layer(HTTP), &[Data("a"), Fails]).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), b"a");
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let status = layer.circuit().status();
    assert_eq!(status.state, CircuitState::Open);
    let fault = status.last_trip.unwrap().fault.expect("a fault must have opened it");
    assert_eq!(fault.health(), Health::Unhealthy);
}

#[tokio::test]
async fn grpc_call_is_classified_by_trailers() {
    for (code, state) in
        [("0", CircuitState::Closed), ("14", CircuitState::Open), ("3", CircuitState::Closed)]
    {
        let (config, _time) = config();
        let layer = tracking(config);
        let mut body = request(&mut layer.layer(GRPC), &[Data("a"), Trailers(code)]).await.into_body();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
        assert_eq!(layer.circuit().status().state, state, "grpc-status {code}");
    }
    let (config, _time) = config();
    let layer = tracking(config);
    request(&mut layer.layer(GRPC), &[Data("a")]).await.into_body().collect().await.unwrap();
    assert_eq!(
        layer.circuit().status().state,
        CircuitState::Open,
        "a call without trailers has status UNKNOWN"
    );
}

#[tokio::test]
async fn grpc_call_cancelled_by_server_is_not_cancelled_call() {
    let (config, _time) = config();
    let layer = tracking(config.consecutive_failures(0).cancelled(CancelledPolicy::Failure));
    let mut body = request(&mut layer.layer(GRPC), &[Data("a"), Trailers("1")]).await.into_body();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert_eq!(counts(&layer.circuit()), (0, 0, 0));
    let body = request(&mut layer.layer(GRPC), &[Data("a"), Trailers("1")]).await.into_body();
    drop(body);
    assert_eq!(counts(&layer.circuit()), (1, 1, 0));
}

#[tokio::test]
async fn head_with_fault_is_counted_immediately() {
    let (config, _time) = config();
    let layer = tracking(config);
    let response = request(&mut layer.layer(Server { status: 503, ..HTTP }), &[Data("a")]).await;
    assert_eq!(layer.circuit().status().state, CircuitState::Open);
    drop(response);
    assert_eq!(layer.circuit().status().last_transition.unwrap().epoch, 1);
}

#[tokio::test]
async fn dropped_body_is_counted_by_policy() {
    // A gRPC body that is dropped after it has delivered data, and before: its status would come
    // last.
    let policies = [
        (CancelledPolicy::Ignore, (0, 0, 0), (0, 0, 0)),
        (CancelledPolicy::IfNoneCompletes, (0, 0, 0), (0, 0, 1)),
        (CancelledPolicy::Failure, (1, 1, 0), (1, 1, 0)),
    ];
    for (policy, with_data, without) in policies {
        for (data, expected) in [("a", with_data), ("", without)] {
            let (config, _time) = config();
            let layer = tracking(config.consecutive_failures(0).cancelled(policy));
            let mut body = request(&mut layer.layer(GRPC), &[Data(data), Data("b")]).await.into_body();
            body.frame().await.unwrap().unwrap();
            drop(body);
            assert_eq!(counts(&layer.circuit()), expected, "{policy:?} {data:?}");
        }
    }
}

/// A caller may need only the status. Ten such calls do not show that the server hangs.
#[tokio::test]
async fn unpolled_body_counts_as_its_head() {
    let (config, _time) = config();
    let layer = tracking(config.consecutive_failures(0).minimum_calls(10));
    for _ in 0..20 {
        drop(request(&mut layer.layer(HTTP), &[Data("a"), Data("b")]).await);
    }
    assert_eq!(counts(&layer.circuit()), (20, 0, 0));
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);
}

#[tokio::test]
async fn probe_holds_slot_until_body_ends() {
    for (last, state) in [(Data("z"), CircuitState::Closed), (Fails, CircuitState::Open)] {
        let (config, time) = config();
        let layer = tracking(config.probes(1).successes_to_close(1));
        let circuit = layer.circuit();
        let mut service = layer.layer(HTTP);
        circuit.trip().unwrap();
        time.advance(Duration::from_secs(30));
        let mut body = request(&mut service, &[Data("a"), last]).await.into_body();
        assert_eq!(circuit.status().state, CircuitState::HalfOpen);
        assert!(circuit.try_acquire().is_err(), "its slot is in use");
        while let Some(Ok(_)) = body.frame().await {}
        assert_eq!(circuit.status().state, state);
    }
}

#[tokio::test]
async fn probe_with_dropped_body_frees_slot() {
    let (config, time) = config();
    let layer = tracking(config.probes(1).successes_to_close(1));
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    time.advance(Duration::from_secs(30));
    let mut body = request(&mut layer.layer(HTTP), &[Data("a"), Data("b")]).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(circuit.try_acquire().is_err());
    drop(body);
    circuit.try_acquire().expect("the slot must be free").cancel();
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
}

#[tokio::test]
async fn stream_longer_than_lease_counts_success_and_closes() {
    let (config, time) = config();
    let layer = tracking(config.probes(1).successes_to_close(1).probe_lease(Duration::from_secs(7)));
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    time.advance(Duration::from_secs(30));
    let mut body =
        request(&mut layer.layer(HTTP), &[Data("a"), Data("b"), Data("c"), Fails]).await.into_body();
    time.advance(Duration::from_millis(6_999));
    body.frame().await.unwrap().unwrap();
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    time.advance(Duration::from_millis(1));
    body.frame().await.unwrap().unwrap();
    assert_eq!(circuit.status().state, CircuitState::Closed);
    body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(circuit.status().state, CircuitState::Closed, "the outcome is already recorded");
}

#[tokio::test]
async fn healthy_after_is_configurable_and_starts_at_head() {
    let (config, time) = config();
    let layer = tracking(config.cancelled(CancelledPolicy::Failure)).healthy_after(Duration::from_secs(2));
    let mut service = layer.layer(HTTP);
    let mut body = request(&mut service, &[Data("a"), Data("b")]).await.into_body();
    time.advance(Duration::from_secs(2));
    body.frame().await.unwrap().unwrap();
    assert_eq!(counts(&layer.circuit()), (1, 0, 0));
    drop(body);
    assert_eq!(counts(&layer.circuit()), (1, 0, 0), "the success is already recorded");
    let mut body = request(&mut service, &[Data("a"), Data("b")]).await.into_body();
    time.advance(Duration::from_millis(1_999));
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(
        layer.circuit().status().state,
        CircuitState::Open,
        "1 ms earlier the call counts as cancelled"
    );
}

#[tokio::test]
async fn slow_head_is_slow_and_long_stream_is_not() {
    let (config, time) = config();
    let config = config.slow_call_rate(Duration::from_secs(1), 1.0).minimum_calls(1).failure_rate(None);
    let layer = tracking(config.clone());
    let mut body = request(&mut layer.layer(HTTP), &[Data("a")]).await.into_body();
    time.advance(Duration::from_secs(3_600));
    while body.frame().await.is_some() {}
    assert_eq!(counts(&layer.circuit()), (1, 0, 0));
    assert_eq!(layer.circuit().status().window.slow, 0);

    let (slow_server, mut handle) = tower_test::mock::pair::<Request<Script>, Response<Script>>();
    let layer = BreakerLayer::new(config.build().unwrap()).track_body();
    let circuit = layer.circuit();
    let mut service = tower_test::mock::Spawn::new(layer.layer(slow_server));
    let mut call = {
        tokio_test::assert_ready_ok!(service.poll_ready());
        tokio_test::task::spawn(service.call(Request::new(Script::default())))
    };
    tokio_test::assert_pending!(call.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    time.advance(Duration::from_secs(1));
    respond.send_response(Response::new(Script([Data("a")].into())));
    let response = tokio_test::assert_ready_ok!(call.poll());
    assert_eq!(circuit.status().state, CircuitState::Closed, "the call has not ended");
    let mut body = response.into_body();
    while body.frame().await.is_some() {}
    let trip = circuit.status().last_trip.expect("the slow call must open it");
    assert_eq!(trip.reason, Reason::SlowRate);
}

#[tokio::test]
async fn panic_of_body_counts_as_failure() {
    let (config, _time) = config();
    let layer = tracking(config);
    let body = request(&mut layer.layer(HTTP), &[Panics]).await.into_body();
    let panicked = tokio::spawn(async move { body.collect().await.map(drop) }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(layer.circuit().status().state, CircuitState::Open);
}

#[tokio::test]
async fn body_of_earlier_epoch_changes_nothing() {
    let (config, _time) = config();
    let layer = tracking(config);
    let mut body = request(&mut layer.layer(HTTP), &[Fails]).await.into_body();
    layer.circuit().trip().unwrap();
    layer.circuit().reset().unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);
    assert_eq!(counts(&layer.circuit()), (0, 0, 0));
}

#[tokio::test]
async fn rejected_call_has_uncounted_body() {
    let (config, _time) = config();
    let layer = BreakerLayer::new(config.build().unwrap())
        .fallback(|request: Request<Script>, _: &tower_breaker::Rejection| Response::new(request.into_body()))
        .track_body();
    layer.circuit().force_open().unwrap();
    let body = request(&mut layer.layer(HTTP), &[Data("kept"), Data(" back")]).await.into_body();
    let whole = body.collect().await.unwrap().to_bytes();
    assert_eq!(whole, "kept back");
    layer.circuit().release();
    assert_eq!(counts(&layer.circuit()), (0, 0, 0));
}

#[tokio::test]
async fn rules_and_health_function_apply_at_end_of_body() {
    /// Classifies a body that its reader drops as the server's fault.
    #[derive(Clone)]
    struct DroppedBodyIsFault;

    impl<Res, Err> Rule<Res, Err> for DroppedBodyIsFault {
        fn verdict(&self, _: Result<&Res, &Err>) -> Option<Verdict> {
            None
        }

        fn verdict_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
            let fault = Fault::new(Kind::Timeout, Retryable::Never, Health::Unhealthy, Origin::Remote);
            matches!(end.reason(), EndReason::Dropped).then_some(fault.into())
        }
    }

    let (config, _time) = config();
    let layer = BreakerLayer::new(config.build().unwrap()).rule(DroppedBodyIsFault).track_body();
    let mut body = request(&mut layer.layer(HTTP), &[Data("a"), Data("b")]).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(layer.circuit().status().state, CircuitState::Open);

    let (config, _time) = self::config();
    let layer = BreakerLayer::new(config.build().unwrap()).health(|_| Health::Neutral).track_body();
    let mut body = request(&mut layer.layer(HTTP), &[Fails]).await.into_body();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);

    let (config, _time) = self::config();
    let layer = BreakerLayer::new(config.build().unwrap()).keep_last_failure("reader").track_body();
    let mut body = request(&mut layer.layer(HTTP), &[Fails]).await.into_body();
    assert!(body.frame().await.unwrap().is_err());
    let failure = layer.circuit().status().last_failure.expect("the layer must keep it");
    assert_eq!((&*failure.subject, &*failure.message), ("reader", "connection reset"));
}

#[tokio::test]
async fn tracked_body_allocates_nothing_per_frame() {
    let (config, _time) = config();
    let layer = tracking(config);
    let steps = vec![Data("a"); 1_000];
    let mut body = std::pin::pin!(request(&mut layer.layer(HTTP), &steps).await.into_body());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let allocations = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            assert!(body.as_mut().poll_frame(&mut cx).is_ready());
        }
    });
    assert_eq!(allocations.count_total, 0);
}
