//! The page under other paths, and behind nginx.

use std::time::Duration;

use test_servers::Nginx;
use tower_breaker::CircuitState;

use crate::live::median_latency;
use crate::page::Page;
use crate::server::{OPERATOR, Server};

/// Checks that the page reads a circuit, shows a transition in time, and trips the circuit.
async fn check(url: &str, server: &Server, circuit: &str) {
    let page = Page::log_in(url, OPERATOR).await;
    page.wait_for_state(circuit, "closed").await;
    let latency = median_latency(&page, &server.circuit(circuit)).await;
    assert!(latency < Duration::from_millis(1500), "{url}: {latency:?}");
    page.act("Trip", circuit, "test").await;
    assert_eq!(server.state(circuit), CircuitState::Open, "{url}");
    assert_eq!(page.errors().await, [], "{url}");
    server.circuit(circuit).reset().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn page_works_under_a_prefix_with_and_without_slash() {
    let server = Server::start(&["a/b c"]).await;
    check(&server.url(), &server, "a/b c").await;
    check(&format!("{}/", server.url()), &server, "a/b c").await;
}

/// nginx buffers responses by default. The events must get through at once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn page_works_behind_nginx() {
    let server = Server::start(&["a b", "a/b c"]).await;
    // With another prefix, nginx decodes the path: no request can name a circuit with a slash.
    let nginx = Nginx::start(&format!(
        "location /ops/ {{ proxy_pass http://{address}/breakers/; }}
        location /breakers/ {{ proxy_pass http://{address}; }}",
        address = server.address()
    ));
    // nginx redirects the URL without a slash.
    check(&format!("{}/ops", nginx.url()), &server, "a b").await;
    check(&format!("{}/breakers/", nginx.url()), &server, "a/b c").await;
}
