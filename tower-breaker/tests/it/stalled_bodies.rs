//! Streams that stall, on tokio's paused clock.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerConfigBuilder, BreakerLayer, CircuitState, Clock, Kind, ManualClock};

const LIMIT: Duration = Duration::from_secs(5);
const LONGER: Duration = Duration::from_secs(60);

/// A body that sends one frame and then nothing.
#[derive(Debug, Default)]
struct Stalls {
    has_sent: bool,
}

impl Body for Stalls {
    type Data = &'static [u8];
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        if self.has_sent {
            return Poll::Pending;
        }
        self.has_sent = true;
        Poll::Ready(Some(Ok(Frame::data(b"a"))))
    }
}

fn server() -> impl Service<Request<()>, Response = Response<Stalls>, Error = Infallible> + Clone {
    service_fn(async |_: Request<()>| Ok(Response::new(Stalls::default())))
}

fn config() -> (BreakerConfigBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    (crate::support::config().clock(clock).consecutive_failures(2), time)
}

/// Calls a service, and reads the first frame of the response.
async fn first_frame<S, B>(service: &mut S) -> B
where
    S: Service<Request<()>, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Error: std::fmt::Debug> + Unpin,
{
    let mut body = service.ready().await.unwrap().call(Request::new(())).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    body
}

/// Waits for the next frame for longer than the idle limit.
async fn stall<B: Body<Error: std::fmt::Debug> + Unpin>(body: &mut B) {
    timeout(LONGER, body.frame()).await.map(|_| ()).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn stalled_streams_open_circuit() {
    let layer = BreakerLayer::new(config().0.build().unwrap()).track_body().idle_limit(LIMIT);
    let circuit = layer.circuit();
    let mut service = layer.http_fallback().layer(server());
    let mut first = first_frame(&mut service).await;
    stall(&mut first).await;
    assert_eq!(circuit.status().window.failures, 1, "the stall has ended the call");
    drop(first);
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures, window.cancelled), (1, 1, 0), "a call is counted once");
    let mut second = first_frame(&mut service).await;
    stall(&mut second).await;
    let status = circuit.status();
    assert_eq!(status.state, CircuitState::Open);
    assert_eq!(status.last_trip.unwrap().fault.unwrap().kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn stalled_stream_without_limit_counts_nothing() {
    for limit in [None, Some(Duration::ZERO)] {
        let layer = BreakerLayer::new(config().0.build().unwrap()).track_body();
        let circuit = layer.circuit();
        match limit {
            None => stall(&mut first_frame(&mut layer.layer(server())).await).await,
            Some(limit) => {
                stall(&mut first_frame(&mut layer.idle_limit(limit).layer(server())).await).await;
            }
        }
        assert_eq!(circuit.status().window.failures, 0, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn probe_whose_stream_stalls_frees_slot_and_reopens() {
    let (config, time) = config();
    let config = config.probes(1).build().unwrap();
    let layer = BreakerLayer::new(config).track_body().idle_limit(LIMIT);
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    circuit.trip().unwrap();
    time.advance(LONGER);
    let mut body = first_frame(&mut service).await;
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    stall(&mut body).await;
    assert_eq!(circuit.status().state, CircuitState::Open);
    // The body of the failed probe holds no slot.
    time.advance(LONGER);
    let _probe = circuit.try_acquire().expect("the slot is free");
    drop(body);
}

/// The first data after `healthy_after` has recorded the success.
#[tokio::test(start_paused = true)]
async fn healthy_stream_that_stalls_later_stays_success() {
    let layer = BreakerLayer::new(config().0.build().unwrap());
    let layer = layer.track_body().healthy_after(Duration::ZERO).idle_limit(LIMIT);
    stall(&mut first_frame(&mut layer.layer(server())).await).await;
    let window = layer.circuit().status().window;
    assert_eq!((window.calls, window.failures), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn stalled_streams_of_one_key_open_its_circuit() {
    let config = KeyedConfig::builder(config().0.build().unwrap()).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, |request: &Request<()>| request.uri().path().to_owned());
    let circuits = layer.circuits();
    let mut service = layer.keep_last_failure("streams").track_body().idle_limit(LIMIT).layer(server());
    for _ in 0..2 {
        stall(&mut first_frame(&mut service).await).await;
    }
    let status = circuits.get("/").unwrap().status();
    assert_eq!(status.state, CircuitState::Open);
    assert_eq!(status.last_failure.unwrap().fault.kind(), Kind::Timeout);
}
