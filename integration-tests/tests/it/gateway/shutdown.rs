//! Told to stop, the gateway answers what is under way.

use std::io;
use std::sync::Arc;

use reqwest::{Body, Client};
use test_servers::Action;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::{Gateway, comes_true};

/// The clients keep the second half of what they send until the gateway has been told.
#[tokio::test]
async fn graceful_shutdown_finishes_calls_and_accepts_none() {
    let gateway = Gateway::start().await;
    // The first attempts of some fail after the gateway was told: it sends them again all the same.
    gateway.orders.script([Action::status(503), Action::ResetAfterRequest]);
    gateway.orders.set_default(Action::Echo);
    let told = Arc::new(Semaphore::new(0));
    let mut under_way = JoinSet::new();
    for number in 0..16 {
        let (url, told) = (format!("{}/orders/{number}", gateway.url), Arc::clone(&told));
        under_way.spawn(async move {
            let halves = tokio_stream::iter(["first and ", "second"]).then(move |half| {
                let told = Arc::clone(&told);
                async move {
                    if half == "second" {
                        told.acquire().await.unwrap().forget();
                    }
                    Ok::<_, io::Error>(half)
                }
            });
            let request = Client::new().put(url).body(Body::wrap_stream(Box::pin(halves)));
            (number, async { request.send().await?.text().await }.await)
        });
    }
    comes_true(|| gateway.orders.connections() == 16).await;
    gateway.stop.notify_one();
    comes_true(|| std::net::TcpStream::connect(gateway.url.replace("http://", "")).is_err()).await;
    assert!(gateway.orders.requests().is_empty() && !gateway.serving.is_finished());

    told.add_permits(16);
    for (number, answer) in under_way.join_all().await {
        assert_eq!(answer.unwrap(), format!("/{number}\nfirst and second"));
    }
    gateway.serving.await.unwrap().unwrap();
    assert_eq!(gateway.orders.requests().len(), 16 + 2);
}
