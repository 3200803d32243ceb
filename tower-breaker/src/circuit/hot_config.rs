//! The part of the configuration that calls read without a lock. Only a writer that holds the
//! circuit's lock changes it; for circuits that share it, the lock of their configuration.
//!
//! The limits are several words under a sequence lock. The sequence number is odd while the words
//! are written. A reader loads the sequence number before and after the words. If the number was
//! odd or has changed, the reader takes the lock of writers, and reads again. So no call ever uses
//! half of a configuration.

use std::time::Duration;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, fence, lock};
use tower_fault_classify::__internals::{AtomicClock, Clock, TimeBuckets};

#[cfg(feature = "keyed")]
use super::state_word::LAST_EPOCH;
use super::window::WindowSpan;
use crate::config::{BreakerConfig, Mode};
#[cfg(feature = "keyed")]
use crate::machine::WindowShape;
use crate::machine::{CancelledPolicy, Sample, SlowCallLimits, TripLimits, min_failures_for_rate};
use crate::telemetry::{Instruments, instruments};

/// Flag: every call reads the time when it begins.
const TIMED: u64 = 1;
/// Flag: calls that would be rejected are admitted, and are not counted.
const OBSERVING: u64 = 2;
/// Flag: the failures of retries count.
const COUNTS_FAILED_RETRIES: u64 = 4;
/// The layout of the flags word: `instruments:32 | first epoch:24 | flags:8`.
///
/// `instruments` is the index of the instruments of the circuit's name. The first epoch is the one
/// in which the circuit began. Both are in one word, so that a reader always gets the instruments
/// and the first epoch of the same circuit.
const INSTRUMENTS: u32 = 32;
const FIRST_EPOCH: u32 = 8;

/// The part of a configuration that calls read.
///
/// It is written when a circuit begins, ends or is reconfigured.
#[derive(Debug)]
pub struct HotConfig {
    flags: AtomicU64,
    limits: AtomicLimits,
    /// Held while the limits are written.
    writing: Mutex<()>,
    clock: AtomicClock,
    /// The [`Events`] that calls report.
    events: AtomicU64,
}

impl HotConfig {
    /// Creates the configuration of a circuit that reads `clock` and divides its window into
    /// `parts` parts.
    pub(crate) fn new(clock: Clock, config: &BreakerConfig, parts: u64, instruments: u32) -> Self {
        let limits = Limits { span: WindowSpan::of(config.window, parts), trip: config.trip };
        Self {
            flags: AtomicU64::new(Flags::of(config, instruments, 0).0),
            limits: AtomicLimits::new(&limits),
            writing: Mutex::new(()),
            clock: AtomicClock::new(clock),
            events: AtomicU64::new(0),
        }
    }

    /// Writes a new configuration, the clock first. The caller excludes other writers.
    pub(super) fn write(&self, clock: Clock, limits: &Limits) {
        self.clock.store(clock);
        let _lock = lock(&self.writing);
        self.limits.write(limits);
    }

    /// Replaces the configuration of circuits that keep their state. The window starts empty if its
    /// shape changes. The caller excludes other writers.
    ///
    /// `before` is the current shape of the window, which is divided into `parts` parts.
    #[cfg(feature = "keyed")]
    pub(crate) fn replace(&self, config: &BreakerConfig, before: WindowShape, parts: u64) {
        let (clock, limits) = self.next(config, before, parts);
        self.write(clock, &limits);
        self.write_flags(self.flags().with_config(config));
    }

    /// Returns another configuration for one of the circuits that use this one. The circuit keeps
    /// its state: see [`replace`](Self::replace).
    #[cfg(feature = "keyed")]
    pub(crate) fn branch(&self, config: &BreakerConfig, before: WindowShape, parts: u64) -> Self {
        let (clock, limits) = self.next(config, before, parts);
        Self {
            flags: AtomicU64::new(self.flags().with_config(config).0),
            limits: AtomicLimits::new(&limits),
            writing: Mutex::new(()),
            clock: AtomicClock::new(clock),
            events: AtomicU64::new(0),
        }
    }

    /// Returns the clock and the limits of a configuration that follows this one.
    #[cfg(feature = "keyed")]
    fn next(&self, config: &BreakerConfig, before: WindowShape, parts: u64) -> (Clock, Limits) {
        let (clock, former) = (config.fitted_clock(), self.span());
        let span = if before == config.window {
            former
        } else {
            WindowSpan::after(config.window, former, parts, self.now(), clock.now())
        };
        (clock, Limits { span, trip: config.trip })
    }

    /// Writes the flags of a new configuration, or of the next circuit in the same storage.
    pub(super) fn write_flags(&self, flags: Flags) {
        // Release, with the Acquire of `flags_acquire`: a thread that has read these flags reads a
        // state word that is not older than the first epoch in the flags.
        self.flags.store(flags.0, Ordering::Release);
    }

    /// Returns the events that calls report.
    #[inline]
    pub(crate) fn events(&self) -> Events {
        // Relaxed: a change needs to apply only to calls that happen after it. The observers are
        // behind a lock, under which they change before these bits do.
        Events(self.events.load(Ordering::Relaxed))
    }

    /// Sets whether calls report these events. Returns whether they reported one of them before.
    pub(crate) fn set_events(&self, Events(events): Events, report: bool) -> bool {
        let before = if report {
            self.events.fetch_or(events, Ordering::Relaxed)
        } else {
            self.events.fetch_and(!events, Ordering::Relaxed)
        };
        before & events != 0
    }

    /// Returns the clock of the circuit.
    #[inline]
    pub(crate) fn clock(&self) -> Clock {
        self.clock.load()
    }

    /// Returns the current time of the circuit's clock, in nanoseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Returns all limits.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.load().unwrap_or_else(|| {
            let _lock = lock(&self.writing);
            self.limits.load_locked()
        })
    }

    /// Returns only the window's span.
    #[inline]
    pub(crate) fn span(&self) -> WindowSpan {
        self.limits.span().unwrap_or_else(|| self.limits().span)
    }

    /// Returns only the window's span. `None`: the limits are being written.
    #[inline]
    pub(super) fn try_span(&self) -> Option<WindowSpan> {
        self.limits.span()
    }

    /// Returns the window's span, and the duration of which each shorter call is not slow.
    #[inline]
    pub(super) fn slow_threshold(&self) -> (WindowSpan, u64) {
        self.limits.slow_threshold().unwrap_or_else(|| self.read_locked(AtomicLimits::slow_threshold))
    }

    /// Returns the limits that a failed call needs first.
    #[inline]
    pub(super) fn trip_thresholds(&self) -> TripThresholds {
        self.limits.trip_thresholds().unwrap_or_else(|| self.read_locked(AtomicLimits::trip_thresholds))
    }

    #[cold]
    #[inline(never)]
    fn read_locked<T>(&self, read: impl FnOnce(&AtomicLimits) -> Option<T>) -> T {
        let _lock = lock(&self.writing);
        read(&self.limits).expect("the lock keeps writers out")
    }

    /// Returns the current bucket of a circuit in epoch 0.
    ///
    /// A window that starts in this bucket does not have to clear its cells for the first call.
    pub(crate) fn bucket(&self) -> u64 {
        self.span().buckets.tag(self.now(), 0)
    }

    /// Returns the flags, without any order to other loads.
    #[inline]
    pub(crate) fn flags(&self) -> Flags {
        // Relaxed: a change of the flags needs to apply to the next call only, not to this one. The
        // index of the instruments is written under the circuit's lock, or before any other thread
        // has the circuit.
        Flags(self.flags.load(Ordering::Relaxed))
    }

    /// Returns the flags, before a load of the state word.
    pub(super) fn flags_acquire(&self) -> Flags {
        // Acquire, with the Release of `write_flags`: a state word that is read afterwards is not
        // older than the first epoch in these flags.
        Flags(self.flags.load(Ordering::Acquire))
    }
}

/// The events that the calls of a circuit report, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(u64);

impl Events {
    /// The circuit has an observer of failures.
    pub(crate) const FAILURE_OBSERVER: Self = Self(1);
    /// The next failure sends [`Signal::Failure`](crate::control::Signal::Failure).
    pub(crate) const FAILURE_SIGNAL: Self = Self(2);
    /// The next call that is not admitted sends [`Signal::Demand`](crate::control::Signal::Demand).
    pub(crate) const DEMAND_SIGNAL: Self = Self(4);
    pub(crate) const FAILURES: Self = Self::FAILURE_OBSERVER.and(Self::FAILURE_SIGNAL);
    pub(crate) const SIGNALS: Self = Self::FAILURE_SIGNAL.and(Self::DEMAND_SIGNAL);
    pub(super) const ALL: Self = Self::FAILURES.and(Self::SIGNALS);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns these events without the `other` ones.
    #[cfg(feature = "keyed")]
    #[inline]
    pub(crate) const fn without(self, Self(other): Self) -> Self {
        Self(self.0 & !other)
    }

    /// Returns the bits of these events.
    #[cfg(feature = "keyed")]
    pub(crate) const fn bits(self) -> u8 {
        self.0 as u8
    }

    /// Returns the events of these bits.
    #[cfg(feature = "keyed")]
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits as u64)
    }

    /// Returns whether one of these events is reported.
    #[inline]
    pub(crate) const fn has(self, events: Self) -> bool {
        self.0 & events.0 != 0
    }
}

/// The part of the configuration that a call needs at its begin, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// The flags of storage that no circuit uses.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(config: &BreakerConfig, instruments: u32, first_epoch: u32) -> Self {
        let timed = if config.trip.needs_duration() { TIMED } else { 0 };
        let observing = if config.mode == Mode::ObserveOnly { OBSERVING } else { 0 };
        let counts_failed_retries = if config.count_failed_retries { COUNTS_FAILED_RETRIES } else { 0 };
        Self(
            (u64::from(instruments) << INSTRUMENTS)
                | (u64::from(first_epoch) << FIRST_EPOCH)
                | timed
                | observing
                | counts_failed_retries,
        )
    }

    /// Returns the flags of another configuration of the same circuits.
    #[cfg(feature = "keyed")]
    fn with_config(self, config: &BreakerConfig) -> Self {
        Self::of(config, (self.0 >> INSTRUMENTS) as u32, self.first_epoch() & LAST_EPOCH)
    }

    /// Returns whether calls read the time when they begin.
    #[inline]
    pub(super) const fn is_timed(self) -> bool {
        self.0 & TIMED != 0
    }

    /// Returns whether calls that would be rejected are admitted.
    #[inline]
    pub(super) const fn is_observing(self) -> bool {
        self.0 & OBSERVING != 0
    }

    /// Returns whether the failures of retries count.
    #[inline]
    pub(super) const fn counts_failed_retries(self) -> bool {
        self.0 & COUNTS_FAILED_RETRIES != 0
    }

    /// Returns the epoch in which the circuit began, in the lowest 24 bits. The higher bits have no
    /// meaning.
    pub(super) const fn first_epoch(self) -> u32 {
        (self.0 >> FIRST_EPOCH) as u32
    }

    /// Returns the instruments of the circuit's name. `None`: no circuit uses the storage, or the
    /// feature `metrics` is off.
    pub(crate) fn instruments(self) -> Option<&'static Instruments> {
        instruments((self.0 >> INSTRUMENTS) as u32)
    }
}

/// The number of words of the limits.
///
/// In this order: scale and offset of the buckets; calls of the window; consecutive failures, their
/// span, and failures of the thresholds; `consecutive:32 | minimum:32`; failure rate; slow call
/// threshold; slow call rate; policy for cancelled calls.
const WORDS: usize = 11;

/// The limits that show whether a failed call may open the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TripThresholds {
    pub(crate) span: WindowSpan,
    /// The number of consecutive failures that opens the circuit.
    pub(crate) consecutive_failures: u64,
    /// The time that the consecutive failures must span. 0: they need no time.
    pub(crate) consecutive_failures_span: u64,
    /// The fewest failures in the window that can reach the failure rate.
    pub(crate) failures: u64,
}

impl TripThresholds {
    /// Returns whether a run of consecutive failures may open the circuit.
    #[inline]
    pub(crate) const fn may_open_after(&self, sample: &Sample) -> bool {
        sample.consecutive_failures >= self.consecutive_failures
            && sample.failing_for >= self.consecutive_failures_span
    }
}

/// All limits that are needed to record a call.
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

    /// Writes new limits. The caller excludes other writers.
    pub(crate) fn write(&self, limits: &Limits) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Release fence: a reader that sees one of the stores below, and then passes its Acquire
        // fence, sees the odd sequence number or a later one.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(pack(limits)) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: a reader that loads this sequence number with Acquire sees the new words.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Returns only the window's span. `None`: the limits are being written.
    #[inline]
    pub(crate) fn span(&self) -> Option<WindowSpan> {
        self.read(|words| {
            let [scale, offset, calls, ..] = words;
            unpack_span([scale, offset, calls].map(load))
        })
    }

    /// Returns the limits that a failed call needs first. `None`: the limits are being written.
    #[inline]
    pub(crate) fn trip_thresholds(&self) -> Option<TripThresholds> {
        self.read(|words| {
            let [scale, offset, calls, consecutive_failures, failures_span, failures, ..] = words;
            let span = unpack_span([scale, offset, calls].map(load));
            TripThresholds {
                span,
                consecutive_failures: load(consecutive_failures),
                consecutive_failures_span: load(failures_span),
                failures: load(failures),
            }
        })
    }

    /// Returns the window's span, and the duration of which each shorter call is not slow. `None`:
    /// the limits are being written.
    #[inline]
    pub(crate) fn slow_threshold(&self) -> Option<(WindowSpan, u64)> {
        self.read(|words| {
            let [scale, offset, calls, .., slow_threshold, _, _] = words;
            (unpack_span([scale, offset, calls].map(load)), load(slow_threshold))
        })
    }

    /// Returns all limits. `None`: the limits are being written.
    pub(crate) fn load(&self) -> Option<Limits> {
        self.read(|words| unpack(words.each_ref().map(load)))
    }

    /// Returns all limits. The caller excludes writers.
    pub(crate) fn load_locked(&self) -> Limits {
        unpack(self.words.each_ref().map(load))
    }

    #[inline]
    fn read<T>(&self, read: impl FnOnce(&[AtomicU64; WORDS]) -> T) -> Option<T> {
        // Acquire: the words read below belong to this sequence number or to a later one.
        let sequence = self.sequence.load(Ordering::Acquire);
        let value = read(&self.words);
        // Acquire fence: if one of the words belongs to a later sequence number, the load below
        // sees that the sequence number has changed.
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
    let slow = trip.slow.unwrap_or(SlowCallLimits { threshold: u64::MAX, rate: f64::NAN });
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
        trip.consecutive_failures_span,
        failures,
        counts,
        rate.to_bits(),
        slow.threshold,
        slow_rate,
        cancelled,
    ]
}

fn unpack(
    [scale, offset, calls, _, failures_span, _, counts, rate, slow_threshold, slow_rate, cancelled]: [u64; WORDS],
) -> Limits {
    let number = |bits| Some(f64::from_bits(bits)).filter(|rate| !rate.is_nan());
    Limits {
        span: unpack_span([scale, offset, calls]),
        trip: TripLimits {
            consecutive_failures: (counts >> 32) as u32,
            consecutive_failures_span: failures_span,
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
        (span, any::<(u32, u64, u32)>(), proptest::option::of(0.0..=1.0), slow, cancelled).prop_map(
            |((span, calls), counts, failure_rate, slow, cancelled)| Limits {
                span: WindowSpan { buckets: TimeBuckets::new(span), calls },
                trip: TripLimits {
                    consecutive_failures: counts.0,
                    consecutive_failures_span: counts.1,
                    minimum_calls: counts.2,
                    failure_rate,
                    slow: slow.map(|(threshold, rate)| SlowCallLimits { threshold, rate }),
                    cancelled,
                },
            },
        )
    }

    proptest! {
        #[test]
        fn limits_read_back_equal_limits_written(first in limits(), second in limits()) {
            let limits = AtomicLimits::new(&first);
            prop_assert_eq!(limits.load(), Some(first));
            limits.write(&second);
            prop_assert_eq!(limits.load(), Some(second));
            prop_assert_eq!(limits.load_locked(), second);
            prop_assert_eq!(limits.span(), Some(second.span));
            let (span, threshold) = limits.slow_threshold().unwrap();
            prop_assert_eq!(span, second.span);
            for took in [threshold.checked_sub(1), Some(threshold)].into_iter().flatten() {
                let is_limit = second.trip.slow.is_some() && took == threshold;
                prop_assert_eq!(second.trip.is_slow(Some(took)), is_limit);
            }
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
                consecutive_failures_span: number.into(),
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
        // Two preemptions are enough to interrupt the reader and the writer once each. With eleven
        // words on each side, a model with more preemptions takes long.
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
