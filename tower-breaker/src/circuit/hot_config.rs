//! What calls read of the configuration without a lock, and what `reconfigure` changes under it.
//!
//! The limits are many words under a sequence lock: the sequence number is odd while they are
//! written. A reader loads the sequence number before and after; if it was odd or has changed, the
//! reader takes the circuit's lock, which keeps writers out, and reads again. So no call acts on
//! half of a configuration.

use std::time::Duration;

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, fence};
use tower_fault_classify::__internals::{AtomicClock, Clock, TimeBuckets};

use super::window::WindowSpan;
use crate::config::{BreakerConfig, Mode};
use crate::machine::{CancelledPolicy, SlowCallLimits, TripLimits, min_failures_for_rate};
use crate::telemetry::{Instruments, instruments};

/// Every call reads the time when it begins.
const TIMED: u64 = 1;
/// Calls that would be rejected are admitted, and not counted.
const OBSERVING: u64 = 2;
/// The word of the flags is `instruments:32 | first epoch:24 | flags:8`: the number of the
/// instruments of the circuit's name, and the epoch in which the circuit began, so that the two
/// never disagree.
const INSTRUMENTS: u32 = 32;
const FIRST_EPOCH: u32 = 8;

/// The part of a configuration that calls read: written by `reconfigure` alone.
#[derive(Debug)]
pub struct HotConfig {
    flags: AtomicU64,
    limits: AtomicLimits,
    clock: AtomicClock,
}

impl HotConfig {
    /// The configuration of a circuit that reads `clock` and has a window in `parts` parts.
    pub(crate) fn new(clock: Clock, config: &BreakerConfig, parts: u64, instruments: u32) -> Self {
        let limits = Limits { span: WindowSpan::of(config.window, parts), trip: config.trip };
        Self {
            flags: AtomicU64::new(Flags::of(config, instruments, 0).0),
            limits: AtomicLimits::new(&limits),
            clock: AtomicClock::new(clock),
        }
    }

    /// Writes another configuration, clock first. The caller holds the circuit's lock.
    pub(super) fn write(&self, clock: Clock, limits: &Limits) {
        self.clock.store(clock);
        self.limits.write(limits);
    }

    /// Writes the flags of another configuration, or of the next circuit in the same storage.
    pub(super) fn write_flags(&self, flags: Flags) {
        // Release: a thread that reads the circuit's first epoch here reads a state word that is no
        // older.
        self.flags.store(flags.0, Ordering::Release);
    }

    /// The clock of the circuit.
    #[inline]
    pub(crate) fn clock(&self) -> Clock {
        self.clock.load()
    }

    /// The time in nanoseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The limits, as atomic words.
    #[inline]
    pub(super) const fn limits(&self) -> &AtomicLimits {
        &self.limits
    }

    /// The window's span, for a caller who holds the circuit's lock.
    pub(crate) fn span_locked(&self) -> WindowSpan {
        self.limits.load_locked().span
    }

    /// The current bucket of a circuit in its first epoch. A window that begins in this bucket does
    /// not clear its cells for the first call.
    pub(crate) fn bucket(&self) -> u64 {
        self.span_locked().buckets.tag(self.now(), 0)
    }

    /// The flags, for the next call.
    #[inline]
    pub(super) fn flags(&self) -> Flags {
        // Relaxed: a flag is for the next call, not for this one. The number of the instruments is
        // written under the circuit's lock, or before any other thread has the circuit.
        Flags(self.flags.load(Ordering::Relaxed))
    }

    /// The flags, with what their writer did before.
    pub(super) fn flags_acquire(&self) -> Flags {
        // Acquire: a state word that is read afterwards is no older than the circuit that wrote
        // these flags.
        Flags(self.flags.load(Ordering::Acquire))
    }

    /// The instruments of the circuit's name, if there is a recorder.
    pub(crate) fn instruments(&self) -> Option<&'static Instruments> {
        self.flags().instruments()
    }
}

/// What a call must know of the configuration at once, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u64);

impl Flags {
    /// Those of no circuit.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(config: &BreakerConfig, instruments: u32, first_epoch: u32) -> Self {
        let timed = if config.trip.needs_duration() { TIMED } else { 0 };
        let observing = if config.mode == Mode::ObserveOnly { OBSERVING } else { 0 };
        Self(
            (u64::from(instruments) << INSTRUMENTS)
                | (u64::from(first_epoch) << FIRST_EPOCH)
                | timed
                | observing,
        )
    }

    /// Whether calls read the time when they begin.
    #[inline]
    pub(super) const fn is_timed(self) -> bool {
        self.0 & TIMED != 0
    }

    /// Whether calls are admitted that would be rejected.
    #[inline]
    pub(super) const fn is_observing(self) -> bool {
        self.0 & OBSERVING != 0
    }

    /// The epoch in which the circuit began. Only the lowest 24 bits count.
    pub(super) const fn first_epoch(self) -> u32 {
        (self.0 >> FIRST_EPOCH) as u32
    }

    /// Whether there is a recorder: without the feature `metrics` there is none.
    #[inline]
    pub(super) fn is_metered(self) -> bool {
        cfg!(feature = "metrics") && self.0 >> INSTRUMENTS != 0
    }

    pub(super) fn instruments(self) -> Option<&'static Instruments> {
        instruments((self.0 >> INSTRUMENTS) as u32)
    }
}

/// How many words the limits take: scale and offset of the buckets, calls of the window,
/// consecutive failures and failures of the thresholds, `consecutive:32 | minimum:32`, failure
/// rate, slow call threshold, slow call rate, policy for cancelled calls.
const WORDS: usize = 10;

/// What a failed call needs to know whether the circuit may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TripThresholds {
    pub(crate) span: WindowSpan,
    /// The number of consecutive failures that opens the circuit.
    pub(crate) consecutive_failures: u64,
    /// The fewest failures in the window that may reach the rate.
    pub(crate) failures: u64,
}

/// All limits that a call needs to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) span: WindowSpan,
    pub(crate) trip: TripLimits,
}

/// The limits, as atomic words under a sequence lock.
#[derive(Debug)]
pub(crate) struct AtomicLimits {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl AtomicLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { sequence: AtomicU64::new(0), words: pack(limits).map(AtomicU64::new) }
    }

    /// Writes a new configuration. The caller holds the circuit's lock.
    pub(crate) fn write(&self, limits: &Limits) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // A reader of one of the words below sees the odd sequence number, or a later one.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(pack(limits)) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: a reader of this sequence number sees the words.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The window's span alone. `None`: it is being written.
    #[inline]
    pub(crate) fn span(&self) -> Option<WindowSpan> {
        self.read(|words| {
            let [scale, offset, calls, ..] = words;
            unpack_span([scale, offset, calls].map(load))
        })
    }

    /// What a failed call needs first. `None`: it is being written.
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
    pub(crate) fn load(&self) -> Option<Limits> {
        self.read(|words| unpack(words.each_ref().map(load)))
    }

    /// All limits, for a caller who holds the circuit's lock.
    pub(crate) fn load_locked(&self) -> Limits {
        unpack(self.words.each_ref().map(load))
    }

    #[inline]
    fn read<T>(&self, read: impl FnOnce(&[AtomicU64; WORDS]) -> T) -> Option<T> {
        // Acquire: with the words of this sequence number, or of a later one.
        let sequence = self.sequence.load(Ordering::Acquire);
        let value = read(&self.words);
        // If a word was of a later sequence number, the number is seen to have changed.
        fence(Ordering::Acquire);
        (sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence).then_some(value)
    }
}

#[inline]
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn pack(Limits { span, trip }: &Limits) -> [u64; WORDS] {
    let [scale, offset] = span.buckets.to_words();
    let counts = (u64::from(trip.consecutive_failures) << 32) | u64::from(trip.minimum_calls);
    let slow = trip.slow.unwrap_or(SlowCallLimits { threshold: 0, rate: f64::NAN });
    let cancelled = match trip.cancelled {
        CancelledPolicy::IfNoneCompletes => 0,
        CancelledPolicy::Ignore => 1,
        CancelledPolicy::Failure => 2,
        CancelledPolicy::FailureAfter(after) => (after.as_nanos() as u64).saturating_add(3),
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
        slow.threshold,
        slow_rate,
        cancelled,
    ]
}

fn unpack(
    [scale, offset, calls, _, _, counts, rate, slow_threshold, slow_rate, cancelled]: [u64; WORDS],
) -> Limits {
    let number = |bits| Some(f64::from_bits(bits)).filter(|rate| !rate.is_nan());
    Limits {
        span: unpack_span([scale, offset, calls]),
        trip: TripLimits {
            consecutive_failures: (counts >> 32) as u32,
            minimum_calls: counts as u32,
            failure_rate: number(rate),
            slow: number(slow_rate).map(|rate| SlowCallLimits { threshold: slow_threshold, rate }),
            cancelled: match cancelled {
                0 => CancelledPolicy::IfNoneCompletes,
                1 => CancelledPolicy::Ignore,
                2 => CancelledPolicy::Failure,
                nanos => CancelledPolicy::FailureAfter(Duration::from_nanos(nanos - 3)),
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
            Just(CancelledPolicy::IfNoneCompletes),
            Just(CancelledPolicy::Ignore),
            Just(CancelledPolicy::Failure),
            (0..u64::MAX - 3).prop_map(|nanos| CancelledPolicy::FailureAfter(Duration::from_nanos(nanos))),
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
                    slow: slow.map(|(threshold, rate)| SlowCallLimits { threshold, rate }),
                    cancelled,
                },
            },
        )
    }

    proptest! {
        #[test]
        fn limits_written_are_read_back(first in limits(), second in limits()) {
            let limits = AtomicLimits::new(&first);
            prop_assert_eq!(limits.load(), Some(first));
            limits.write(&second);
            prop_assert_eq!(limits.load(), Some(second));
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
                cancelled: CancelledPolicy::FailureAfter(Duration::from_nanos(number.into())),
            },
        }
    }

    #[test]
    fn loom_limits_are_never_read_half_written() {
        let mut builder = loom::model::Builder::new();
        // Two are enough to stop the reader and the writer once each; ten words on both sides make more last long.
        builder.preemption_bound = Some(2);
        builder.check(|| {
            let atomic = Arc::new(AtomicLimits::new(&limits(1)));
            let other = Arc::clone(&atomic);
            let thread = thread::spawn(move || {
                other.write(&limits(2));
            });
            if let Some(read) = atomic.load() {
                assert!([1, 2].map(limits).contains(&read), "{read:?}");
            }
            thread.join().unwrap();
            assert_eq!(atomic.load(), Some(limits(2)));
        });
    }
}
