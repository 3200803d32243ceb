//! The soak over reqwest's `Client`.

use reqwest::{Error, Request, Response};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::JitterRetryLayer;

use crate::load::{AttemptOutcome, Ledger, Order, Upstream, number, run};
use crate::{TIMEOUT, circuit, client_without_redirects, policy};

pub(crate) fn request(order: &Order, base: &str) -> Result<Request, BoxError> {
    let mut request = Request::new(order.method.clone(), format!("{base}{}", order.path).parse()?);
    if !order.body.is_empty() {
        *request.body_mut() = Some(order.body.clone().into());
    }
    Ok(request)
}

fn attempt_outcome(result: &Result<Response, Error>) -> AttemptOutcome {
    match result {
        Ok(response) => AttemptOutcome::from_status(response.status()),
        Err(error) => AttemptOutcome::without_response(error.is_connect()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_reqwest_add_up() {
    let (upstream, ledger, breaker) =
        (Upstream::start().await, Ledger::default(), BreakerLayer::new(circuit()));
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(|request: &Request| number(request.url().path()), attempt_outcome))
        .service(client_without_redirects());
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
