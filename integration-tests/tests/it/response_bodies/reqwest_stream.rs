//! Event streams over reqwest's `Client`, with `track_body`.

use std::time::Duration;

use integration_tests::reqwest_client;
use reqwest::Response;
use test_servers::{Action, Http};
use tower::{Layer, Service, ServiceExt};
use tower_fault_classify::body::LlmErrors;
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Health, Kind, Retryable};

use super::{Log, io_kind, server};

const STREAM: &str = "event: message_start\ndata: {\"type\": \"message_start\"}\n\n\
    event: content_block_delta\ndata: {\"delta\": {\"text\": \"Grüße\"}}\n\n\
    event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\"}}\n\n";

fn stream(text: &str) -> Action {
    Action::status(200).header("content-type", "text/event-stream; charset=utf-8").body(text)
}

/// Sends a request that gets this answer. Returns the response, the log of its hook, and the
/// server, which has to exist until the body is read.
async fn get(action: Action) -> (Response, Log, Http) {
    let server = server([action]).await;
    let log = Log::default();
    let client = reqwest_client().build().unwrap();
    let mut service = FaultClassifyLayer::new()
        .track_body(log.clone())
        .inspect_llm_events(LlmErrors::new())
        .layer(client.clone());
    let request = client.get(server.url()).build().unwrap();
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((response.status().as_u16(), CarriedVerdict::get(&response)), (200, None));
    assert_eq!(response.url().as_str(), format!("{}/", server.url()));
    (response, log, server)
}

#[tokio::test]
async fn error_event_is_reported_for_any_chunking() {
    let drip = |action: Action| action.drip_body(Duration::from_micros(1));
    for action in [stream(STREAM), drip(stream(STREAM)), drip(stream(STREAM).without_length().then_close())] {
        let (response, log, _server) = get(action).await;
        assert!(log.is_empty());
        assert_eq!(response.text().await.unwrap(), STREAM);
        assert_eq!(log.only(), Some((Kind::Overloaded, Retryable::Never, Health::Unhealthy)));
    }
}

#[tokio::test]
async fn error_event_is_reported_before_stream_ends() {
    let (mut response, log, _server) = get(stream(STREAM).content_length(10_000)).await;
    let mut text = Vec::new();
    while text.len() < STREAM.len() {
        text.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    assert_eq!(text, STREAM.as_bytes());
    let overloaded = Some((Kind::Overloaded, Retryable::Never, Health::Unhealthy));
    assert_eq!(log.only(), overloaded);
    drop(response);
    assert_eq!(log.only(), overloaded, "only the error is reported, not the drop");
}

#[tokio::test]
async fn complete_event_stream_is_success_truncated_is_not() {
    let text = STREAM.split("event: error").next().unwrap();
    let (response, log, _server) = get(stream(text)).await;
    assert_eq!(response.text().await.unwrap(), text);
    assert_eq!(log.only(), None);

    for cut in [stream(text).content_length(10_000), stream(text).chunked_without_end()] {
        let (response, log, _server) = get(cut.then_close()).await;
        let error = response.text().await.unwrap_err();
        assert_eq!(io_kind(&error), Some(std::io::ErrorKind::UnexpectedEof), "{error:?}");
        let (kind, retry, health) = log.only().unwrap();
        assert_eq!((kind, health), (Kind::Transient, Health::Unhealthy));
        assert!(!matches!(retry, Retryable::Unsent | Retryable::Refused), "the request was processed");
    }
}

#[tokio::test]
async fn event_stream_dropped_by_reader_is_cancelled() {
    let (mut response, log, _server) = get(stream("data: 1\n\n").content_length(10_000)).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    assert!(log.is_empty());
    drop(response);
    assert_eq!(log.only(), Some((Kind::Cancelled, Retryable::Never, Health::Neutral)));
}
