//! Outcomes that only a body shows, over real clients: gRPC trailers, error bodies and event
//! streams of LLM APIs, and broken bodies.

mod breaker;
mod hyper_client;
mod reqwest_client;
mod reqwest_stream;
mod stalled;
mod tonic_channel;

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::{Arc, Mutex};

use test_servers::{Action, Http};
use tower_fault_classify::body::OnEnd;
use tower_fault_classify::{Health, Kind, Retryable, Verdict};

type Axes = (Kind, Retryable, Health);

/// Returns the axes of a fault.
fn axes(verdict: Verdict) -> Option<Axes> {
    verdict.fault().map(|fault| (fault.kind(), fault.retryable(), fault.health()))
}

/// A hook that records the verdicts it gets.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Verdict>>>);

impl OnEnd for Log {
    fn on_end(self, verdict: Verdict) {
        self.0.lock().unwrap().push(verdict);
    }
}

impl Log {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Returns the only verdict that was recorded.
    fn only(&self) -> Option<Axes> {
        match self.0.lock().unwrap()[..] {
            [verdict] => axes(verdict),
            ref verdicts => panic!("{verdicts:?}"),
        }
    }
}

/// Returns the kind of the I/O error in the chain.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    successors(Some(error), |&error| error.source())
        .find_map(|error| Some(error.downcast_ref::<io::Error>()?.kind()))
}

const OUT_OF_QUOTA: &str = r#"{
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": null,
        "code": "insufficient_quota"
    }
}"#;
const RATE_LIMITED: &str =
    r#"{"error": {"message": "Limit 3 / min.", "type": "requests", "code": "rate_limit_exceeded"}}"#;
const OVERLOADED: &str =
    r#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#;

fn json(status: u16, body: &str) -> Action {
    Action::status(status).header("content-type", "application/json").body(body)
}

/// Starts a server with this script. It then answers with 200.
async fn server(script: impl IntoIterator<Item = Action>) -> Http {
    let server = Http::start().await;
    server.script(script);
    server
}
