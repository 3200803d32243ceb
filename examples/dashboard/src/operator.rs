//! A scheduled maintenance: a job that forces a circuit open over the API, as an operator would.

use std::time::Duration;

use http::{Request, Response};
use tower::ServiceExt;
use tower_breaker_admin::{Admin, AdminBody};

use crate::incidents::CYCLE;

/// The circuit of the server that is maintained.
pub(crate) const CIRCUIT: &str = "inventory";

/// When the maintenance begins, from the start of the cycle.
const BEGINS: Duration = Duration::from_secs(35);
const BODY: &str = r#"{"reason":"maintenance window","scope":"fleet","for_seconds":45}"#;

/// Forces the circuit open for a while in each cycle.
pub(crate) async fn maintain_forever(admin: Admin, token: String) {
    tokio::time::sleep(BEGINS).await;
    let mut cycles = tokio::time::interval(CYCLE);
    loop {
        cycles.tick().await;
        let response = force_open(admin.clone(), &token).await;
        if !response.status().is_success() {
            eprintln!("the maintenance of `{CIRCUIT}` was refused: {}", response.status());
        }
    }
}

async fn force_open(admin: Admin, token: &str) -> Response<AdminBody> {
    let request = Request::post(format!("/api/v1/circuits/{CIRCUIT}/actions/force_open"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("x-tower-breaker", "1")
        .body(BODY.to_owned())
        .expect("the request is valid");
    match admin.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
