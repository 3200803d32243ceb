//! Tests of the windows, some against a naive model.

use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::Duration;

use tower_fault_classify::__internals::{Clock, StripedCounter};

use proptest::prelude::*;

use super::*;
use crate::circuit::state_word::LAST_EPOCH;

fn record(window: &StripedWindow, span: &WindowSpan, clock: Clock, epoch: u32, failed: bool) {
    if failed {
        window.record_failure(span, clock.now(), epoch, false);
    } else {
        window.record_success(span, clock.now(), epoch);
    }
}

fn window() -> StripedWindow {
    StripedWindow::new(StripedCounter::with_stripes(1), 0)
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
        record(&window, &span, clock, 5, true);
        for failed in [true, false] {
            record(&window, &span, clock, 4, failed);
        }
        assert_eq!(window.counts_at(&span, clock.now(), 5), counts(2, 1), "{shape:?}");
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

/// A step of one of several threads. All steps run one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Successes(usize),
    SlowSuccess,
    Failure,
    Cancelled,
    Read,
    NextEpoch,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        6 => prop_oneof![Just(1), Just(3), Just(1_500)].prop_map(Step::Successes),
        2 => Just(Step::SlowSuccess),
        4 => Just(Step::Failure),
        1 => Just(Step::Cancelled),
        2 => Just(Step::Read),
        1 => Just(Step::NextEpoch),
    ];
    (0_usize..3, step)
}

/// Runs closures on three threads, one after the other. Each thread keeps its number.
pub(in crate::circuit) struct Threads<'scope>(Vec<mpsc::Sender<Job<'scope>>>);

type Job<'scope> = Box<dyn FnOnce() + Send + 'scope>;

impl<'scope> Threads<'scope> {
    pub(in crate::circuit) fn new(scope: &'scope Scope<'scope, '_>) -> Self {
        let spawn = |_| {
            let (sender, jobs) = mpsc::channel::<Job<'scope>>();
            scope.spawn(move || jobs.into_iter().for_each(|job| job()));
            sender
        };
        Self((0..3).map(spawn).collect())
    }

    /// Runs `job` on a thread, and waits until it has ended.
    pub(in crate::circuit) fn run<T: Send + 'scope>(
        &self,
        thread: usize,
        job: impl FnOnce() -> T + Send + 'scope,
    ) -> T {
        let (sender, result) = mpsc::channel();
        let job = move || sender.send(job()).expect("the caller waits for the result");
        self.0[thread].send(Box::new(job)).expect("the thread runs");
        result.recv().expect("the job has not panicked")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compares a count window of several threads with a list of all calls.
    #[test]
    fn count_window_of_several_threads_matches_naive_model(
        size in 1_u32..20,
        slots in 0_usize..20,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let window = StripedWindow::new(StripedCounter::with_stripes(slots), 0);
        let window = &window;
        let span = WindowSpan::of(WindowShape::Count(size), StripedWindow::PARTS);
        // Two flags for each call: failed and slow.
        let mut naive: Vec<(bool, bool)> = Vec::new();
        let (mut epoch, mut cancelled, mut last_success) = (0, 0, None);
        let result = thread::scope(|scope| {
            let threads = Threads::new(scope);
            for (now, (thread, step)) in steps.into_iter().enumerate() {
                let now = now as u64;
                let is_call = matches!(step, Step::Successes(_) | Step::SlowSuccess | Step::Failure);
                if is_call {
                    cancelled = 0;
                }
                if matches!(step, Step::Successes(_) | Step::SlowSuccess) {
                    last_success = Some(now);
                }
                let expected = |naive: &[(bool, bool)], cancelled| {
                    let last = &naive[naive.len().saturating_sub(size as usize)..];
                    Counts {
                        calls: last.len() as u64,
                        failures: last.iter().filter(|(failed, _)| *failed).count() as u64,
                        slow: last.iter().filter(|(_, slow)| *slow).count() as u64,
                        cancelled,
                    }
                };
                match step {
                    Step::Successes(number) => {
                        threads.run(thread, move || {
                            (0..number).for_each(|_| window.record_success(&span, now, epoch));
                        });
                        naive.extend((0..number).map(|_| (false, false)));
                    }
                    Step::SlowSuccess => {
                        let seen = threads.run(thread, move || window.record_slow_success(&span, now, epoch));
                        naive.push((false, true));
                        prop_assert_eq!(window.counts(seen), expected(&naive, 0));
                    }
                    Step::Failure => {
                        let seen = threads.run(thread, move || window.record_failure(&span, now, epoch, false));
                        naive.push((true, false));
                        prop_assert_eq!(window.counts(seen), expected(&naive, 0));
                    }
                    Step::Cancelled => {
                        threads.run(thread, move || window.record_cancelled(&span, now, epoch));
                        cancelled += 1;
                    }
                    Step::Read => {
                        prop_assert_eq!(window.counts_at(&span, now, epoch), expected(&naive, cancelled));
                        prop_assert_eq!(window.last_success_at(&span, now, epoch), last_success);
                    }
                    Step::NextEpoch => {
                        (epoch, cancelled, last_success) = (epoch + 1, 0, None);
                        naive.clear();
                    }
                }
            }
            Ok(())
        });
        result?;
    }
}

#[test]
fn cleared_count_window_discards_pending_successes() {
    let (window, span) = (window(), WindowSpan::of(WindowShape::Count(10), StripedWindow::PARTS));
    (0..3).for_each(|_| window.record_success(&span, 7, 0));
    assert_eq!(window.counts_at(&span, 7, 0), counts(3, 0));
    window.clear_count_window();
    assert_eq!(window.counts_at(&span, 7, 0), Counts::default());
    window.record_success(&span, 8, 0);
    window.record_failure(&span, 8, 0, false);
    assert_eq!(window.counts_at(&span, 8, 0), counts(2, 1));
}

#[test]
fn late_success_of_earlier_epoch_keeps_pending_successes() {
    for slots in [0, 64] {
        let window = StripedWindow::new(StripedCounter::with_stripes(slots), 0);
        let span = WindowSpan::of(WindowShape::Count(10), StripedWindow::PARTS);
        for epoch in [LAST_EPOCH, LAST_EPOCH, 0, 0, LAST_EPOCH] {
            window.record_success(&span, 7, epoch);
        }
        window.record_failure(&span, 7, 0, false);
        assert_eq!(window.counts_at(&span, 7, 0), counts(3, 1), "{slots} parts with an owner");
    }
}

#[test]
fn successes_alone_are_counted_up_to_the_size() {
    let (window, span) = (window(), WindowSpan::of(WindowShape::Count(10), StripedWindow::PARTS));
    (0..5_000).for_each(|_| window.record_success(&span, 7, 0));
    assert_eq!(window.counts_at(&span, 7, 0), counts(10, 0));
    assert_eq!(window.last_success_at(&span, 9, 0), Some(7));
}
