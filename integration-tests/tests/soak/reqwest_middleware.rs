//! The soak over reqwest-middleware's `ClientWithMiddleware`, and inside its chain.

use ::reqwest_middleware::{ClientBuilder, Error};
use reqwest::{Request, Response};
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::middleware::TowerMiddleware;
use tower_jitter_retry::JitterRetryLayer;

use crate::load::{AttemptOutcome, Ledger, Upstream, number, run};
use crate::reqwest_client::request;
use crate::{TIMEOUT, circuit, client_without_redirects, policy};

fn attempt_outcome(result: &Result<Response, Error>) -> AttemptOutcome {
    match result {
        Ok(response) => AttemptOutcome::from_status(response.status()),
        Err(error) => AttemptOutcome::without_response(error.is_connect()),
    }
}

fn path(request: &Request) -> usize {
    number(request.url().path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_middleware_add_up() {
    let (upstream, ledger, breaker) =
        (Upstream::start().await, Ledger::default(), BreakerLayer::new(circuit()));
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(path, attempt_outcome))
        .service(ClientBuilder::new(client_without_redirects()).build());
    let base = upstream.base();
    let outcomes = run(move |order| {
        let (stack, base) = (stack.clone(), base.clone());
        async move {
            let response = stack.oneshot(request(&order, &base(&order))?).await?;
            Ok((response.status().as_u16(), response.bytes().await?))
        }
    })
    .await;
    upstream.check(&outcomes, &ledger, handle.status().window);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_in_reqwest_chain_add_up() {
    let (upstream, ledger, breaker) =
        (Upstream::start().await, Ledger::default(), BreakerLayer::new(circuit()));
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(path as fn(&Request) -> usize, attempt_outcome))
        .into_inner();
    let client = ClientBuilder::new(client_without_redirects()).with(TowerMiddleware::new(stack)).build();
    let base = upstream.base();
    let outcomes = run(move |order| {
        let (client, base) = (client.clone(), base.clone());
        async move {
            let response = client.execute(request(&order, &base(&order))?).await?;
            Ok((response.status().as_u16(), response.bytes().await?))
        }
    })
    .await;
    upstream.check(&outcomes, &ledger, handle.status().window);
}
