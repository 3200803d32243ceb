//! Loom models: every interleaving of two calls at the start of an era.

use loom::sync::Arc;
use loom::thread;
use tower_fault_classify::__internals::PerThread;

use super::*;
use crate::circuit::core::models::model;

const BUCKET: u64 = 1 << 30;
const ERA: u64 = BUCKET << ERA_BITS;

fn window() -> (Arc<StripedWindow>, WindowSpan) {
    let window = StripedWindow::new(PerThread::with_slots(0), 0);
    (Arc::new(window), WindowSpan::of(WindowShape::Time(BUCKET * StripedWindow::PARTS), StripedWindow::PARTS))
}

fn failures(window: &StripedWindow, span: &WindowSpan, now: u64) -> u64 {
    let Counts { calls, failures, .. } = window.counts_at(span, now, 0);
    assert_eq!(calls, failures);
    failures
}

#[test]
fn loom_first_calls_of_era_clear_expired_cells() {
    // The lower 32 bits of a tag repeat after 1,024 eras.
    for idle in [1, 2, 1 << 10] {
        model(move || {
            let (window, span) = window();
            let (before, now) = (17 * BUCKET, 17 * BUCKET + idle * ERA);
            window.record_failure(&span, before, 0, false);
            let other = Arc::clone(&window);
            let thread = thread::spawn(move || {
                other.record_failure(&span, now, 0, false);
            });
            window.record_failure(&span, now, 0, false);
            thread.join().unwrap();
            assert_eq!(failures(&window, &span, now), 2);
        });
    }
}

#[test]
fn loom_era_that_begins_within_window_loses_no_call() {
    model(|| {
        let (window, span) = window();
        window.record_failure(&span, ERA - 2 * BUCKET, 0, false);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || {
            other.record_failure(&span, ERA - BUCKET, 0, false);
        });
        window.record_failure(&span, ERA, 0, false);
        thread.join().unwrap();
        assert_eq!(failures(&window, &span, ERA), 3);
    });
}
