//! The stack inside reqwest-middleware's chain, around a service that borrows `Next<'a>`.

use std::sync::Arc;

use http::Extensions;
use integration_tests::{TIMEOUT, reqwest_client};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use tower::ServiceBuilder;
use tower_breaker::{BreakerError, BreakerLayer, CircuitState, Rejection};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

#[tokio::test]
async fn stack_in_reqwest_chain_retries_opens_and_rejects() {
    let upstream = Upstream::start().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .into_inner();
    let client =
        ClientBuilder::new(reqwest_client().build().unwrap()).with(TowerMiddleware::new(stack)).build();
    let get = async |status| client.get(upstream.url(status)).send().await;

    assert_eq!((get(200).await.unwrap().status().as_u16(), upstream.requests()), (200, 1));
    for _ in 0..2 {
        assert_eq!(get(503).await.unwrap().status(), 503);
    }
    assert_eq!((handle.status().state, upstream.requests()), (CircuitState::Open, 6));
    let error = get(200).await.unwrap_err();
    assert_eq!((classify_error(&error).kind(), upstream.requests()), (Kind::Rejected, 0));
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("not the stack's own error") };
    let error = error.chain().find_map(|error| error.downcast_ref::<BreakerError<ClassifiedError>>());
    assert!(matches!(error, Some(BreakerError::Rejected(_))));
}

/// Counts its calls in the extensions of a request, and records the count of each call.
struct PassCounter(Arc<std::sync::Mutex<Vec<u32>>>);

#[async_trait::async_trait]
impl Middleware for PassCounter {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let passes = extensions.get::<u32>().copied().unwrap_or_default() + 1;
        extensions.insert(passes);
        self.0.lock().unwrap().push(passes);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn extensions_are_those_of_last_attempt() {
    let upstream = Upstream::start().await;
    let passes = Arc::default();
    let client = ClientBuilder::new(reqwest_client().build().unwrap())
        .with(TowerMiddleware::new(JitterRetryLayer::new(policy())))
        .with(PassCounter(Arc::clone(&passes)))
        .build();
    let mut extensions = Extensions::new();
    extensions.insert("from outside");
    let request = client.get(upstream.url(503)).build().unwrap();
    client.execute_with_extensions(request, &mut extensions).await.unwrap();
    assert_eq!(*passes.lock().unwrap(), [1, 2, 3]);
    assert_eq!((extensions.get::<u32>(), extensions.get::<&str>()), (Some(&3), Some(&"from outside")));
}

#[tokio::test]
async fn chain_error_is_returned_unchanged() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    // Without a timeout and with `keep_errors`, the error type of the stack is that of the chain.
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(FaultClassifyLayer::new().keep_errors())
        .into_inner();
    let client =
        ClientBuilder::new(reqwest_client().build().unwrap()).with(TowerMiddleware::new(stack)).build();
    let error = client.get(format!("http://{free}/")).send().await.unwrap_err();
    assert!(error.is_connect());
    let rejected = classify_error(&error);
    assert_eq!(rejected.kind(), Kind::Unavailable);
    assert!(!matches!(&error, reqwest_middleware::Error::Middleware(error) if error.is::<Rejection>()));
}
