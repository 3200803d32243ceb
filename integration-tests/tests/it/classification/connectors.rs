//! Connect errors of clients that are not configured for the scheme of the URL.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::reqwest_without_tls;
use reqwest_middleware::ClientBuilder;
use tokio::net::TcpStream;
use tower::{BoxError, Layer, ServiceExt};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{FaultClassifyLayer, Origin, classify_error};

use super::{CALLER, Table, expect_error, hyper_util_client, reqwest_client};

const HTTPS: &str = "https://127.0.0.1:1/";

#[tokio::test]
async fn https_without_tls_over_hyper_util_is_client_never_neutral() {
    let mut table = Table::default();
    let client = hyper_util_client::client_with(HttpConnector::new());
    let error = expect_error(hyper_util_client::exchange(&client, HTTPS).await);
    table.error(&HTTPS, &*error, CALLER);
    table.check(classify_error(&*error).origin() == Origin::Caller, || "origin".to_owned());

    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
    let request = Request::post(HTTPS).body(Full::default()).unwrap();
    let error = expect_error(FaultClassifyLayer::new().layer(client).oneshot(request).await);
    table.error(&"HTTP/2", &*error, CALLER);
}

#[tokio::test]
async fn https_without_tls_over_reqwest_is_client_never_neutral() {
    let mut table = Table::default();
    let client = reqwest_without_tls().build().unwrap();
    table.error(&HTTPS, &*expect_error(reqwest_client::exchange(&client, HTTPS).await), CALLER);
    let layer = TowerMiddleware::new(FaultClassifyLayer::new());
    let middleware = ClientBuilder::new(client).with(layer).build();
    table.error(&"middleware", &middleware.get(HTTPS).send().await.unwrap_err(), CALLER);
}

/// Some clients report a configuration mistake only in the text of the error. The clients here are
/// built without TLS, so the test constructs the errors.
#[tokio::test]
async fn unsupported_scheme_is_client_never_neutral() {
    let mut table = Table::default();
    let error = tonic::ConnectError("Connecting to HTTPS without TLS enabled".into());
    table.error(&"tonic", &error, CALLER);
    for text in ["unsupported scheme http", "https required but URI was not https"] {
        let connector = tower::service_fn(move |_: Uri| {
            Box::pin(async move { Err::<TokioIo<TcpStream>, _>(io::Error::other(text)) })
        });
        let client = hyper_util_client::client_with(connector);
        let error = expect_error(hyper_util_client::exchange(&client, "http://127.0.0.1:1/").await);
        table.error(&text, &*error, CALLER);
    }
}

/// Outside of a connect error, the same text can come from any source.
#[tokio::test]
async fn proxy_text_outside_connect_error_is_unknown() {
    let service = tower::service_fn(async |()| {
        Err::<Infallible, BoxError>("tunnel error: proxy authorization required".into())
    });
    let error = FaultClassifyLayer::new().errors_only().layer(service).oneshot(()).await.unwrap_err();
    Table::default().error(&"text", &error, super::UNKNOWN);
}
