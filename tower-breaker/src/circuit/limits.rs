//! The limits that a settling call reads without a lock, and that a new configuration changes under it.
//!
//! A sequence lock: the turn is odd while the words are written. Who reads looks at the turn before and after; if it was odd or has moved,
//! he takes the circuit's lock, which keeps writers out, and reads again. So nobody ever acts on half of a configuration.

use tower_fault_classify::__internals::TimeBuckets;
use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, fence};

use super::window::WindowSpan;
use crate::machine::{Cancelled, SlowCallLimits, TripLimits, min_failures_for_rate};

/// Scale and offset of the buckets, calls of the window, run and failures to evaluate at, `consecutive:32 | minimum:32`, failure rate, slow
/// from, slow rate, cancelled.
const WORDS: usize = 10;

/// What a failing call must know to see whether there is anything to evaluate at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TripThresholds {
    pub(crate) span: WindowSpan,
    /// A run of so many failures opens the circuit.
    pub(crate) consecutive_failures: u64,
    /// So many failures in the window may reach the rate.
    pub(crate) failures: u64,
}

/// What a settling call must know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) span: WindowSpan,
    pub(crate) trip: TripLimits,
}

#[derive(Debug)]
pub(crate) struct AtomicLimits {
    turn: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl AtomicLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { turn: AtomicU64::new(0), words: pack(limits).map(AtomicU64::new) }
    }

    /// Writes a new configuration. The caller holds the circuit's lock.
    pub(crate) fn write(&self, limits: &Limits) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        // Whoever reads one of the words below sees the odd turn, or a later one.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(pack(limits)) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: whoever sees this turn sees the words.
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    /// The window's span alone. `None`: it is being written.
    #[inline]
    pub(crate) fn span(&self) -> Option<WindowSpan> {
        self.read(|words| {
            let [scale, offset, calls, ..] = words;
            unpack_span([scale, offset, calls].map(load))
        })
    }

    /// What a failing call needs first. `None`: it is being written.
    #[inline]
    pub(crate) fn trip_thresholds(&self) -> Option<TripThresholds> {
        self.read(|words| {
            let [scale, offset, calls, consecutive_failures, failures, ..] = words;
            let span = unpack_span([scale, offset, calls].map(load));
            TripThresholds {
                span,
                consecutive_failures: load(consecutive_failures),
                failures: load(failures),
            }
        })
    }

    /// All limits. `None`: they are being written.
    pub(crate) fn limits(&self) -> Option<Limits> {
        self.read(|words| unpack(words.each_ref().map(load)))
    }

    /// All limits, for a caller who holds the circuit's lock.
    pub(crate) fn load_locked(&self) -> Limits {
        unpack(self.words.each_ref().map(load))
    }

    #[inline]
    fn read<T>(&self, read: impl FnOnce(&[AtomicU64; WORDS]) -> T) -> Option<T> {
        // Acquire: with the words of this turn, or of a later one.
        let turn = self.turn.load(Ordering::Acquire);
        let value = read(&self.words);
        // If a word was of a later turn, the turn is seen to have moved.
        fence(Ordering::Acquire);
        (turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn).then_some(value)
    }
}

#[inline]
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn pack(Limits { span, trip }: &Limits) -> [u64; WORDS] {
    let [scale, offset] = span.buckets.to_words();
    let counts = (u64::from(trip.consecutive_failures) << 32) | u64::from(trip.minimum_calls);
    let slow = trip.slow.unwrap_or(SlowCallLimits { from: 0, rate: f64::NAN });
    let cancelled = match trip.cancelled {
        Cancelled::IfNoneCompletes => 0,
        Cancelled::Ignored => 1,
        Cancelled::Failure => 2,
        Cancelled::FailureFrom(nanos) => nanos.saturating_add(3),
    };
    let rate = trip.failure_rate.unwrap_or(f64::NAN);
    let consecutive_failures =
        if trip.consecutive_failures == 0 { u64::MAX } else { trip.consecutive_failures.into() };
    let slow_rate = slow.rate.to_bits();
    let calls = span.calls.into();
    let failures = min_failures_for_rate(trip);
    [
        scale,
        offset,
        calls,
        consecutive_failures,
        failures,
        counts,
        rate.to_bits(),
        slow.from,
        slow_rate,
        cancelled,
    ]
}

fn unpack(
    [scale, offset, calls, _, _, counts, rate, slow_from, slow_rate, cancelled]: [u64; WORDS],
) -> Limits {
    let number = |bits| Some(f64::from_bits(bits)).filter(|rate| !rate.is_nan());
    Limits {
        span: unpack_span([scale, offset, calls]),
        trip: TripLimits {
            consecutive_failures: (counts >> 32) as u32,
            minimum_calls: counts as u32,
            failure_rate: number(rate),
            slow: number(slow_rate).map(|rate| SlowCallLimits { from: slow_from, rate }),
            cancelled: match cancelled {
                0 => Cancelled::IfNoneCompletes,
                1 => Cancelled::Ignored,
                2 => Cancelled::Failure,
                nanos => Cancelled::FailureFrom(nanos - 3),
            },
        },
    }
}

#[inline]
const fn unpack_span([scale, offset, calls]: [u64; 3]) -> WindowSpan {
    WindowSpan { buckets: TimeBuckets::from_words([scale, offset]), calls: calls as u32 }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> impl Strategy<Value = Limits> {
        let cancelled = prop_oneof![
            Just(Cancelled::IfNoneCompletes),
            Just(Cancelled::Ignored),
            Just(Cancelled::Failure),
            (0..u64::MAX - 3).prop_map(Cancelled::FailureFrom),
        ];
        let slow = proptest::option::of((any::<u64>(), 0.0..=1.0));
        let span = (1..u64::MAX, any::<u32>());
        (span, any::<(u32, u32)>(), proptest::option::of(0.0..=1.0), slow, cancelled).prop_map(
            |((span, calls), (consecutive_failures, minimum_calls), failure_rate, slow, cancelled)| Limits {
                span: WindowSpan { buckets: TimeBuckets::new(span), calls },
                trip: TripLimits {
                    consecutive_failures,
                    minimum_calls,
                    failure_rate,
                    slow: slow.map(|(from, rate)| SlowCallLimits { from, rate }),
                    cancelled,
                },
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(first in limits(), second in limits()) {
            let limits = AtomicLimits::new(&first);
            prop_assert_eq!(limits.limits(), Some(first));
            limits.write(&second);
            prop_assert_eq!(limits.limits(), Some(second));
            prop_assert_eq!(limits.load_locked(), second);
            prop_assert_eq!(limits.span(), Some(second.span));
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn limits(number: u32) -> Limits {
        Limits {
            span: WindowSpan { buckets: TimeBuckets::new(1_000_000), calls: number },
            trip: TripLimits {
                consecutive_failures: number,
                failure_rate: None,
                slow: None,
                minimum_calls: number,
                cancelled: Cancelled::FailureFrom(number.into()),
            },
        }
    }

    #[test]
    fn loom_nobody_reads_half_of_a_configuration() {
        let mut builder = loom::model::Builder::new();
        // Two are enough to stop the reader and the writer once each; ten words on both sides make more last long.
        builder.preemption_bound = Some(2);
        builder.check(|| {
            let limits = Arc::new(AtomicLimits::new(&limits(1)));
            let other = Arc::clone(&limits);
            let thread = thread::spawn(move || {
                other.write(&limits(2));
            });
            if let Some(read) = limits.limits() {
                assert!([1, 2].map(limits).contains(&read), "{read:?}");
            }
            thread.join().unwrap();
            assert_eq!(limits.limits(), Some(limits(2)));
        });
    }
}
