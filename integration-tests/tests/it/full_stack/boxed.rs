//! The stack in a `BoxCloneSyncService`, shared by spawned tasks.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, reqwest_client};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerError, BreakerLayer, Rejection, Verdict};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, classify_error};
use tower_jitter_retry::{JitterRetryLayer, RequestInfo};

use super::{Upstream, circuit, policy};

async fn answer_in_tasks<Request, Response>(
    service: BoxCloneSyncService<Request, Response, BoxError>,
    request: impl Fn() -> Request,
) -> Vec<Response>
where
    Request: Send + 'static,
    Response: Send + 'static,
{
    let mut responses = Vec::new();
    for _ in 0..3 {
        let service = service.clone();
        let request = request();
        let task = tokio::spawn(async move { service.oneshot(request).await });
        responses.push(task.await.unwrap().unwrap());
    }
    responses
}

#[tokio::test]
async fn boxed_stack_over_reqwest_answers_in_spawned_tasks() {
    let upstream = Upstream::start().await;
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(BreakerLayer::new(circuit()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    let service = BoxCloneSyncService::new(stack.map_err(Into::into));
    let url = upstream.url(200);
    let request = || reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
    let responses = answer_in_tasks(service, request).await;
    assert!(responses.iter().all(|response| response.status() == 200));
}

#[tokio::test]
async fn boxed_stack_over_http_bodies_answers_in_spawned_tasks() {
    let upstream = Upstream::start().await;
    let client = HyperClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(BreakerLayer::new(circuit()).track_body())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(client);
    let service = BoxCloneSyncService::new(stack.map_err(Into::into));
    let url = upstream.url(200);
    let request = || http::Request::get(&url).body(Full::<Bytes>::default()).unwrap();
    let responses = answer_in_tasks(service, request).await;
    assert!(responses.iter().all(|response| response.status() == 200));
}

#[derive(Clone)]
struct Query(u32);

impl RequestInfo for Query {}

#[tokio::test]
async fn boxed_stack_over_closure_answers_in_spawned_tasks() {
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()).clone_requests())
        .layer(BreakerLayer::new(circuit()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(service_fn(async |query: Query| Ok::<_, io::Error>(query.0)));
    let service = BoxCloneSyncService::new(stack.map_err(Into::into));
    assert_eq!(answer_in_tasks(service, || Query(7)).await, [7, 7, 7]);
}

/// Everything inside of the task: the layers, the box and the call.
#[tokio::test]
async fn stack_built_in_spawned_task_is_boxed_there() {
    let task = tokio::spawn(async {
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()))
            .layer(BreakerLayer::new(circuit()))
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(service_fn(async |number: u32| Ok::<_, io::Error>(number)));
        let mut service = BoxCloneSyncService::new(stack);
        service.ready().await.unwrap().call(7).await.unwrap()
    });
    assert_eq!(task.await.unwrap(), 7);
}

#[tokio::test]
async fn stack_boxed_by_layer_answers_in_spawned_tasks() {
    let layers = ServiceBuilder::new()
        .layer(BoxCloneSyncService::layer())
        .map_err(BoxError::from)
        .layer(JitterRetryLayer::new(policy()))
        .layer(BreakerLayer::new(circuit()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT);
    let service = layers.service(service_fn(async |number: u32| Ok::<_, io::Error>(number)));
    assert_eq!(answer_in_tasks(service, || 7).await, [7, 7, 7]);
}

/// Closures of every kind, and a client with an `async` closure that captures.
#[tokio::test]
async fn stack_with_closures_built_in_spawned_task_is_boxed_there() {
    let upstream = Upstream::start().await;
    let url = upstream.url(200);
    let task = tokio::spawn(async move {
        let client = reqwest_client().build().unwrap();
        let send = service_fn(move |request: reqwest::Request| {
            let client = client.clone();
            async move { client.execute(request).await }
        });
        let config = KeyedConfig::builder(circuit()).build().unwrap();
        let host = |request: &reqwest::Request| request.url().host_str().map(str::to_owned);
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()).rule(
                |result: Result<&reqwest::Response, &BreakerError<ClassifiedError>>| {
                    result.err().map(|error| Verdict::Fault(classify_error(error)))
                },
            ))
            .layer(KeyedBreakerLayer::new(config, host).on_transition(|_| {}))
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(send);
        let mut service = BoxCloneSyncService::new(stack);
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        response.status()
    });
    assert_eq!(task.await.unwrap(), 200);
}

/// The unboxed stack, with keys by reference and a fallback.
#[tokio::test]
async fn stack_with_keys_by_reference_is_called_in_spawned_tasks() {
    #[derive(Clone)]
    struct Named(String);
    impl RequestInfo for Named {}

    let config = KeyedConfig::builder(circuit()).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()).clone_requests())
        .layer(
            KeyedBreakerLayer::by_ref(config, |request: &Named| request.0.as_str())
                .fallback_async(async |request: Named, _: Rejection| Ok::<_, ClassifiedError>(request.0)),
        )
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(service_fn(async |request: Named| Ok::<_, io::Error>(request.0)));
    let unboxed = stack.clone();
    let request = || Named("name".to_owned());
    let task = tokio::spawn(async move { unboxed.oneshot(request()).await.unwrap() });
    assert_eq!(task.await.unwrap(), "name");
    let service = BoxCloneSyncService::new(stack.map_err(Into::into));
    assert_eq!(answer_in_tasks(service, request).await, ["name"; 3]);
}
