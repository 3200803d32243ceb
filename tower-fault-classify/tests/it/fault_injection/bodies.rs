//! Bodies that break, end early, stall and drip.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::test_util::{FaultInjectionLayer, InjectedBody, Injection};
use tower_fault_classify::{BoxError, Fault, FaultClassifyLayer, Kind, Verdict};

use super::SECOND;

/// A frame as text: its data, or `trailers`.
type Frames = Vec<String>;

/// Returns the body of a response with the injection. Without one, it is `hello world`, with
/// trailers.
async fn body(injection: Injection) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
    let layer = FaultInjectionLayer::new().inject(injection);
    let service = layer.layer(service_fn(async |_: Request<()>| {
        let body = Full::new(Bytes::from("hello world"));
        let trailers = async { Some(Ok(HeaderMap::new())) };
        Ok::<_, BoxError>(Response::new(Box::pin(body.with_trailers(trailers))))
    }));
    service.oneshot(Request::new(())).await.unwrap().into_body()
}

/// Reads frames until the end or an error.
async fn frames(mut body: impl Body<Data = Bytes, Error = BoxError> + Unpin) -> (Frames, Option<BoxError>) {
    let mut frames = Frames::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.push(match frame.into_data() {
                Ok(data) => String::from_utf8(data.into()).unwrap(),
                Err(_) => "trailers".to_owned(),
            }),
            Err(error) => {
                assert!(body.frame().await.is_none(), "nothing follows the error");
                return (frames, Some(error));
            }
        }
    }
    (frames, None)
}

#[tokio::test]
async fn body_breaks_after_exact_number_of_bytes() {
    let (received, error) = frames(body(Injection::pass().break_body(5)).await).await;
    assert_eq!(received, ["hello"]);
    let error = error.expect("the body breaks").downcast::<io::Error>().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (received, error) = frames(body(Injection::pass().break_body(0)).await).await;
    assert!(received.is_empty() && error.is_some());
    // The whole data arrives, and the error replaces the trailers.
    let (received, error) = frames(body(Injection::pass().break_body(11)).await).await;
    assert!(received == ["hello world"] && error.is_some(), "{received:?}");
}

#[tokio::test]
async fn body_with_fewer_bytes_does_not_break() {
    for injection in [Injection::pass().break_body(12), Injection::pass().stall_body(12)] {
        let (received, error) = frames(body(injection).await).await;
        assert_eq!(received, ["hello world", "trailers"]);
        assert!(error.is_none());
    }
}

#[tokio::test]
async fn truncated_body_ends_without_trailers() {
    let truncated = body(Injection::pass().truncate_body(5)).await;
    assert_eq!(truncated.size_hint().upper(), Some(5));
    let (received, error) = frames(truncated).await;
    assert_eq!(received, ["hello"]);
    assert!(error.is_none());
    let empty = body(Injection::pass().truncate_body(0)).await;
    assert!(empty.is_end_stream());
    assert!(frames(empty).await.0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn stalled_body_delivers_bytes_and_never_ends() {
    let mut stalled = body(Injection::pass().stall_body(5)).await;
    let first = stalled.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "hello");
    timeout(3_600 * SECOND, stalled.frame()).await.expect_err("the body stalls");
    assert!(!stalled.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn dripping_body_delays_each_chunk_and_keeps_trailers() {
    let mut dripping = body(Injection::pass().drip_body(4, SECOND)).await;
    let start = Instant::now();
    let mut chunks = Vec::new();
    for _ in 0..3 {
        let chunk = dripping.frame().await.unwrap().unwrap().into_data().unwrap();
        chunks.push((chunk, start.elapsed()));
    }
    assert_eq!(
        chunks,
        [(Bytes::from("hell"), SECOND), (Bytes::from("o wo"), 2 * SECOND), (Bytes::from("rld"), 3 * SECOND),]
    );
    assert!(!dripping.is_end_stream());
    let (rest, error) = frames(dripping).await;
    assert!(rest == ["trailers"] && error.is_none());
}

#[tokio::test(start_paused = true)]
async fn dripping_body_announces_pending_bytes() {
    let injection = Injection::response(|| Response::new("hello")).drip_body(2, SECOND);
    let mut dripping = body(injection).await;
    assert_eq!(dripping.size_hint().exact(), Some(5));
    dripping.frame().await.unwrap().unwrap();
    assert_eq!((dripping.size_hint().exact(), dripping.is_end_stream()), (Some(3), false));
    assert_eq!(frames(dripping).await.0, ["ll", "o"]);
}

#[tokio::test]
async fn injected_response_can_have_broken_body() {
    let injection = Injection::response(|| Response::new("hello")).break_body(2);
    let (received, error) = frames(body(injection).await).await;
    assert!(received == ["he"] && error.is_some());
}

#[tokio::test]
async fn chunks_of_any_buffer_become_bytes() {
    let layer = FaultInjectionLayer::new().inject(Injection::pass().break_body(3));
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, BoxError>(Response::new(Full::new(std::collections::VecDeque::from(*b"abcdef"))))
    }));
    let body: InjectedBody<_> = service.oneshot(Request::new(())).await.unwrap().into_body();
    assert_eq!(frames(body).await.0, ["abc"]);
}

#[tokio::test]
async fn track_body_sees_broken_truncated_and_complete_bodies() {
    let (sender, verdicts) = std::sync::mpsc::channel::<Verdict>();
    let steps = [Injection::pass().break_body(1), Injection::pass().truncate_body(1), Injection::pass()];
    let mut service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().track_body(move |verdict| sender.send(verdict).unwrap()))
        .layer(FaultInjectionLayer::new().script(steps))
        .service_fn(async |_: Request<()>| {
            let response = Response::builder().header("content-type", "application/grpc");
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let body = Full::new(Bytes::from("message")).with_trailers(async { Some(Ok(trailers)) });
            Ok::<_, BoxError>(response.body(Box::pin(body)).unwrap())
        });
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let response = service.ready().await.unwrap().call(Request::new(())).await.unwrap();
        let _ = response.into_body().collect().await;
        kinds.push(verdicts.try_recv().unwrap().fault().map(Fault::kind));
    }
    // A gRPC call without a status is `UNKNOWN`.
    assert_eq!(kinds, [Some(Kind::Transient), Some(Kind::Server), None]);
}
