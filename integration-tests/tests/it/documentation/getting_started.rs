//! `docs/getting-started.md`: the output of its program.

use std::fs;
use std::time::Duration;

use integration_tests::{TIMEOUT, retry_at_once};
use reqwest::{Method, Request};
use test_servers::RefusedPort;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::{ErrorChain, FaultClassifyLayer};
use tower_jitter_retry::JitterRetryLayer;

use super::client;

#[tokio::test]
async fn output_of_program_on_page_is_real() {
    let port = RefusedPort::bind();
    let config = BreakerConfig::builder().name("search").build().unwrap();
    assert_eq!(config.open_for(), Duration::from_secs(30));
    let search = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(BreakerLayer::new(config))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(client());
    let mut output = String::new();
    for _ in 0..3 {
        let request = Request::new(Method::GET, port.url().parse().unwrap());
        let line = match search.clone().oneshot(request).await {
            Ok(response) => format!("answered: {}\n", response.status()),
            Err(BreakerError::Rejected(rejection)) => format!("not sent: {rejection}\n"),
            Err(error) => format!("failed: {}\n", ErrorChain(&error)),
        };
        output.push_str(&line.replace(&port.url(), "http://127.0.0.1:9"));
    }
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/getting-started.md")).unwrap();
    assert!(page.contains(&output), "{output}");
}
