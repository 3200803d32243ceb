//! The time limits, on tokio's paused clock.

use std::future::{pending, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use validator::timeouts::{DEFAULT_TIMEOUT, Seconds, Timeouts, get_timeout, with_timeout};

use crate::support::{Behavior, Stub, orchestrator, timeouts};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn timeout_completes_fast() {
    assert_eq!(with_timeout(ready(7), SECOND, "lint").await.unwrap(), 7);
    let slow = async {
        sleep(SECOND).await;
        8
    };
    assert_eq!(with_timeout(slow, 2 * SECOND, "lint").await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn timeout_raises_on_slow() {
    let start = Instant::now();
    let error = with_timeout(pending::<()>(), 90 * SECOND, "security").await.unwrap_err();
    assert_eq!(start.elapsed(), 90 * SECOND);
    assert_eq!((&*error.dimension, error.timeout), ("security", 90 * SECOND));
    assert_eq!(error.to_string(), "`security` did not finish in 90 s; allow more time");
}

#[test]
fn timeout_from_config() {
    let config = timeouts([("coverage", 1.5), ("unknown", 7.0)]);
    assert_eq!(get_timeout("coverage", &config), Duration::from_millis(1_500));
    assert_eq!(get_timeout("unknown", &config), 7 * SECOND);
    assert_eq!(get_timeout("security", &config), 90 * SECOND);
}

#[test]
fn timeout_default_fallback() {
    let table = [
        ("code_quality", 60),
        ("type_safety", 120),
        ("security", 90),
        ("coverage", 300),
        ("lint", 60),
        ("visual", 30),
        ("behavioral", 30),
        ("unknown", 60),
    ];
    for (dimension, seconds) in table {
        let timeout = get_timeout(dimension, &Timeouts::new());
        assert_eq!(timeout, Duration::from_secs(seconds), "{dimension}");
    }
    assert_eq!(DEFAULT_TIMEOUT, 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn default_timeout_of_dimension_ends_validator() {
    let start = Instant::now();
    let report = orchestrator([Stub("visual", Behavior::Hangs)]).run_graceful().await;
    assert_eq!(report.results[0].message, "Timeout after 30s");
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[test]
fn seconds_outside_of_range_are_refused() {
    for text in ["0", "-1", "inf", "NaN", "1e300", "ten", ""] {
        let error = text.parse::<Seconds>().unwrap_err();
        assert!(error.to_string().contains("0.001 to 31536000"), "{text}: {error}");
    }
    assert_eq!("2".parse(), Ok(Seconds::new(2)));
}
