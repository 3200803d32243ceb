//! The number of requests that reach the server: exactly as many as policy and idempotency allow,
//! in each place where the stack can be used.

use integration_tests::reqwest_client;
use reqwest::{Method, Request};
use reqwest_middleware::ClientBuilder;
use test_servers::{Action, Http};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{FaultClassifyLayer, classify_error};

use super::{inside, send, stack};

/// What the server does with every request, and the numbers of requests of a GET and of a POST.
fn rows() -> Vec<(Action, usize, usize)> {
    vec![
        (Action::status(200), 1, 1),
        (Action::status(404), 1, 1),
        (Action::status(421), 3, 3),
        (Action::status(429), 3, 3),
        (Action::status(500), 3, 1),
        (Action::status(503), 3, 1),
        (Action::status(503).header("x-should-retry", "false"), 1, 1),
        (Action::ResetAfterRequest, 3, 1),
        (Action::CloseAfterRequest, 3, 1),
        (Action::garbage(), 1, 1),
    ]
}

fn request(method: &Method, server: &Http) -> Request {
    let mut request = Request::new(method.clone(), server.url().parse().unwrap());
    *request.body_mut() = Some("the body".into());
    request
}

/// Checks the number of requests of each row. `exchange` sends one request, and returns the status
/// or the kind of the fault.
async fn check_counts(exchange: impl AsyncFn(Request) -> String) {
    for (action, gets, posts) in rows() {
        for (method, expected) in [(Method::GET, gets), (Method::POST, posts)] {
            let server = Http::start().await;
            server.set_default(action.clone());
            let answer = exchange(request(&method, &server)).await;
            let requests = server.requests();
            assert_eq!(requests.len(), expected, "{method} of {action:?}: {answer}");
            assert!(requests.iter().all(|request| request.body == "the body"), "{method} of {action:?}");
            if let Action::Respond(_) = action {
                let status = answer.parse::<u16>().is_ok();
                assert!(status || answer == "protocol", "{method} of {action:?}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn requests_over_reqwest_match_expected_counts() {
    check_counts(async |request| {
        let answer = send(&mut stack(reqwest_client().build().unwrap()), request).await;
        answer.map_or_else(
            |error| classify_error(&error).kind().to_string(),
            |a| a.status().as_u16().to_string(),
        )
    })
    .await;
}

#[tokio::test]
async fn requests_over_middleware_match_expected_counts() {
    check_counts(async |request| {
        let client = ClientBuilder::new(reqwest_client().build().unwrap())
            .with(TowerMiddleware::new(FaultClassifyLayer::new().keep_errors()))
            .build();
        let answer = send(&mut stack(client), request).await;
        answer.map_or_else(
            |error| classify_error(&error).kind().to_string(),
            |a| a.status().as_u16().to_string(),
        )
    })
    .await;
}

#[tokio::test]
async fn requests_in_reqwest_chain_match_expected_counts() {
    check_counts(async |request| {
        let answer = inside(reqwest_client().build().unwrap()).execute(request).await;
        answer.map_or_else(
            |error| classify_error(&error).kind().to_string(),
            |a| a.status().as_u16().to_string(),
        )
    })
    .await;
}
