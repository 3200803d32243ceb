//! gRPC: tonic's client over a service in memory.

use std::future::{Ready, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::OURS;
use crate::call::{finish, poll_out_of_line};
use crate::variant::{Calls, Expect, Style, Variants};

const GRPC_BARE: &str = "gRPC, bare service";

/// Answers each call with one message and the status `OK` in the trailers.
#[derive(Clone, Copy)]
struct Server;

/// A compression flag, the length, and the message.
const ANSWER: &[u8] = b"\0\0\0\0\x05found";

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from_static(ANSWER)).with_trailers(ready(Some(Ok(trailers))));
        let mut response = http::Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        ready(Ok(response))
    }
}

pub(crate) fn add(variants: &mut Variants) {
    variants.bare = GRPC_BARE;
    variants.push(GRPC_BARE, "", Style::Await, Expect::Success, || Box::new(|| calls(Server)));
    variants.push("gRPC, success", OURS, Style::Await, Expect::Success, || {
        let layers = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(RetryPolicy::default()))
            .layer(BreakerLayer::new(BreakerConfig::default()))
            .layer(FaultClassifyLayer::new());
        Box::new(move || calls(layers.service(Server)))
    });
}

fn calls<S>(service: S) -> Calls
where
    S: GrpcService<Body> + 'static,
    S::ResponseBody: Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError>,
{
    let mut client = Grpc::new(service);
    Box::new(move |calls| {
        let batch = async {
            let mut successes = 0;
            for _ in 0..calls {
                let mut future = pin!(search(&mut client));
                let result = poll_fn(|cx| poll_out_of_line(future.as_mut(), cx)).await;
                successes += u32::from(result.is_ok_and(|answer| answer == "found"));
            }
            successes
        };
        finish(pin!(batch))
    })
}

/// What tonic generates for a method, with the bytes of a message in place of a message.
async fn search<S>(client: &mut Grpc<S>) -> Result<Bytes, Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError>,
{
    client.ready().await.map_err(|_| Status::unknown("the service is not ready"))?;
    let request = tonic::Request::new(Bytes::from_static(b"rust"));
    let path = PathAndQuery::from_static("/search.Search/Find");
    Ok(client.unary(request, path, Raw).await?.into_inner())
}

/// Sends and receives messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Raw
    }

    fn decoder(&mut self) -> Self {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
