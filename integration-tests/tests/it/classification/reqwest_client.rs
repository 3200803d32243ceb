//! reqwest's client over HTTP/1.1.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use integration_tests::reqwest_client;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, ClientBuilder, Method, Request, Response};
use test_servers::{Action, Http};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Health, Kind, Retryable};

use super::http1_rows as rows;
use super::hyper_util_sockets::FailingBody;
use super::{CALLER, SHORT, TIMEOUT, Table, axes, expect_error};

pub(crate) fn builder() -> ClientBuilder {
    reqwest_client()
}

fn client() -> Client {
    builder().build().unwrap()
}

fn post(url: &str) -> Request {
    let mut request = Request::new(Method::POST, url.parse().unwrap());
    *request.body_mut() = Some("body".into());
    request
}

async fn send(client: &Client, request: Request) -> Result<Response, ClassifiedError> {
    FaultClassifyLayer::new().layer(client.clone()).oneshot(request).await
}

pub(crate) async fn exchange(client: &Client, url: &str) -> Result<(), BoxError> {
    send(client, post(url)).await?.bytes().await?;
    Ok(())
}

/// Sends a request and reads the body, so that the connection is kept.
async fn response(client: &Client, url: &str) -> Response {
    let mut response = send(client, post(url)).await.unwrap();
    while response.chunk().await.unwrap().is_some() {}
    response
}

#[tokio::test]
async fn status_over_reqwest_matches_table() {
    let client = client();
    rows::statuses(async |url| response(&client, url).await).await;
}

/// `error_for_status` turns a response into an error that has the status.
#[tokio::test]
async fn status_from_error_for_status_matches_table() {
    let (server, client, mut table) = (Http::start().await, client(), Table::default());
    for status in 400..600 {
        server.script([Action::status(status)]);
        let error = client.get(server.url()).send().await.unwrap().error_for_status().unwrap_err();
        table.error(&status, &error, rows::row_of(status).unwrap());
    }
}

#[tokio::test]
async fn retry_delay_is_kept_for_retryable_faults() {
    let client = client();
    rows::delays(async |url| response(&client, url).await).await;
}

#[tokio::test]
async fn should_retry_header_overrides_only_retryable() {
    let client = client();
    rows::should_retry(async |url| response(&client, url).await).await;
}

#[tokio::test]
async fn connection_lost_after_request_is_if_idempotent() {
    rows::lost_connections(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn invalid_response_is_protocol_never() {
    rows::invalid_responses(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn connection_lost_on_accept_is_unsent_if_hyper_cancelled() {
    rows::connections_lost_on_accept(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn reused_connection_lost_in_request_is_if_idempotent() {
    rows::reused_connections_lost(|| {
        let client = client();
        async move |url: &str| exchange(&client, url).await
    })
    .await;
}

#[tokio::test]
async fn failed_connect_is_unsent() {
    rows::failed_connects(async |url| exchange(&client(), url).await).await;
}

/// An address of TEST-NET-1, which no machine uses.
#[tokio::test]
async fn missing_local_address_is_local() {
    let client = builder().local_address(IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))).build().unwrap();
    let (server, local) = (Http::start().await, axes(Kind::Local, Retryable::Never, Health::Neutral));
    Table::default().error(&"not available", &*expect_error(exchange(&client, &server.url()).await), local);
}

#[tokio::test]
async fn request_timeout_is_if_idempotent() {
    let (server, mut table) = (Http::start().await, Table::default());
    server.set_default(Action::Hang);
    let total = builder().timeout(SHORT).build().unwrap();
    table.error(&"the client's", &*expect_error(exchange(&total, &server.url()).await), TIMEOUT);
    let read = builder().read_timeout(SHORT).build().unwrap();
    table.error(&"the read's", &*expect_error(exchange(&read, &server.url()).await), TIMEOUT);
    let mut timed = post(&server.url());
    *timed.timeout_mut() = Some(SHORT);
    table.error(&"the request's", &send(&client(), timed).await.unwrap_err(), TIMEOUT);

    let timed = ServiceBuilder::new().layer(FaultClassifyLayer::new()).timeout(SHORT).service(client());
    table.error(&"tower's", &timed.oneshot(post(&server.url())).await.unwrap_err(), TIMEOUT);
    let timed = service_fn(async |request| {
        Ok::<_, BoxError>(tokio::time::timeout(SHORT, client().execute(request)).await??)
    });
    let classified = FaultClassifyLayer::new().layer(timed);
    table.error(&"tokio's", &classified.oneshot(post(&server.url())).await.unwrap_err(), TIMEOUT);
}

#[tokio::test]
async fn body_timeout_is_timeout() {
    let (server, mut table) = (Http::start().await, Table::default());
    server.set_default(Action::status(200).body("0123").content_length(10));
    for client in [builder().timeout(SHORT), builder().read_timeout(SHORT)] {
        let client = client.build().unwrap();
        table.error(&client, &*expect_error(exchange(&client, &server.url()).await), TIMEOUT);
    }
}

#[tokio::test]
async fn endless_redirects_are_never_retryable() {
    let server = Http::start().await;
    server.set_default(Action::status(302).header("location", "/"));
    let error = send(&client(), post(&server.url())).await.unwrap_err();
    Table::default().error(&"redirects", &error, axes(Kind::Protocol, Retryable::Never, Health::Neutral));
    let client = builder().redirect(Policy::none()).build().unwrap();
    assert_eq!(send(&client, post(&server.url())).await.unwrap().status(), 302);
}

#[tokio::test]
async fn invalid_request_is_client_never_neutral() {
    let mut table = Table::default();
    let client = client();
    for (what, builder) in [
        ("invalid URL", client.get("not a url")),
        ("no host", client.get("http://")),
        ("invalid header name", client.get("http://localhost/").header("x name", "value")),
        ("invalid header value", client.get("http://localhost/").header("x-name", "a\nb")),
    ] {
        table.error(&what, &builder.build().unwrap_err(), CALLER);
    }
    for url in ["ftp://localhost/", "data:,text"] {
        table.error(&url, &send(&client, post(url)).await.unwrap_err(), CALLER);
    }
}

#[tokio::test]
async fn unreadable_request_body_is_fault_of_caller() {
    let (server, mut table) = (Http::start().await, Table::default());
    for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
        let mut request = post(&server.url());
        *request.body_mut() = Some(Body::wrap(FailingBody::new(kind)));
        table.error(&kind, &send(&client(), request).await.unwrap_err(), CALLER);
    }
}
