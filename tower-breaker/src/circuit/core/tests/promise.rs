//! Random histories of a time window, against a naive model that sums the window at every failure.
//!
//! A promise that covers a failure too many, or that stays for too long, lets the circuit open
//! late. See `window/due.rs`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::circuit::window::tests::Threads;

/// A bucket of the shortest window, in half milliseconds.
const BUCKET: u64 = 2;
/// The time at which a history begins.
const START: u64 = 1_000_000;

/// A part of a configuration. Every other limit is off.
#[derive(Clone, Copy, Debug)]
struct Limits {
    rate: Option<f64>,
    minimum: u32,
    /// The window has fifteen buckets of this length.
    bucket: u64,
}

impl Limits {
    fn config(self, clock: Clock) -> BreakerConfig {
        let (failure_rate, minimum_calls) = (self.rate, self.minimum);
        BreakerConfig {
            trip: TripLimits { consecutive_failures: 0, failure_rate, minimum_calls, ..TRIP },
            window: WindowShape::Time(nanos(half_millis(15 * self.bucket))),
            clock: Some(clock),
            ..CONFIG
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = prop::sample::select(vec![
        None,
        Some(0.0),
        Some(0.000_1),
        Some(0.07),
        Some(0.5),
        Some(0.5),
        Some(0.9),
        Some(1.0),
    ]);
    let minimum = prop::sample::select(vec![1, 2, 3, 10, 100, 20_000, 33_000]);
    let bucket = prop::sample::select(vec![BUCKET, BUCKET, 3 * BUCKET]);
    (rate, minimum, bucket).prop_map(|(rate, minimum, bucket)| Limits { rate, minimum, bucket })
}

const fn half_millis(number: u64) -> Duration {
    Duration::from_micros(500 * number)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Successes(u64),
    Failures(u64),
    Forward(u64),
    Back(u64),
    Reset,
    Reconfigure(usize),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let few = || prop::sample::select(vec![1, 1, 1, 2, 3, 9, 50, 300]);
    let forward = vec![
        1,
        1,
        BUCKET,
        5 * BUCKET,
        15 * BUCKET,
        40 * BUCKET,
        // As many buckets as an epoch adds to the lower bits of a tag.
        256 * BUCKET,
        // After this many buckets, the lower bits of a tag repeat.
        (1 << 32) * BUCKET,
    ];
    let step = prop_oneof![
        20 => few().prop_map(Step::Successes),
        30 => few().prop_map(Step::Failures),
        // More than half of the numbers, and more than all of them.
        1 => prop::sample::select(vec![17_000, 33_000]).prop_map(Step::Failures),
        12 => prop::sample::select(forward).prop_map(Step::Forward),
        1 => prop::sample::select(vec![1, 7 * BUCKET, 100 * BUCKET, 256 * BUCKET]).prop_map(Step::Back),
        2 => Just(Step::Reset),
        4 => (0..3_usize).prop_map(Step::Reconfigure),
    ];
    (0..3_usize, step)
}

/// The calls and failures in each bucket since the window began.
#[derive(Default)]
struct Naive(BTreeMap<u64, [u64; 2]>);

impl Naive {
    /// Records calls at this time. The window never runs back.
    fn record(&mut self, limits: Limits, now: u64, calls: u64, failures: u64) {
        let bucket = now / limits.bucket;
        let newest = self.0.keys().next_back().map_or(bucket, |newest| bucket.max(*newest));
        let counts = self.0.entry(newest).or_default();
        *counts = [counts[0] + calls, counts[1] + failures];
    }

    /// Returns whether the circuit opens after a failure.
    fn opens(&self, limits: Limits) -> bool {
        let Some((&newest, _)) = self.0.last_key_value() else { return false };
        let inside = self.0.range(newest.saturating_sub(15)..);
        let [calls, failures] =
            inside.fold([0, 0], |sum, (_, counts)| [sum[0] + counts[0], sum[1] + counts[1]]);
        calls >= limits.minimum.into()
            && limits.rate.is_some_and(|rate| failures as f64 / calls as f64 >= rate)
    }
}

/// A circuit, its naive model, and the threads that call the circuit one after the other.
struct Pair<'scope> {
    core: &'scope StaticCore,
    naive: Naive,
    limits: Limits,
    now: u64,
    threads: Threads<'scope>,
}

impl Pair<'_> {
    fn succeed(&mut self, thread: usize, number: u64) {
        let core = self.core;
        self.threads.run(thread, move || (0..number).for_each(|_| assert!(run(core, Verdict::Success))));
        self.naive.record(self.limits, self.now, number, 0);
    }

    /// Runs failures until the circuit or the model opens. Both then start again.
    fn fail(&mut self, thread: usize, number: u64) -> Result<(), TestCaseError> {
        let mut opens_after = None;
        for failure in 1..=number {
            self.naive.record(self.limits, self.now, 1, 1);
            if self.naive.opens(self.limits) {
                opens_after = Some(failure);
                break;
            }
        }
        let core = self.core;
        let opened_after = self.threads.run(thread, move || {
            (1..=number).find(|_| {
                assert!(run(core, FAILURE));
                !core.is_closed()
            })
        });
        prop_assert_eq!(opened_after, opens_after);
        if opened_after.is_some() {
            self.reset();
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.core.reset().unwrap();
        self.naive = Naive::default();
    }

    fn reconfigure(&mut self, limits: Limits, clock: Clock) {
        if limits.bucket != self.limits.bucket {
            self.naive = Naive::default();
        }
        self.limits = limits;
        self.core.reconfigure(&limits.config(clock));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn failure_opens_if_sum_of_naive_model_reaches_rate(
        limits in [limits(), limits(), limits()],
        slots in prop::sample::select(vec![0, 1, 64]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (clock, time) = Clock::manual();
        time.set(half_millis(START));
        let config = limits[0].config(clock);
        let core = StaticCore::with_successes(clock, StripedCounter::with_stripes(slots), &config);
        core.adopt(&config);
        let core = &core;
        let result: Result<(), TestCaseError> = thread::scope(|scope| {
            let (naive, threads) = (Naive::default(), Threads::new(scope));
            let mut pair = Pair { core, naive, limits: limits[0], now: START, threads };
            for (thread, step) in steps {
                match step {
                    Step::Successes(number) => pair.succeed(thread, number),
                    Step::Failures(number) => pair.fail(thread, number)?,
                    Step::Forward(by) => pair.now += by,
                    Step::Back(by) => pair.now -= by,
                    Step::Reset => pair.reset(),
                    Step::Reconfigure(number) => pair.reconfigure(limits[number], clock),
                }
                time.set(half_millis(pair.now));
            }
            Ok(())
        });
        result?;
    }
}
