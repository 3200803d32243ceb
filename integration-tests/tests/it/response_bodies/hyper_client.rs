//! Error bodies and `track_body` over hyper-util's legacy client.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::TIMEOUT;
use test_servers::{Action, Http};
use tower::{Layer, Service, ServiceExt};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Health, Kind, Retryable};

use super::{Log, OUT_OF_QUOTA, axes, io_kind, json, server};

fn get(server: &Http) -> Request<Empty<Bytes>> {
    Request::get(server.url()).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn error_body_over_hyper_util_is_read_and_end_reported() {
    let trailing = format!(
        "HTTP/1.1 429 Too Many Requests\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
         {:x}\r\n{OUT_OF_QUOTA}\r\n0\r\nx-checksum: 1\r\n\r\n",
        OUT_OF_QUOTA.len()
    );
    let cut = json(503, "half").content_length(8).then_close();
    let ok = Action::status(200).body("answer");
    let cut_ok = Action::status(200).body("half").content_length(8).then_close();
    let server = server([Action::raw(trailing), cut, ok, cut_ok]).await;
    let log = Log::default();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let bodies = ErrorBodies::new(LlmErrors::new()).timeout(TIMEOUT);
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    let mut service = layer.track_body(log.clone()).layer(client);
    let mut call = async || service.ready().await.unwrap().call(get(&server)).await.unwrap();
    let verdicts = || log.0.lock().unwrap().drain(..).map(axes).collect::<Vec<_>>();

    let response = call().await;
    let quota = Some((Kind::Quota, Retryable::Never, Health::Neutral));
    assert_eq!(CarriedVerdict::get(&response).and_then(axes), quota);
    let all = response.into_body().collect().await.unwrap();
    assert_eq!(all.trailers().unwrap()["x-checksum"], "1");
    assert_eq!(all.to_bytes(), OUT_OF_QUOTA);
    assert_eq!(verdicts(), [quota]);

    let response = call().await;
    assert_eq!(verdicts(), [Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy))]);
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(io_kind(&error), Some(std::io::ErrorKind::UnexpectedEof), "{error:?}");
    drop(body);
    assert_eq!(verdicts(), []);

    let response = call().await;
    assert_eq!(verdicts(), []);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");
    assert_eq!(verdicts(), [None]);

    let response = call().await;
    response.into_body().collect().await.unwrap_err();
    let [Some((kind, retry, health))] = verdicts()[..] else { panic!("not exactly one verdict") };
    assert_eq!((kind, health), (Kind::Transient, Health::Unhealthy));
    assert!(!matches!(retry, Retryable::Unsent | Retryable::Refused), "the request was processed");
}
