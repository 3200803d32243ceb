//! Compares the cost of tracked and peeked bodies with that of bare bodies, for each response and
//! each frame.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame};
use tower::{Layer, Service, service_fn};
use tower_fault_classify::body::{ErrorBodies, ErrorBody, LlmErrors};
use tower_fault_classify::{FaultClassifyLayer, Verdict};

#[path = "../../benches/measure.rs"]
mod measure;

use measure::{compare, variant};

/// An endless body that always returns the same frame.
struct Endless(Bytes);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(self.0.clone()))))
    }
}

/// Returns a service that responds with an endless body.
fn service(
    status: u16,
    data: &'static [u8],
) -> impl Service<
    (),
    Response = Response<Endless>,
    Error = Infallible,
    Future = Ready<Result<Response<Endless>, Infallible>>,
> {
    service_fn(move |()| {
        let mut response = Response::new(Endless(Bytes::from_static(data)));
        *response.status_mut() = black_box(status).try_into().expect("a status");
        ready(Ok(response))
    })
}

fn call<S: Service<()>>(service: &mut S) -> S::Response {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("the service is not ready") };
    match pin!(service.call(())).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("the service did not respond"),
    }
}

/// Returns a function that reads one frame and copies its data.
fn reader(body: impl Body<Data = Bytes>) -> impl FnMut() -> usize {
    let mut body = Box::pin(body);
    let mut kept = Vec::new();
    move || {
        let mut cx = Context::from_waker(Waker::noop());
        kept.clear();
        if let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx)
            && let Ok(data) = frame.into_data()
        {
            kept.extend_from_slice(&data);
        }
        black_box(&kept).len()
    }
}

/// Marks a response as an event stream.
fn events(response: Response<Endless>) -> Response<Endless> {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_TYPE, "text/event-stream".parse().expect("a value"));
    Response::from_parts(parts, body)
}

const EVENT: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"of all the words that there are\"}}\n\n";
static CHUNK: [u8; 16 * 1024] = [b'a'; 16 * 1024];
const QUOTA: &[u8] = br#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;

fn main() {
    let hook = |verdict: Verdict| {
        let _ = black_box(verdict);
    };
    let tracked = || FaultClassifyLayer::new().track_body(hook);

    println!("a response, dropped unread");
    let mut bare = service(200, EVENT);
    let mut head = FaultClassifyLayer::new().layer(service(200, EVENT));
    let mut body = tracked().layer(service(200, EVENT));
    let mut unread = FaultClassifyLayer::new()
        .read_error_bodies(ErrorBodies::new(|_: &ErrorBody<'_>| None))
        .layer(service(200, EVENT));
    compare(vec![
        variant("bare", || call(&mut bare)),
        variant("classified by its head", || call(&mut head)),
        variant("tracked", || call(&mut body)),
        variant("reading error bodies, not an error", || call(&mut unread)),
    ]);

    println!("\na frame of 16 KiB, copied by its reader");
    let mut bare = reader(call(&mut service(200, &CHUNK)).into_body());
    let mut body = reader(call(&mut tracked().layer(service(200, &CHUNK))).into_body());
    let mut peeked = reader(
        call(
            &mut tracked().read_error_bodies(ErrorBodies::new(LlmErrors::new())).layer(service(200, &CHUNK)),
        )
        .into_body(),
    );
    compare(vec![
        variant("bare", &mut bare),
        variant("tracked", &mut body),
        variant("tracked, and reading error bodies", &mut peeked),
    ]);

    println!("\na frame of one event, copied by its reader");
    let mut bare = reader(call(&mut service(200, EVENT)).into_body());
    let mut body = reader(call(&mut tracked().layer(service(200, EVENT))).into_body());
    let streams = tower::ServiceBuilder::new()
        .layer(tracked().inspect_llm_events(LlmErrors::new()))
        .map_response(events);
    let mut inspected = reader(call(&mut streams.service(service(200, EVENT))).into_body());
    compare(vec![
        variant("bare", &mut bare),
        variant("tracked", &mut body),
        variant("tracked, events inspected", &mut inspected),
    ]);

    println!("\nan error body of {} bytes", QUOTA.len());
    let mut bare = service(429, QUOTA);
    let once = ErrorBodies::new(LlmErrors::new()).limit(QUOTA.len());
    let mut read = FaultClassifyLayer::new().read_error_bodies(once).layer(service(429, QUOTA));
    let mut head = FaultClassifyLayer::new().layer(service(429, QUOTA));
    compare(vec![
        variant("bare", || call(&mut bare)),
        variant("classified by its head", || call(&mut head)),
        variant("classified by its body", || call(&mut read)),
    ]);
}
