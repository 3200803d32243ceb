//! Graceful shutdown: the gateway completes the running requests.

use std::io;
use std::sync::Arc;

use integration_tests::reqwest_client;
use reqwest::Body;
use test_servers::Action;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::{Gateway, wait_until};

/// The clients send the second half of their bodies after the gateway has begun to shut down.
#[tokio::test]
async fn graceful_shutdown_finishes_calls_and_accepts_none() {
    let gateway = Gateway::start().await;
    // Some first attempts fail during the shutdown. The gateway still retries them.
    gateway.orders.script([Action::status(503), Action::ResetAfterRequest]);
    gateway.orders.set_default(Action::Echo);
    let second_half = Arc::new(Semaphore::new(0));
    let mut running = JoinSet::new();
    for number in 0..16 {
        let (url, second_half) = (format!("{}/orders/{number}", gateway.url), Arc::clone(&second_half));
        running.spawn(async move {
            let halves = tokio_stream::iter(["first and ", "second"]).then(move |half| {
                let second_half = Arc::clone(&second_half);
                async move {
                    if half == "second" {
                        second_half.acquire().await.unwrap().forget();
                    }
                    Ok::<_, io::Error>(half)
                }
            });
            let request =
                reqwest_client().build().unwrap().put(url).body(Body::wrap_stream(Box::pin(halves)));
            (number, async { request.send().await?.text().await }.await)
        });
    }
    wait_until(|| gateway.orders.connections() == 16).await;
    gateway.stop.notify_one();
    wait_until(|| std::net::TcpStream::connect(gateway.url.replace("http://", "")).is_err()).await;
    assert!(gateway.orders.requests().is_empty() && !gateway.serving.is_finished());

    second_half.add_permits(16);
    for (number, answer) in running.join_all().await {
        assert_eq!(answer.unwrap(), format!("/{number}\nfirst and second"));
    }
    gateway.serving.await.unwrap().unwrap();
    assert_eq!(gateway.orders.requests().len(), 16 + 2);
}
