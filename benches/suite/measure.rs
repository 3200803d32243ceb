//! Measures all variants in one run.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::time::{Duration, Instant};

use tower_resilience_benchmarks::{Calls, LOCK, Style, Variant};

use crate::record::{Kind, Record};
use crate::statistics::Quartiles;

/// The duration of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Full,
    Quick,
}

impl Effort {
    /// Returns the number of rounds. In each round, every variant runs one batch.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Effort::Full => 400,
            Effort::Quick => 80,
        }
    }

    /// Returns the approximate duration of a batch.
    fn batch(self) -> Duration {
        match self {
            Effort::Full => Duration::from_micros(100),
            Effort::Quick => Duration::from_micros(50),
        }
    }
}

/// A variant that runs.
struct Running<'a> {
    variant: &'a Variant,
    calls: Calls,
    /// The number of calls in a batch.
    batch: u32,
    /// The time of a call, by round.
    nanos: Vec<f64>,
}

impl Running<'_> {
    /// Returns the time of a number of calls.
    fn time(&mut self, calls: u32) -> Duration {
        let start = Instant::now();
        let successes = (self.calls)(calls);
        let elapsed = start.elapsed();
        self.variant.check(calls, successes);
        elapsed
    }

    /// Warms the variant up and returns the number of calls that take about `time`.
    fn calibrate(&mut self, time: Duration) -> u32 {
        let mut calls = 64;
        loop {
            let elapsed = self.time(calls);
            if elapsed >= time {
                return (f64::from(calls) * time.as_secs_f64() / elapsed.as_secs_f64()) as u32 / 4 * 4 + 4;
            }
            calls *= 2;
        }
    }
}

/// Runs the variants in rounds and returns their results in the given order.
///
/// In each round every variant runs one batch, in random order. So a change of the machine's speed
/// affects all variants, and none always follows the same other variant.
pub(crate) fn interleaved(variants: &[Variant], effort: Effort) -> Vec<Record> {
    let mut running: Vec<Running<'_>> = variants
        .iter()
        .map(|variant| {
            let calls = variant.set_up()();
            let mut running = Running { variant, calls, batch: 0, nanos: Vec::new() };
            running.batch = running.calibrate(effort.batch());
            running
        })
        .collect();
    let mut order: Vec<usize> = (0..running.len()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..effort.rounds() {
        random.shuffle(&mut order);
        for &index in &order {
            let variant = &mut running[index];
            let batch = variant.batch;
            // Loads the caches, which the other variants have filled.
            variant.time(batch);
            let elapsed = variant.time(batch);
            variant.nanos.push(elapsed.as_secs_f64() * 1e9 / f64::from(batch));
        }
    }
    let reference = |row, style| {
        let found = |running: &&Running<'_>| running.variant.row == row && running.variant.style == style;
        running.iter().find(found).map(|running| &running.nanos)
    };
    let lock = reference(LOCK, Style::Raw).expect("each run measures the lock");
    let record = |Running { variant, nanos, .. }: &Running<'_>| Record {
        nanos: Some(Quartiles::of(nanos.clone()).median),
        bare: reference(variant.bare, variant.style).map(|bare| Quartiles::of_ratios(nanos, bare).median),
        ..Record::of(Kind::Time, variant, Quartiles::of_ratios(nanos, lock))
    };
    running.iter().map(record).collect()
}
