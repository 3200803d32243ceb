//! Loom models: every interleaving of two calls at the start of an era.

use loom::sync::Arc;
use loom::thread;
use tower_fault_classify::__internals::StripedCounter;

use super::*;
use crate::circuit::core::models::model;

const BUCKET: u64 = 1 << 30;
const ERA: u64 = BUCKET << ERA_BITS;

fn window() -> (Arc<StripedWindow>, WindowSpan) {
    let window = StripedWindow::new(StripedCounter::with_stripes(0), 0);
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
fn loom_reader_of_new_era_sees_cleared_cells() {
    model(|| {
        let (window, span) = window();
        // After 1,024 eras, the first cell seems to be the one of the bucket before.
        let (before, now) = (16 * BUCKET, 17 * BUCKET + (ERA << 10));
        window.record_failure(&span, before, 0, false);
        window.record_failure(&span, before, 0, false);
        let other = Arc::clone(&window);
        let reader = thread::spawn(move || assert!(failures(&other, &span, now) <= 1));
        // On the main thread, whose steps loom explores first.
        window.record_failure(&span, now, 0, false);
        reader.join().unwrap();
    });
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

fn count_window(calls: u32) -> (Arc<StripedWindow>, WindowSpan) {
    (window().0, WindowSpan::of(WindowShape::Count(calls), StripedWindow::PARTS))
}

#[test]
fn loom_success_before_failure_is_recorded_before_it() {
    model(|| {
        let (window, span) = count_window(1);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || other.record_success(&span, 7, 0));
        window.record_success(&span, 7, 0);
        let seen = window.record_failure(&span, 7, 0, false);
        assert_eq!(window.failures_in(seen), 1, "the failure is the last call");
        thread.join().unwrap();
        // Another call may follow the failure, but not the success that happened before it.
        let seen = window.record_failure(&span, 7, 0, false);
        assert_eq!(window.failures_in(seen), 1);
    });
}

#[test]
fn loom_pending_successes_are_recorded_once() {
    model(|| {
        let (window, span) = count_window(9);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || {
            other.record_success(&span, 7, 0);
            other.record_failure(&span, 7, 0, false);
        });
        window.record_success(&span, 7, 0);
        let Counts { calls, failures, .. } = window.counts_at(&span, 7, 0);
        assert!(calls > 0 && calls <= 3 && failures <= 1, "{failures} failures of {calls}");
        window.record_failure(&span, 7, 0, false);
        thread.join().unwrap();
        let Counts { calls, failures, .. } = window.counts_at(&span, 7, 0);
        assert_eq!((calls, failures), (4, 2));
    });
}

#[test]
fn loom_success_seen_by_failure_has_its_time() {
    model(|| {
        let (window, span) = count_window(9);
        let other = Arc::clone(&window);
        // The main thread writes, because loom explores its steps first.
        let reader = thread::spawn(move || {
            let seen = other.record_failure(&span, 7, 0, false);
            let last = other.last_success_at(&span, 7, 0);
            assert!(other.counts(seen).calls == 1 || last == Some(7), "{last:?}");
        });
        window.record_success(&span, 7, 0);
        reader.join().unwrap();
        assert_eq!(window.last_success_at(&span, 7, 0), Some(7));
    });
}

#[test]
fn loom_success_of_earlier_epoch_is_not_counted() {
    model(|| {
        let (window, span) = count_window(9);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || {
            other.record_success(&span, 7, 2);
            other.record_failure(&span, 7, 2, false);
        });
        // On the main thread, whose steps loom explores first.
        window.record_success(&span, 7, 1);
        thread.join().unwrap();
        let Counts { calls, failures, .. } = window.counts_at(&span, 7, 2);
        assert_eq!((calls, failures), (2, 1));
    });
}
