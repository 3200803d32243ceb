//! `docs/manual-control.md`: the status as JSON.

use std::fs;
use std::io;
use std::time::Duration;

use serde_json::Value;
use tower_breaker::{BreakerConfig, CircuitRegistry};

/// Replaces the times, which differ in each run and between platforms.
fn without_times(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(without_times),
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_time = name == "at" || name.ends_with("_seconds");
                if is_time && !value.is_null() {
                    *value = Value::from("a time");
                } else {
                    without_times(value);
                }
            }
        }
        _ => {}
    }
}

/// The program is the one above the output on the page.
#[tokio::test]
async fn status_as_json_on_page_is_real() {
    let each =
        BreakerConfig::builder().consecutive_failures(2).consecutive_failures_span(Duration::ZERO).build();
    let registry = CircuitRegistry::new(each.unwrap());
    let circuit = registry.circuit("search");
    for _ in 0..2 {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        circuit.call(async { Err::<String, _>(refused) }).await.unwrap_err();
    }
    let mut real = serde_json::to_value(registry.statuses()).unwrap();

    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manual-control.md")).unwrap();
    let (_, output) = page.split_once("\n```json\n").unwrap();
    let (output, _) = output.split_once("\n```\n").unwrap();
    let mut shown: Value = serde_json::from_str(output).unwrap();

    without_times(&mut real);
    without_times(&mut shown);
    assert_eq!(shown, real);
}
