//! `docs/getting-started.md`: the output of its program.

use std::fs;
use std::time::Duration;

use integration_tests::{TIMEOUT, retry_at_once};
use reqwest::{Method, Request};
use test_servers::RefusedPort;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock};
use tower_fault_classify::{ErrorChain, FaultClassifyLayer};
use tower_jitter_retry::JitterRetryLayer;

use super::client;

/// The pause of the program after each call.
const PAUSE: Duration = Duration::from_millis(300);

/// The program waits on a manual clock. Its retries have no delay, and the open time no jitter.
#[tokio::test]
async fn output_of_program_on_page_is_real() {
    let port = RefusedPort::bind();
    let url = port.url().replace("http:", "https:");
    let (clock, time) = Clock::manual();
    let config = BreakerConfig::builder().name("search").open_jitter(0.0).clock(clock).build().unwrap();
    let search = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(BreakerLayer::new(config))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(client());
    let mut output = Vec::new();
    for _ in 0..6 {
        let request = Request::new(Method::GET, url.parse().unwrap());
        let line = match search.clone().oneshot(request).await {
            Ok(response) => format!("answered: {}\n", response.status()),
            Err(BreakerError::Rejected(rejection)) => format!("not sent: {rejection}\n"),
            Err(error) => format!("failed: {}\n", ErrorChain(&error)),
        };
        output.push(line.replace(&url, "https://127.0.0.1:9"));
        time.advance(PAUSE);
    }
    assert!(output[..5].iter().all(|line| *line == output[0]), "the first line five times: {output:?}");
    let rejected = "not sent: circuit breaker `search` is open; retry after ";
    assert_eq!(output[5], format!("{rejected}2.7 s\n"));

    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/getting-started.md")).unwrap();
    assert!(page.contains(&format!("sleep(Duration::from_millis({}))", PAUSE.as_millis())), "the same pause");
    let (_, seconds) = page.split_once(&format!("{}{rejected}", output[0])).expect(&output[0]);
    let seconds: f64 = seconds.split_once(" s\n").unwrap().0.parse().unwrap();
    assert!((2.7..=4.2).contains(&seconds), "the time with jitter: {seconds} s");
}
