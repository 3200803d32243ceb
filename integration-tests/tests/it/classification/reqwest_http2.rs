//! reqwest's client over HTTP/2. It resends a refused request by itself, at most twice. The verdict
//! is that on the last result.

use integration_tests::{reqwest_client, reqwest_with_own_retries};
use reqwest::{Method, Request};
use test_servers::{Grpc, Reason, Reply};
use tower::{BoxError, Layer, ServiceExt};
use tower_fault_classify::FaultClassifyLayer;

use super::{BROKEN, REFUSED_STREAM_ROW, http2_rows as rows, verdict};

async fn exchange(client: reqwest::ClientBuilder, url: &str) -> Result<(), BoxError> {
    let client = client.no_proxy().http2_prior_knowledge().build()?;
    let mut request = Request::new(Method::POST, url.parse()?);
    *request.body_mut() = Some("body".into());
    FaultClassifyLayer::new().layer(client).oneshot(request).await?.bytes().await?;
    Ok(())
}

#[tokio::test]
async fn refused_stream_is_unsent_until_response_begins() {
    rows::streams(async |url| exchange(reqwest_with_own_retries(), url).await, rows::UNCERTAIN).await;
}

#[tokio::test]
async fn client_without_retries_has_same_verdict() {
    let server = Grpc::start().await;
    server.script([Reply::nothing().rst_stream(Reason::REFUSED_STREAM)]);
    let client = reqwest_client();
    let error = exchange(client, &server.url()).await.unwrap_err();
    assert_eq!((verdict(&*error), server.requests().len()), (REFUSED_STREAM_ROW, 1), "{error:?}");
}

#[tokio::test]
async fn stream_that_requires_another_connection_is_protocol_never() {
    rows::other_connection_required(async |url| exchange(reqwest_with_own_retries(), url).await).await;
}

#[tokio::test]
async fn http2_connection_lost_is_if_idempotent() {
    rows::lost_connections(async |url| exchange(reqwest_with_own_retries(), url).await, BROKEN).await;
}

#[tokio::test]
async fn http2_request_to_http1_server_is_transient() {
    rows::http1_server(async |url| exchange(reqwest_with_own_retries(), url).await).await;
}
