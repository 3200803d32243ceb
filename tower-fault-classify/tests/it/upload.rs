//! Tracked request bodies: their cost, and the verdict on a timeout while they wait for their
//! source.

use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{error::Elapsed, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::upload::{UploadBody, UploadError, UploadLayer};
use tower_fault_classify::{
    ClassifiedError, ErrorChain, Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable, Verdict,
    classify_error, classify_response,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A request body with one frame that then stalls or ends.
struct Upload {
    frame: Option<Bytes>,
    stalls: bool,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frame.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A request body that fails.
#[derive(Debug)]
struct Fails;

impl Body for Fails {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(Some(Err("the disk is gone")))
    }
}

fn post(stalls: bool) -> Request<Upload> {
    Request::post("/").body(Upload { frame: Some(Bytes::from_static(b"four")), stalls }).unwrap()
}

/// Returns the verdict on a call that times out after `frames` frames of its body were polled.
async fn verdict(request: Request<Upload>, frames: usize) -> Fault {
    let client = service_fn(async |request: Request<UploadBody<Upload>>| {
        timeout(TIMEOUT, async move {
            let mut body = request.into_body();
            for _ in 0..frames {
                body.frame().await;
            }
            pending::<Response<()>>().await
        })
        .await
    });
    let service =
        ServiceBuilder::new().layer(UploadLayer::new()).layer(FaultClassifyLayer::new()).service(client);
    let error: ClassifiedError = service.oneshot(request).await.unwrap_err();
    error.fault()
}

#[tokio::test(start_paused = true)]
async fn timeout_while_tracked_upload_waits_is_caller_fault() {
    let fault = verdict(post(true), 2).await;
    assert_eq!((fault.kind(), fault.retryable()), (Kind::Timeout, Retryable::Never));
    assert_eq!((fault.health(), fault.origin()), (Health::Neutral, Origin::Caller));
}

#[tokio::test(start_paused = true)]
async fn timeout_of_complete_or_unread_upload_is_server_fault() {
    for (stalls, frames) in [(false, 2), (true, 1), (true, 0)] {
        let fault = verdict(post(stalls), frames).await;
        assert_eq!((fault.kind(), fault.health()), (Kind::Timeout, Health::Unhealthy), "{stalls} {frames}");
    }
}

/// Returns the fault of a server that responds with `status` after it waited for the request's
/// body.
async fn fault_of_status(status: u16, stalls: bool) -> Fault {
    let client = service_fn(async |request: Request<UploadBody<Upload>>| {
        let mut body = request.into_body();
        let _ = timeout(TIMEOUT, async { while body.frame().await.is_some() {} }).await;
        // The client still has the body when the response arrives.
        tokio::time::sleep(TIMEOUT).await;
        drop(body);
        Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
    });
    let service =
        ServiceBuilder::new().layer(UploadLayer::new()).layer(FaultClassifyLayer::new()).service(client);
    let response = service.oneshot(post(stalls)).await.unwrap();
    *classify_response(&response).fault().unwrap()
}

/// A server that reports a timeout is not at fault if the request's body did not arrive.
#[tokio::test(start_paused = true)]
async fn reported_timeout_while_upload_waits_is_caller_fault() {
    for status in [504, 524] {
        assert_eq!(fault_of_status(status, false).await.health(), Health::Unhealthy, "{status}");
        let fault = fault_of_status(status, true).await;
        assert_eq!((fault.health(), fault.retryable()), (Health::Neutral, Retryable::Never), "{status}");
    }
}

/// Cloudflare's 522: the origin did not accept the connection, or did not acknowledge the request.
#[tokio::test(start_paused = true)]
async fn status_522_while_upload_waits_is_unhealthy() {
    for stalls in [false, true] {
        let fault = fault_of_status(522, stalls).await;
        assert_eq!((fault.health(), fault.retryable()), (Health::Unhealthy, Retryable::IfIdempotent));
    }
}

/// The same statuses, as errors of reqwest's `error_for_status`.
#[cfg(feature = "reqwest")]
#[tokio::test(start_paused = true)]
async fn reqwest_status_error_while_upload_waits_is_caller_fault() {
    for (status, health) in [(504, Health::Neutral), (522, Health::Unhealthy)] {
        let client = service_fn(async |request: Request<UploadBody<Upload>>| {
            let mut body = request.into_body();
            let _ = timeout(TIMEOUT, async { while body.frame().await.is_some() {} }).await;
            tokio::time::sleep(TIMEOUT).await;
            drop(body);
            let response = Response::builder().status(status).body("").unwrap();
            reqwest::Response::from(response).error_for_status()
        });
        let service =
            ServiceBuilder::new().layer(UploadLayer::new()).layer(FaultClassifyLayer::new()).service(client);
        let error: ClassifiedError = service.oneshot(post(true)).await.unwrap_err();
        assert_eq!(error.fault().health(), health, "{status}");
    }
}

/// The body of a gRPC response that ends in `DEADLINE_EXCEEDED`.
struct DeadlineExceeded;

impl Body for DeadlineExceeded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let trailers = [("grpc-status".parse().unwrap(), "4".parse().unwrap())];
        Poll::Ready(Some(Ok(Frame::trailers(trailers.into_iter().collect()))))
    }
}

/// The server has sent its head, waits for the rest of a client stream, and then times out.
#[tokio::test]
async fn deadline_exceeded_while_upload_waits_is_caller_fault() {
    for (stalls, health) in [(true, Health::Neutral), (false, Health::Unhealthy)] {
        let client = service_fn(async |request: Request<UploadBody<Upload>>| {
            // A client continues to read the request's body after the response has begun.
            tokio::spawn(async move {
                let mut body = request.into_body();
                while body.frame().await.is_some() {}
            });
            tokio::task::yield_now().await;
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(response.body(DeadlineExceeded).unwrap())
        });
        let reported = Arc::new(Mutex::new(None));
        let hook = Arc::clone(&reported);
        let classify = FaultClassifyLayer::new()
            .track_body(move |verdict: Verdict| *hook.lock().unwrap() = Some(verdict.health()));
        let service = ServiceBuilder::new().layer(UploadLayer::new()).layer(classify).service(client);
        let mut body = service.oneshot(post(stalls)).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        assert_eq!(*reported.lock().unwrap(), Some(health));
    }
}

#[tokio::test]
async fn upload_body_forwards_inner_body_and_marks_error() {
    let client = service_fn(async |request: Request<UploadBody<Fails>>| request.into_body().collect().await);
    let error: UploadError = UploadLayer::new().layer(client).oneshot(Request::new(Fails)).await.unwrap_err();
    assert_eq!(ErrorChain(&error).to_string(), "request body failed: the disk is gone");
    assert_eq!(classify_error(&error).health(), Health::Neutral);

    let client = service_fn(async |request: Request<UploadBody<Full<Bytes>>>| {
        let body = request.into_body();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        body.collect().await.map(http_body_util::Collected::to_bytes)
    });
    let body = Request::new(Full::from("four"));
    assert_eq!(UploadLayer::new().layer(client).oneshot(body).await.unwrap(), "four");
}

/// Returns the number of allocations of a call that succeeds immediately.
fn allocations<B: Body + 'static>(request: impl Fn() -> Request<B>) -> u64 {
    let mut service = UploadLayer::new()
        .layer(service_fn(|_: Request<UploadBody<B>>| ready(Ok::<_, Elapsed>(Response::new(())))));
    let request = request();
    let allocated = allocation_counter::measure(|| {
        let call = pin!(service.call(request));
        assert!(call.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    allocated.count_total
}

#[test]
fn empty_request_body_allocates_nothing() {
    assert_eq!(allocations(|| Request::new(Empty::<Bytes>::new())), 0);
    assert_eq!(allocations(|| Request::new(Full::<Bytes>::default())), 0);
    assert_eq!(allocations(|| Request::new(String::new())), 0);
    // One allocation: the progress that the body shares with its call.
    assert_eq!(allocations(|| Request::new(Full::<Bytes>::from("four"))), 1);
    assert_eq!(allocations(|| post(true)), 1);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_streaming_body_only_is_tracked() {
    let body_in_memory = service_fn(async |request: reqwest::Request| {
        let body = request.body();
        Ok::<_, Infallible>(body.map(|body| body.as_bytes().map(<[u8]>::to_vec)))
    });
    let request = |body: Option<reqwest::Body>| {
        let mut request = reqwest::Request::new(reqwest::Method::POST, "http://localhost/".parse().unwrap());
        *request.body_mut() = body;
        request
    };
    let service = UploadLayer::new().layer(body_in_memory);
    assert_eq!(service.oneshot(request(None)).await, Ok(None));
    assert_eq!(service.oneshot(request(Some("four".into()))).await, Ok(Some(Some(b"four".to_vec()))));
    let stream = reqwest::Body::wrap(Full::<Bytes>::from("four"));
    assert_eq!(service.oneshot(request(Some(stream))).await, Ok(Some(None)));

    let mut in_memory = Some(request(Some("four".into())));
    let mut service = UploadLayer::new()
        .layer(service_fn(|_: reqwest::Request| ready(Ok::<_, Elapsed>(Response::new(())))));
    let allocated = allocation_counter::measure(|| drop(service.call(in_memory.take().unwrap())));
    assert_eq!(allocated.count_total, 0);
}
