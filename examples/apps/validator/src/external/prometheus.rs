//! Results as metrics, for a Prometheus push gateway.

use std::collections::BTreeMap;
use std::fmt::Write;

use reqwest::Client;
use reqwest::header::CONTENT_TYPE;

use crate::error::CheckError;
use crate::result::{Report, ValidationResult};

/// The results of the validators with the same labels.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// Returns the text exposition of a report.
///
/// Validators may share a dimension and a tier, so the metrics are numbers of validators.
pub(super) fn exposition(report: &Report) -> String {
    let mut counts = BTreeMap::<(&str, u8), Counts>::new();
    for ValidationResult { dimension, tier, passed, .. } in &report.results {
        let counts = counts.entry((dimension, *tier)).or_default();
        if *passed {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
    }
    // Writing to a string does not fail.
    let mut text = String::from("# TYPE validator_results gauge\n");
    for ((dimension, tier), Counts { passed, failed }) in counts {
        let labels = format!("dimension=\"{}\",tier=\"{tier}\"", escape(dimension));
        let _ = writeln!(text, "validator_results{{{labels},passed=\"true\"}} {passed}");
        let _ = writeln!(text, "validator_results{{{labels},passed=\"false\"}} {failed}");
    }
    let _ = writeln!(text, "# TYPE validator_passed gauge\nvalidator_passed {}", u8::from(report.passed));
    let _ =
        writeln!(text, "# TYPE validator_degraded gauge\nvalidator_degraded {}", u8::from(report.degraded));
    text
}

/// Replaces the metrics of the job `validator` in the push gateway.
pub(super) async fn send(client: &Client, base_url: &str, metrics: &str) -> Result<(), CheckError> {
    let url = format!("{}/metrics/job/validator", base_url.trim_end_matches('/'));
    let request = client.post(url).header(CONTENT_TYPE, "text/plain; version=0.0.4");
    request.body(metrics.to_owned()).send().await?.error_for_status()?;
    Ok(())
}

/// Escapes the value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
