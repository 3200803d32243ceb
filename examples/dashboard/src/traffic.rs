//! The calls of one process.

use std::time::Duration;

use http::Request;
use tower::{Service, ServiceExt};

use crate::services::{Client, TENANTS};

/// Calls a client `rate` times per second, at random moments, until the program ends.
pub(crate) async fn call_forever(client: Client, rate: f64) {
    loop {
        // The pauses between the events of a Poisson process have this distribution.
        let pause = -(1.0 - fastrand::f64()).ln() / rate;
        tokio::time::sleep(Duration::from_secs_f64(pause.min(60.0))).await;
        tokio::spawn(call(client.clone()));
    }
}

/// Makes one call. The page shows its outcome, so the result is dropped.
async fn call(mut client: Client) {
    let mut request = Request::new(());
    request.extensions_mut().insert(TENANTS[fastrand::usize(..TENANTS.len())]);
    if let Ok(client) = client.ready().await {
        drop(client.call(request).await);
    }
}
