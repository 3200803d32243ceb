//! The documented JSON of a report.

use serde_json::json;

use crate::support::{Behavior, Stub, orchestrator};

#[tokio::test(start_paused = true)]
async fn report_is_documented_json() {
    let validators = [Stub("lint", Behavior::Passes), Stub("visual", Behavior::Hangs)];
    let report = orchestrator(validators).run_graceful().await;
    let expected = json!({
        "results": [
            {
                "dimension": "lint",
                "tier": 1,
                "passed": true,
                "message": "lint has run",
                "details": {},
            },
            {
                "dimension": "visual",
                "tier": 1,
                "passed": false,
                "message": "Timeout after 30s",
                "details": { "error": "timeout" },
            },
        ],
        "passed": false,
        "degraded": true,
    });
    // The fields have this order, too.
    assert_eq!(serde_json::to_string(&report).unwrap(), expected.to_string());
}
