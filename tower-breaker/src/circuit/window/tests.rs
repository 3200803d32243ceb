//! Tests of the windows, some against a naive model.

use std::time::Duration;

use tower_fault_classify::__internals::{Clock, PerThread};

use proptest::prelude::*;

use super::*;

fn record(window: &StripedWindow, span: &WindowSpan, clock: Clock, epoch: u32, failed: bool) {
    if failed {
        window.record_failure(span, clock.now(), epoch, false);
    } else {
        window.record_success(span, || clock.now(), epoch);
    }
}

fn window() -> StripedWindow {
    StripedWindow::new(PerThread::with_slots(1), 0)
}

const fn counts(calls: u64, failures: u64) -> Counts {
    Counts { calls, failures, slow: 0, cancelled: 0 }
}

#[test]
fn time_window_is_up_to_a_bucket_longer_than_its_span() {
    for nanos in [1_000_000, 4_999_999, 60_000_000_000, 365 * 24 * 3_600_000_000_000] {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(40_000_000));
        let (window, span) = (window(), WindowSpan::of(WindowShape::Time(nanos), StripedWindow::PARTS));
        record(&window, &span, clock, 0, true);
        record(&window, &span, clock, 0, false);
        let whole = counts(2, 1);
        time.advance(Duration::from_nanos(nanos));
        assert_eq!(window.counts_at(&span, clock.now(), 0), whole, "{nanos}");
        time.advance(Duration::from_nanos(nanos / 15 + 2));
        assert_eq!(window.counts_at(&span, clock.now(), 0), Counts::default(), "{nanos}");
    }
}

#[test]
fn time_window_is_empty_after_a_week() {
    let (clock, time) = Clock::manual();
    let (window, span) = (window(), WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS));
    record(&window, &span, clock, 0, true);
    time.advance(Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!(window.counts_at(&span, clock.now(), 0), Counts::default());
    record(&window, &span, clock, 0, true);
    assert_eq!(window.counts_at(&span, clock.now(), 0), counts(1, 1));
}

#[test]
fn window_starts_empty_in_every_epoch() {
    let (clock, _time) = Clock::manual();
    for shape in [WindowShape::Time(60_000_000_000), WindowShape::Count(10)] {
        let (window, span) = (window(), WindowSpan::of(shape, StripedWindow::PARTS));
        record(&window, &span, clock, 4, true);
        record(&window, &span, clock, 5, false);
        assert_eq!(window.counts_at(&span, clock.now(), 5), counts(1, 0));
        record(&window, &span, clock, 4, true);
        assert_eq!(window.counts_at(&span, clock.now(), 5), counts(1, 0), "{shape:?}");
        record(&window, &span, clock, LAST_EPOCH, true);
    }
}

#[test]
fn window_starts_empty_after_change_of_span() {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(40_000_000));
    let window = window();
    let shapes = [60, 600, 1, 3_600].map(|seconds| WindowShape::Time(seconds * 1_000_000_000));
    let mut span = WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS);
    for shape in
        shapes.into_iter().chain([WindowShape::Count(5), WindowShape::Count(7), shapes[0], shapes[1]])
    {
        record(&window, &span, clock, 3, true);
        span = WindowSpan::after(shape, span, StripedWindow::PARTS, clock.now(), clock.now());
        assert_eq!(window.counts_at(&span, clock.now(), 3), counts(0, 0), "{shape:?}");
        record(&window, &span, clock, 3, true);
        record(&window, &span, clock, 3, false);
        assert_eq!(window.counts_at(&span, clock.now(), 3), counts(2, 1), "{shape:?}");
    }
}

#[test]
fn window_counts_slow_and_cancelled_calls() {
    let (clock, _time) = Clock::manual();
    for shape in [WindowShape::Time(60_000_000_000), WindowShape::Count(10)] {
        let (window, span) = (window(), WindowSpan::of(shape, StripedWindow::PARTS));
        let now = clock.now();
        window.record_cancelled(&span, now, 0);
        window.record_cancelled(&span, now, 0);
        assert_eq!(window.counts_at(&span, now, 0), Counts { cancelled: 2, ..Counts::default() });
        window.record_failure(&span, now, 0, true);
        let seen = window.record_slow_success(&span, now, 0);
        assert_eq!((window.slow_in(seen), window.failures_in(seen)), (2, 1));
        assert_eq!(window.counts(seen).calls, 2, "{shape:?}");
    }
}

proptest! {
    /// Compares the window with a list of all calls, over random times and outcomes.
    #[test]
    fn time_window_matches_naive_model(steps in proptest::collection::vec((0_u64..8_000, any::<bool>()), 1..200)) {
        let (clock, time) = Clock::manual();
        let (window, span) = (window(), WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS));
        let mut naive: Vec<(u64, bool)> = Vec::new();
        for (millis, failed) in steps {
            time.advance(Duration::from_millis(millis));
            record(&window, &span, clock, 0, failed);
            // Rounding moves the edge of a bucket by less than a nanosecond within this test.
            let bucket = |nanos: u64| nanos / 4_000_000_000;
            naive.push((bucket(clock.now()), failed));
            let now = bucket(clock.now());
            let inside = naive.iter().filter(|(at, _)| now - at < 16);
            let expected = Counts {
                calls: inside.clone().count() as u64,
                failures: inside.filter(|(_, failed)| *failed).count() as u64,
                ..Counts::default()
            };
            prop_assert_eq!(window.counts_at(&span, clock.now(), 0), expected);
        }
    }
}
