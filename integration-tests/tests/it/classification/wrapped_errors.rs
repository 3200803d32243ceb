//! Errors of other crates and of users that wrap a client's error do not hide its cause.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Context;
use integration_tests::reqwest_client;
use reqwest::{Client, Response};
use reqwest_middleware::ClientBuilder;
use test_servers::{Action, Http, RefusedPort};
use tower::buffer::Buffer;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{FaultClassifyLayer, Health, Kind, Retryable, classify_error};

use super::{
    Axes, BROKEN, BROKEN_UNSENT, INVALID_RESPONSE, Table, UNAVAILABLE_UNSENT, UNKNOWN, axes, expect_error,
    is_unsent, source_chain, verdict,
};

fn client() -> Client {
    reqwest_client().build().unwrap()
}

/// An error type of a user.
#[derive(Debug)]
struct UserError(BoxError);

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the order was not placed")
    }
}

impl Error for UserError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Calls `check` with a URL for each cause of a reqwest error, and with the expected axes.
async fn for_each_cause(check: impl AsyncFn(&str, Axes)) {
    for (action, want) in [
        (Action::ResetAfterRequest, BROKEN),
        (Action::CloseAfterRequest, BROKEN),
        (Action::garbage(), INVALID_RESPONSE),
    ] {
        let server = Http::start().await;
        server.set_default(action);
        check(&server.url(), want).await;
    }
    let refused = RefusedPort::bind();
    check(&refused.url(), UNAVAILABLE_UNSENT).await;
}

/// Other classifiers check only reqwest's error, and miss the causes inside it.
#[tokio::test]
async fn io_error_in_hyper_error_in_reqwest_error_is_found() {
    let server = Http::start().await;
    server.set_default(Action::ResetAfterRequest);
    let error = client().post(server.url()).body("body").send().await.unwrap_err();
    let position = |is: fn(&(dyn Error + 'static)) -> bool| source_chain(&error).position(is).unwrap();
    let (hyper_util, hyper, io) = (
        position(<dyn Error>::is::<hyper_util::client::legacy::Error>),
        position(<dyn Error>::is::<hyper::Error>),
        position(<dyn Error>::is::<io::Error>),
    );
    assert!(0 < hyper_util && hyper_util < hyper && hyper < io, "{error:?}");
    assert_eq!(verdict(&error), BROKEN);
}

#[tokio::test]
async fn io_error_in_boxes_and_user_error_is_found() {
    for_each_cause(async |url, want| {
        let mut table = Table::default();
        let send = async || client().post(url).body("body").send().await.map(drop).unwrap_err();
        table.error(&"bare", &send().await, want);
        let boxed: BoxError = send().await.into();
        table.error(&"boxed", &*boxed, want);
        table.error(&"user error", &UserError(boxed), want);
        table.error(&"user error, twice", &UserError(UserError(send().await.into()).into()), want);
        table.error(&"io", &io::Error::other(send().await), want);
        table.error(&"io, twice", &io::Error::other(io::Error::other(UserError(send().await.into()))), want);
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(send().await);
        table.error(&"shared", &*shared, want);
    })
    .await;
}

#[tokio::test]
async fn io_error_in_anyhow_contexts_is_found() {
    for_each_cause(async |url, want| {
        let mut table = Table::default();
        let send = async || client().post(url).body("body").send().await.map(drop);
        let bare = anyhow::Error::from(send().await.unwrap_err());
        table.error(&"bare", bare.as_ref(), want);
        let context = send().await.context("placing the order").context("serving the page").unwrap_err();
        table.error(&"with contexts", context.as_ref(), want);
        let boxed = BoxError::from(context);
        table.error(&"boxed", &*boxed, want);
        let classified = ServiceBuilder::new()
            .layer(FaultClassifyLayer::new())
            .service_fn(async |()| send().await.context("placing the order"));
        table.error(&"below the layer", &classified.oneshot(()).await.unwrap_err(), want);
    })
    .await;
}

#[tokio::test]
async fn io_error_in_reqwest_middleware_error_is_found() {
    for_each_cause(async |url, want| {
        let mut table = Table::default();
        let send = async |client: reqwest_middleware::ClientWithMiddleware| {
            client.post(url).body("body").send().await.map(drop).unwrap_err()
        };
        table.error(&"none", &send(ClientBuilder::new(client()).build()).await, want);
        let layer = TowerMiddleware::new(FaultClassifyLayer::new());
        table.error(&"a layer", &send(ClientBuilder::new(client()).with(layer).build()).await, want);
        let layers = ServiceBuilder::new()
            .layer(FaultClassifyLayer::new())
            .layer(TimeoutLayer::new(std::time::Duration::from_secs(30)))
            .into_inner();
        let client = ClientBuilder::new(client()).with(TowerMiddleware::new(layers)).build();
        let error = send(client).await;
        table.error(&"layers", &error, want);
        table.error(&"boxed", &*BoxError::from(error), want);
    })
    .await;
}

/// A buffer returns the error of its worker in an `Arc`.
#[tokio::test]
async fn io_error_under_buffer_and_timeout_is_found() {
    for_each_cause(async |url, want| {
        let stack = ServiceBuilder::new()
            .layer(FaultClassifyLayer::new())
            .buffer(4)
            .timeout(std::time::Duration::from_secs(30))
            .service(client());
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.parse().unwrap());
        *request.body_mut() = Some("body".into());
        let error = stack.oneshot(request).await.map(|response: Response| response.status()).unwrap_err();
        Table::default().error(&url, &error, want);
    })
    .await;
}

type TestService = tower::util::BoxCloneService<(), (), io::Error>;

fn refusing_service() -> TestService {
    TestService::new(tower::service_fn(async |()| Err(io::Error::from(io::ErrorKind::ConnectionRefused))))
}

#[tokio::test]
async fn closed_buffer_is_local_never_neutral() {
    let (mut table, want) = (Table::default(), axes(Kind::Local, Retryable::Never, Health::Neutral));
    // The worker has ended before the call.
    let (mut buffer, worker) = Buffer::pair(refusing_service(), 4);
    drop(worker);
    table.error(&"not ready", &*expect_error(buffer.ready().await), want);
    // The worker ends with the call in its queue.
    let (mut buffer, worker) = Buffer::pair(refusing_service(), 4);
    let response = buffer.ready().await.unwrap().call(());
    drop(worker);
    table.error(&"queued", &*expect_error(response.await), want);
    let (buffer, worker) = Buffer::pair(refusing_service(), 4);
    drop(worker);
    let classified = FaultClassifyLayer::new().layer(buffer).oneshot(()).await;
    table.error(&"classified", &classified.unwrap_err(), want);
}

/// The worker of a buffer ends when its service send to become ready. Every later call through the
/// buffer gets the same error, also after the server has recovered.
#[tokio::test]
async fn failed_service_behind_buffer_keeps_cause_without_retry() {
    /// A service that is never ready.
    #[derive(Clone)]
    struct Fails;
    impl Service<()> for Fails {
        type Response = ();
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<()>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            unreachable!("the service is never ready")
        }
    }
    let (mut table, want) = (Table::default(), axes(Kind::Unavailable, Retryable::Never, Health::Unhealthy));
    let buffer = Buffer::new(Fails, 4);
    let classified_above = FaultClassifyLayer::new().layer(buffer.clone());
    let classified_below = Buffer::new(FaultClassifyLayer::new().layer(Fails), 4);
    for call in 0..2 {
        table.error(&call, &*expect_error(buffer.clone().oneshot(()).await), want);
        table.error(
            &("classified above", call),
            &classified_above.clone().oneshot(()).await.unwrap_err(),
            want,
        );
        table.error(
            &("classified below", call),
            &*expect_error(classified_below.clone().oneshot(()).await),
            want,
        );
    }
}

/// Only an error in the middle of the chain shows that nothing was written.
#[tokio::test]
async fn error_in_middle_of_chain_is_found() {
    let server = Http::start().await;
    server.set_default(Action::ResetOnAccept);
    let error = UserError(client().post(server.url()).body("body").send().await.unwrap_err().into());
    let want = if is_unsent(&error) { BROKEN_UNSENT } else { BROKEN };
    assert_eq!(Axes::of(&classify_error(&error)), want, "{error:?}");
}

/// An error that no table contains.
#[tokio::test]
async fn unrecognised_error_is_unknown() {
    let error = reqwest_middleware::Error::Middleware(
        anyhow::anyhow!("no result").context("custom middleware failed"),
    );
    Table::default().error(&"custom", &error, UNKNOWN);
}
