//! Counters over a sliding time window, and their striped form.
//!
//! A counter has one cell for each bucket of the window. To a striped counter, many threads add
//! without writing to the same cache line.
//!
//! # Cells
//!
//! A cell is one word, `tag:32 | count:32`. The tag is the number of a time bucket, increased by
//! [`TAGS_PER_EPOCH`] for every epoch. The tag alone determines whether the cell's count is still
//! in the window, and a window never contains two epochs. So adding and summing take the same time
//! after any pause.
//!
//! A tag has 64 bits, and a cell has room for 32 of them: a cell that is not used for 2³² buckets
//! seems new again. An owner that may be idle for that long [clears](BucketRing::clear_expired) its
//! cells.
//!
//! # Threads
//!
//! Each thread has a number (a slot), so that it can own a stripe of a counter. There are twice as
//! many numbers as cores, plus four: enough for the workers of an async runtime and some other
//! threads.
//!
//! A thread acquires a number when it first needs one, and returns it when it ends. The lock of the
//! list orders the writes of a number's former owner before those of the next owner. A thread that
//! gets no number shares a stripe.

use std::cell::Cell;
use std::num::NonZero;
use std::ops::Deref;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::sync::{AtomicU64, Ordering};

/// A value for each thread's number, and one for the threads without a number.
///
/// A value is allocated when a thread first uses it, and is kept. So a call allocates only if it is
/// the first one that a thread, or the former owner of its number, makes here.
#[derive(Debug)]
pub struct PerThread<T> {
    owned: Box<[OnceLock<Box<T>>]>,
    shared: OnceLock<Box<T>>,
}

/// The value that the calling thread uses.
#[derive(Debug)]
pub enum ThreadPart<'a, T> {
    /// No other thread writes to this value, so that a load and a store change a number.
    Owned(&'a T),
    /// Other threads may write to this value, too.
    Shared(&'a T),
}

impl<'a, T> ThreadPart<'a, T> {
    /// Returns the value.
    #[inline]
    pub const fn value(&self) -> &'a T {
        match self {
            Self::Owned(value) | Self::Shared(value) => value,
        }
    }

    /// Adds `count` to the bucket `tag` of a ring in the value.
    ///
    /// A thread whose sum includes the addition also sees the caller's earlier writes.
    #[inline]
    pub fn add<const N: usize>(self, ring: impl FnOnce(&T) -> &BucketRing<N>, tag: u64, count: u32) {
        match self {
            Self::Owned(value) => ring(value).add_exclusive(tag, count),
            Self::Shared(value) => ring(value).add(tag, count),
        }
    }

    /// Replaces a word of the value, unless `new` returns `None`.
    ///
    /// A thread that loads the new word with Acquire also sees the caller's earlier writes.
    #[inline]
    pub fn update(self, word: impl FnOnce(&T) -> &AtomicU64, mut new: impl FnMut(u64) -> Option<u64>) {
        match self {
            Self::Owned(value) => {
                let word = word(value);
                // Relaxed: no other thread writes the word. The lock of the list of numbers orders
                // the writes of successive owners.
                if let Some(new) = new(word.load(Ordering::Relaxed)) {
                    word.store(new, Ordering::Release);
                }
            }
            // Relaxed: a failed exchange is repeated with the value that it found.
            Self::Shared(value) => {
                _ = word(value).fetch_update(Ordering::Release, Ordering::Relaxed, new);
            }
        }
    }
}

impl<T: Default> PerThread<T> {
    /// Creates the places of the values for each number of a thread.
    pub fn new() -> Self {
        Self::with_slots(slot_count())
    }

    /// Creates the places of the values for the numbers below `slots`.
    ///
    /// A thread with a larger number uses the shared value.
    pub fn with_slots(slots: usize) -> Self {
        let parts = Self { owned: (0..slots).map(|_| OnceLock::new()).collect(), shared: OnceLock::new() };
        if cfg!(loom_models) {
            // Loom rejects an atomic whose creation it cannot order before the uses. It knows
            // nothing of std's `OnceLock`, which orders them, so the values are created now.
            parts.places().for_each(|place| _ = place.get_or_init(Box::default));
        }
        parts
    }

    /// Returns the value that the calling thread owns. `None`: see [`part`](Self::part).
    #[inline]
    pub fn own(&self) -> Option<&T> {
        // `UNASSIGNED` and `NONE` are outside of the slice, too, so one comparison is enough.
        self.owned.get(SLOT.get())?.get().map(|value| &**value)
    }

    /// Returns the calling thread's value in every case, also in those that [`own`](Self::own)
    /// leaves out: the thread's first use, and a thread without a number.
    pub fn part(&self) -> ThreadPart<'_, T> {
        self.part_of(thread_slot())
    }

    /// Returns the value of a thread with this number.
    fn part_of(&self, slot: Option<usize>) -> ThreadPart<'_, T> {
        match slot.and_then(|slot| self.owned.get(slot)) {
            Some(place) => ThreadPart::Owned(place.get_or_init(Box::default)),
            None => ThreadPart::Shared(self.shared.get_or_init(Box::default)),
        }
    }

    /// Returns all values. They include the value of every use that happened before.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places().filter_map(OnceLock::get).map(|value| &**value)
    }

    fn places(&self) -> impl Iterator<Item = &OnceLock<Box<T>>> {
        self.owned.iter().chain([&self.shared])
    }
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A counter with one ring for each thread's number, and one ring for the threads without a number.
///
/// An addition is a load and a store in the thread's own ring. A sum reads all rings. It includes
/// every addition that happened before it, in the order that the caller's own synchronisation
/// establishes. It may miss concurrent additions.
#[derive(Debug, Default)]
pub struct StripedCounter(PerThread<PaddedRing>);

impl StripedCounter {
    /// Creates an empty counter with a ring for each number of a thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty counter with `stripes` owned rings.
    ///
    /// A thread with a larger number uses the shared ring.
    pub fn with_stripes(stripes: usize) -> Self {
        Self(PerThread::with_slots(stripes))
    }

    /// Adds `count` to the bucket `tag`.
    #[inline]
    pub fn add(&self, tag: u64, count: u32) {
        match self.0.own() {
            Some(ring) => ring.add_exclusive(tag, count),
            None => self.add_slowly(tag, count),
        }
    }

    #[cold]
    #[inline(never)]
    fn add_slowly(&self, tag: u64, count: u32) {
        self.0.part().add(Deref::deref, tag, count);
    }

    /// Adds `count` to the bucket `tag` if the calling thread has a ring whose cell already belongs
    /// to the bucket. Otherwise, returns `false`.
    #[inline]
    pub fn try_add(&self, tag: u64, count: u32) -> bool {
        self.0.own().is_some_and(|ring| ring.try_add_exclusive(tag, count))
    }

    /// Returns the sum over the window that ends with the bucket `tag`.
    pub fn sum(&self, tag: u64) -> u64 {
        self.0.iter().map(|ring| ring.sum(tag)).sum()
    }

    /// Returns whether the sum over the window that ends with the bucket `tag` is `enough`.
    ///
    /// `enough` must be monotonic: if it accepts a sum, it accepts every larger sum. The remaining
    /// rings are not read once a partial sum is accepted.
    pub fn sum_satisfies(&self, tag: u64, enough: impl Fn(u64) -> bool) -> bool {
        let mut sum = 0;
        let mut rings = self.0.iter();
        loop {
            if enough(sum) {
                return true;
            }
            let Some(ring) = rings.next() else { return false };
            sum += ring.sum(tag);
        }
    }

    /// Returns by how many buckets the newest bucket with a count is older than the bucket `tag`.
    ///
    /// See [`BucketRing::newest_age`](super::BucketRing::newest_age).
    pub fn newest_age(&self, tag: u64) -> Option<u32> {
        self.0.iter().filter_map(|ring| ring.newest_age(tag)).min()
    }

    /// Returns how many owned rings there are places for.
    pub const fn stripes(&self) -> usize {
        self.0.owned.len()
    }

    /// Clears the cells outside the window that ends with the bucket `keep`.
    ///
    /// `None` clears all cells. See
    /// [`BucketRing::clear_expired`](super::BucketRing::clear_expired).
    pub fn clear_expired(&self, keep: Option<u64>) {
        self.0.iter().for_each(|ring| ring.clear_expired(keep));
    }
}

const UNASSIGNED: usize = usize::MAX;
const NONE: usize = usize::MAX - 1;

thread_local! {
    /// The thread's number.
    ///
    /// It has no destructor, so it can be read at any time in a thread's life with one load.
    static SLOT: Cell<usize> = const { Cell::new(UNASSIGNED) };
    /// Returns the number when the thread ends. It is initialised when the number is acquired.
    static LEASE: Lease = const { Lease };
}

struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        // Code that runs on this thread after this drop uses the shared ring.
        let slot = SLOT.replace(NONE);
        free().lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
}

/// Returns how many numbers there are. A slot is less than this.
pub(super) fn slot_count() -> usize {
    static SLOTS: OnceLock<usize> = OnceLock::new();

    // Loom runs all its threads on one thread of the system, so no thread gets a number.
    if cfg!(loom_models) {
        return 0;
    }
    *SLOTS.get_or_init(|| 2 * std::thread::available_parallelism().map_or(4, NonZero::get) + 4)
}

fn free() -> &'static Mutex<Vec<usize>> {
    static FREE: OnceLock<Mutex<Vec<usize>>> = OnceLock::new();
    FREE.get_or_init(|| Mutex::new((0..slot_count()).rev().collect()))
}

/// Returns the calling thread's number if it has one already; otherwise a number that is outside of
/// every slice.
#[inline]
pub(super) fn assigned_slot() -> usize {
    SLOT.get()
}

/// Returns the calling thread's number, which no other living thread has. `None`: all are in use.
pub(super) fn thread_slot() -> Option<usize> {
    if cfg!(loom_models) {
        return None;
    }
    match SLOT.get() {
        UNASSIGNED => take(),
        NONE => None,
        slot => Some(slot),
    }
}

#[cold]
fn take() -> Option<usize> {
    let slot = free().lock().unwrap_or_else(PoisonError::into_inner).pop();
    match slot {
        None => SLOT.set(NONE),
        Some(slot) => {
            SLOT.set(slot);
            if LEASE.try_with(|_| ()).is_err() {
                // The thread is ending, and would not return the number.
                SLOT.set(NONE);
                free().lock().unwrap_or_else(PoisonError::into_inner).push(slot);
                return None;
            }
        }
    }
    slot
}

/// The difference between the tags of two successive epochs.
///
/// - In a tag's lower 32 bits, it is more than a ring holds, so nothing of an earlier epoch is in
///   the window.
/// - In a tag's upper bits, it is more than time can advance them, so epochs are ordered. They wrap
///   around after 2²⁴ epochs.
pub const TAGS_PER_EPOCH: u64 = (1 << 40) + 256;

/// A cell that is newer than the given time by less than this many buckets is of the same epoch.
///
/// The thread that read the clock first may arrive last.
const MAX_AHEAD: i32 = 128;

/// A cell that is newer by less than this many buckets, and at least [`MAX_AHEAD`], is of a later
/// epoch. A cell that is even newer is left over from before the tags wrapped around.
const LATER_EPOCH: i32 = 1 << 20;

/// How many cells the rings of a breaker and of a budget have.
///
/// Loom explores each access of a cell, so rings are smaller in models.
pub const RING_CELLS: usize = if cfg!(loom_models) { 4 } else { 16 };

/// A ring of [`RING_CELLS`] cells, with its own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PaddedRing(BucketRing<RING_CELLS>);

impl Deref for PaddedRing {
    type Target = BucketRing<RING_CELLS>;

    #[inline]
    fn deref(&self) -> &BucketRing<RING_CELLS> {
        &self.0
    }
}

/// A ring of `N` cells. Its sum covers `N` buckets.
#[derive(Debug)]
pub struct BucketRing<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for BucketRing<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> BucketRing<N> {
    /// Adds `count` to the bucket `tag`. Any thread may call it.
    ///
    /// A thread whose sum includes the addition also sees the caller's earlier writes.
    pub fn add(&self, tag: u64, count: u32) {
        let cell = self.cell(tag);
        // Release: publishes earlier additions to other rings. A failed exchange is repeated with
        // the value that it found, so it needs no ordering.
        let _ =
            cell.fetch_update(Ordering::Release, Ordering::Relaxed, |word| added(word, tag as u32, count));
    }

    /// Adds `count` to the bucket `tag` with a load and a store.
    ///
    /// Only the thread that owns the ring may call it. A thread whose sum includes the addition
    /// also sees the caller's earlier writes.
    #[inline]
    pub fn add_exclusive(&self, tag: u64, count: u32) {
        let cell = self.cell(tag);
        // Relaxed: no other thread adds. If another thread clears the cell between the load and the
        // store, it clears only the value that the store replaces.
        if let Some(word) = added(cell.load(Ordering::Relaxed), tag as u32, count) {
            // Release: a thread that reads the cell with Acquire sees the caller's earlier writes.
            cell.store(word, Ordering::Release);
        }
    }

    /// Adds `count` as [`add_exclusive`](Self::add_exclusive) does, if the cell already belongs to
    /// the bucket `tag`. Otherwise, returns `false`.
    #[inline]
    pub fn try_add_exclusive(&self, tag: u64, count: u32) -> bool {
        let cell = self.cell(tag);
        // The orderings are those of `add_exclusive`.
        let (own_tag, own_count) = unpack(cell.load(Ordering::Relaxed));
        let belongs = own_tag == tag as u32;
        if belongs {
            cell.store(pack(own_tag, own_count.saturating_add(count)), Ordering::Release);
        }
        belongs
    }

    /// Returns the sum over the window that ends with the bucket `tag`.
    ///
    /// Slightly newer cells are included.
    pub fn sum(&self, tag: u64) -> u64 {
        self.sum_last(tag, N as u32)
    }

    /// Returns the sum over the last `span` buckets up to the bucket `tag`.
    ///
    /// Slightly newer cells are included.
    pub fn sum_last(&self, tag: u64, span: u32) -> u64 {
        // Acquire: a ring that is read afterwards contains what was added to it before the
        // additions that are seen here.
        self.0.iter().map(|cell| u64::from(counted(cell.load(Ordering::Acquire), tag as u32, span))).sum()
    }

    /// Returns by how many buckets the newest bucket with a count is older than the bucket `tag`,
    /// with which the window ends. `None`: the window is empty.
    ///
    /// A slightly newer bucket has the age 0.
    pub fn newest_age(&self, tag: u64) -> Option<u32> {
        // Acquire: as in `sum_last`.
        let words = self.0.iter().map(|cell| cell.load(Ordering::Acquire));
        let counted = words.filter(|word| counted(*word, tag as u32, N as u32) > 0);
        counted.map(|word| age(unpack(word).0, tag as u32).max(0).cast_unsigned()).min()
    }

    /// Clears the cells outside the window that ends with the bucket `keep`.
    ///
    /// `None` clears all cells.
    ///
    /// Counts that other threads add concurrently are kept.
    pub fn clear_expired(&self, keep: Option<u64>) {
        for cell in &self.0 {
            // Relaxed: the caller publishes the cleared cells.
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let kept = word == 0 || keep.is_some_and(|tag| counted(word, tag as u32, N as u32) > 0);
                (!kept).then_some(0)
            });
        }
    }

    #[inline]
    fn cell(&self, tag: u64) -> &AtomicU64 {
        &self.0[(tag % N as u64) as usize]
    }
}

const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

const fn pack(tag: u32, count: u32) -> u64 {
    ((tag as u64) << 32) | count as u64
}

/// Returns by how many buckets `tag` is older than `now`. It is negative for a newer tag.
const fn age(tag: u32, now: u32) -> i32 {
    now.wrapping_sub(tag).cast_signed()
}

/// What an addition does with the count of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellUpdate {
    /// The count is added to the cell's count.
    Add,
    /// The cell is of a later epoch: the count is discarded.
    Discard,
    /// The cell has expired: the count replaces the cell's count.
    Reset,
}

impl CellUpdate {
    /// Decides by how many buckets the cell is older than the addition.
    ///
    /// `empty`: the cell has never been used, so its tag has no meaning.
    #[inline]
    pub const fn decide(age: i32, empty: bool) -> Self {
        if age == 0 || (age < 0 && age > -MAX_AHEAD && !empty) {
            Self::Add
        } else if age < 0 && age > -LATER_EPOCH && !empty {
            Self::Discard
        } else {
            Self::Reset
        }
    }
}

/// Returns whether a cell is in the window of `span` buckets.
///
/// `age` is by how many buckets the cell is older than the window's last bucket. It may be slightly
/// negative.
#[inline]
pub const fn is_in_window(age: i32, span: u32) -> bool {
    // Checks `-MAX_AHEAD < age < span` with one comparison.
    let shifted = age.wrapping_add(MAX_AHEAD - 1).cast_unsigned();
    shifted < span + (MAX_AHEAD - 1).cast_unsigned()
}

/// Returns the cell after `more` was added at `now`.
///
/// `None`: the cell is of a later epoch and does not change.
#[inline]
fn added(word: u64, now: u32, more: u32) -> Option<u64> {
    let (tag, count) = unpack(word);
    if tag == now {
        Some(pack(tag, count.saturating_add(more)))
    } else {
        added_to_other_bucket(word, now, more)
    }
}

/// Called once for each bucket, and when two threads read the clock at the edge of a bucket.
#[cold]
fn added_to_other_bucket(word: u64, now: u32, more: u32) -> Option<u64> {
    let (tag, count) = unpack(word);
    match CellUpdate::decide(age(tag, now), count == 0) {
        CellUpdate::Add => Some(pack(tag, count.saturating_add(more))),
        CellUpdate::Discard => None,
        CellUpdate::Reset => Some(pack(now, more)),
    }
}

/// Returns the cell's count, or 0 if the cell is not in the window.
///
/// The window consists of `span` buckets and ends at `now`.
const fn counted(word: u64, now: u32, span: u32) -> u32 {
    let (tag, count) = unpack(word);
    // This is `is_in_window`, with the distance from the first bucket: one instruction less.
    let first = now.wrapping_sub(span - 1);
    if tag.wrapping_sub(first) < span + (MAX_AHEAD - 1).cast_unsigned() { count } else { 0 }
}

/// The division of time into buckets.
///
/// With [`new`](Self::new), fifteen buckets are as long as the window. A ring has one bucket more,
/// which is being filled. So a ring covers at least the window, and at most one bucket more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBuckets {
    /// 2⁶⁴ divided by a bucket's length, rounded up.
    ///
    /// A bucket's number is then computed by a multiplication instead of a division.
    scale: u64,
    /// The number that is added to every tag.
    offset: u64,
}

impl TimeBuckets {
    /// Divides a window of `span` nanoseconds into the buckets of a [`PaddedRing`].
    pub const fn new(span: u64) -> Self {
        Self::with_count(span, RING_CELLS as u64 - 1)
    }

    /// Divides a window of `span` nanoseconds into `parts` buckets.
    pub const fn with_count(span: u64, parts: u64) -> Self {
        let bucket = span.div_ceil(parts);
        let bucket = if bucket < 2 { 2 } else { bucket };
        Self { scale: u64::MAX / bucket + 1, offset: 0 }
    }

    /// Returns the same buckets with tags that continue after those of `others`.
    ///
    /// They are used from `now` on, in the rings in which `others` were used until `others_now`.
    /// The two times may be of different clocks. The rings start empty.
    pub const fn continue_after(self, others: Self, others_now: u64, now: u64) -> Self {
        let offset = others.tag(others_now, 1).wrapping_sub(Self { offset: 0, ..self }.tag(now, 0));
        Self { offset, ..self }
    }

    /// Returns the tag of the bucket at a time in an epoch.
    #[inline]
    pub const fn tag(&self, now: u64, epoch: u32) -> u64 {
        let bucket = ((now as u128 * self.scale as u128) >> 64) as u64;
        bucket.wrapping_add((epoch as u64).wrapping_mul(TAGS_PER_EPOCH)).wrapping_add(self.offset)
    }

    /// Returns the time at which the bucket began that is `age` buckets older than the one at the
    /// time `now`.
    ///
    /// A negative age means a bucket in the future, of a clock that has run back.
    pub fn start(&self, now: u64, age: i64) -> u64 {
        let number = ((u128::from(now) * u128::from(self.scale)) >> 64) as u64;
        // The first time whose product with `scale` reaches the number.
        (u128::from(number.saturating_add_signed(-age)) << 64).div_ceil(self.scale.into()) as u64
    }

    /// Returns the buckets as two words, to be stored in atomics.
    pub const fn to_words(self) -> [u64; 2] {
        [self.scale, self.offset]
    }

    /// Returns the buckets of two words from [`to_words`](Self::to_words).
    #[inline]
    pub const fn from_words([scale, offset]: [u64; 2]) -> Self {
        Self { scale, offset }
    }
}

#[cfg(all(test, not(loom_models)))]
mod striped_tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn thread_part_is_owned_once_and_shared_without_number() {
        let parts: PerThread<AtomicU64> = PerThread::new();
        assert_eq!(parts.iter().count(), 0, "nothing is allocated before the first use");
        // More threads than numbers, and all run at the same time.
        let threads = slot_count() + 3;
        let barrier = Barrier::new(threads);
        let add_one_exclusive = |number: &AtomicU64| {
            number.store(number.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    thread_slot();
                    barrier.wait();
                    for _ in 0..10_000 {
                        match parts.own().map_or_else(|| parts.part(), ThreadPart::Owned) {
                            ThreadPart::Owned(number) => add_one_exclusive(number),
                            ThreadPart::Shared(number) => _ = number.fetch_add(1, Ordering::Relaxed),
                        }
                    }
                });
            }
        });
        let total: u64 = parts.iter().map(|number| number.load(Ordering::Relaxed)).sum();
        assert_eq!(total, threads as u64 * 10_000);
    }

    #[test]
    fn striped_concurrent_adds_are_all_counted() {
        let striped = StripedCounter::with_stripes(4);
        thread::scope(|scope| {
            for thread in 0..8 {
                let striped = &striped;
                scope.spawn(move || {
                    // Four threads own a stripe, four share.
                    let slot = (thread < 4).then_some(thread);
                    for _ in 0..10_000 {
                        striped.0.part_of(slot).add(Deref::deref, 7, 1);
                    }
                });
            }
        });
        assert_eq!(striped.sum(7), 80_000);
        assert!(striped.sum_satisfies(7, |sum| sum == 80_000) && striped.sum_satisfies(7, |_| true));
        assert!(
            !striped.sum_satisfies(7, |sum| sum > 80_000) && !striped.sum_satisfies(8 + 16, |sum| sum > 0)
        );
    }
}

#[cfg(all(test, loom_models))]
mod striped_models {
    use loom::thread;

    use super::*;
    use loom::sync::Arc;

    /// One thread uses the shared ring, one owns a stripe.
    ///
    /// The thread that finishes last sees every addition.
    #[test]
    fn loom_striped_sum_sees_earlier_adds() {
        loom::model(|| {
            let striped = Arc::new((StripedCounter::with_stripes(1), AtomicU64::new(0)));
            let add = |slot: Option<usize>| {
                let striped = Arc::clone(&striped);
                thread::spawn(move || {
                    striped.0.0.part_of(slot).add(Deref::deref, 7, 1);
                    striped.1.fetch_add(1, Ordering::AcqRel) == 1
                })
            };
            let shared = add(None);
            let owner = add(Some(0));
            let last = [shared.join().unwrap(), owner.join().unwrap()];
            assert_eq!(last.iter().filter(|last| **last).count(), 1);
            assert_eq!(striped.0.sum(7), 2);
        });
    }

    /// The breaker moves its window before it counts a call. A reader sums again if the window has
    /// moved.
    ///
    /// The main thread adds, because loom explores its steps first: loom does not explore that a
    /// load precedes the store of a thread that loads the same cell in between.
    #[test]
    fn loom_striped_sum_with_addition_sees_earlier_writes() {
        for slot in [None, Some(0)] {
            loom::model(move || {
                let striped = Arc::new((StripedCounter::with_stripes(1), AtomicU64::new(0)));
                let clone = Arc::clone(&striped);
                let reader = thread::spawn(move || {
                    if clone.0.sum(7) > 0 {
                        assert_eq!(clone.1.load(Ordering::Relaxed), 7);
                    }
                });
                striped.1.store(7, Ordering::Relaxed);
                striped.0.0.part_of(slot).add(Deref::deref, 7, 1);
                reader.join().unwrap();
            });
        }
    }

    #[test]
    fn loom_striped_bucket_replaced_keeps_concurrent_add() {
        loom::model(|| {
            let striped = Arc::new(StripedCounter::with_stripes(0));
            striped.0.part_of(None).add(Deref::deref, 3, 9);
            let clone = Arc::clone(&striped);
            let other = thread::spawn(move || clone.0.part_of(None).add(Deref::deref, 19, 1));
            striped.0.part_of(None).add(Deref::deref, 19, 1);
            other.join().unwrap();
            assert_eq!(striped.sum(19), 2);
        });
    }
}

#[cfg(all(test, not(loom_models)))]
mod thread_slot_tests {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;

    #[test]
    fn thread_slot_is_unique_and_returned_at_thread_exit() {
        let mut rounds_with_numbers = 0;
        // The threads of other tests may have all numbers for a while.
        for _ in 0..10_000 {
            let threads = slot_count() + 5;
            let barrier = Barrier::new(threads);
            let slots: Vec<Option<usize>> = thread::scope(|scope| {
                let handles: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let slot = thread_slot();
                            barrier.wait();
                            assert_eq!(slot, thread_slot(), "a thread keeps its number");
                            slot
                        })
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).collect()
            });
            let owned: Vec<usize> = slots.into_iter().flatten().collect();
            assert_eq!(owned.len(), owned.iter().collect::<HashSet<_>>().len());
            assert!(owned.iter().all(|slot| *slot < slot_count()));
            rounds_with_numbers += usize::from(!owned.is_empty());
            if rounds_with_numbers == 20 {
                return;
            }
        }
        panic!("ended threads have not returned their numbers");
    }

    /// Destructors of thread-locals run in an order that std does not document. One of the two runs
    /// after the number was returned, so it must not use the number.
    #[test]
    fn thread_slot_is_not_used_after_its_return() {
        struct SendAtExit(Sender<Option<usize>>);

        impl Drop for SendAtExit {
            fn drop(&mut self) {
                self.0.send(thread_slot()).unwrap();
            }
        }

        thread_local! {
            static FIRST: RefCell<Option<SendAtExit>> = const { RefCell::new(None) };
            static SECOND: RefCell<Option<SendAtExit>> = const { RefCell::new(None) };
        }

        let (sender, slots) = channel();
        // More threads than numbers, one after the other.
        for _ in 0..2 * slot_count() {
            let [first, second] = [sender.clone(), sender.clone()].map(SendAtExit);
            let run = || {
                FIRST.set(Some(first));
                thread_slot();
                SECOND.set(Some(second));
            };
            thread::spawn(run).join().unwrap();
            let at_exit: Vec<_> = slots.try_iter().collect();
            assert_eq!(at_exit.len(), 2);
            assert!(at_exit.contains(&None), "{at_exit:?}");
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod ring_tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ring_sum_covers_sixteen_buckets() {
        let ring = PaddedRing::default();
        for tag in 100..120 {
            ring.add(tag, 1);
        }
        assert_eq!(ring.sum(119), 16);
        assert_eq!(ring.sum(120), 15);
        assert_eq!(ring.sum(134), 1);
        assert_eq!(ring.sum(135), 0);
    }

    #[test]
    fn ring_new_epoch_starts_empty_and_ignores_earlier_epoch() {
        let ring = PaddedRing::default();
        ring.add(1_000, 5);
        let next = 1_000 + TAGS_PER_EPOCH;
        assert_eq!(ring.sum(next), 0);
        ring.add(next, 1);
        ring.add(1_000, 7);
        assert_eq!(ring.sum(next), 1, "an addition to the earlier epoch is discarded");
    }

    #[test]
    fn ring_add_with_older_tag_counts_in_newest_bucket() {
        let ring = PaddedRing::default();
        ring.add(116, 1);
        ring.add(100, 1);
        assert_eq!(ring.sum(116), 2);
        assert_eq!(ring.sum(100), 2, "a slightly newer cell is included");
    }

    #[test]
    fn ring_tags_wrap_at_32_bits() {
        let ring = PaddedRing::default();
        let edge = 1 << 32;
        ring.add(edge - 1, 1);
        ring.add(edge, 1);
        assert_eq!(ring.sum(edge), 2);
        assert_eq!(ring.sum(edge + 15), 1);
        assert_eq!(PaddedRing::default().sum(1 << 31), 0);
        let fresh = PaddedRing::default();
        fresh.add(3 << 30, 1);
        assert_eq!(fresh.sum(3 << 30), 1, "an empty cell accepts any tag");
    }

    #[test]
    fn ring_clear_expired_clears_cells_outside_window() {
        let ring = PaddedRing::default();
        (100..116).for_each(|tag| ring.add(tag, 1));
        ring.clear_expired(Some(119));
        assert_eq!((ring.sum(115), ring.sum(119)), (12, 12));
        // Cells that are not cleared count again when the tags wrap around.
        let wrap = 1 << 32;
        assert_eq!(ring.sum(wrap + 119), 12);
        ring.clear_expired(None);
        assert_eq!(ring.sum(wrap + 119), 0);
    }

    #[test]
    fn ring_count_saturates() {
        let ring = PaddedRing::default();
        ring.add(1, u32::MAX);
        ring.add(1, 1);
        ring.add_exclusive(1, 1);
        assert_eq!(ring.sum(1), u64::from(u32::MAX));
    }

    proptest! {
        /// Compares the ring with a map of all additions, for random steps of time and random
        /// epochs.
        #[test]
        fn ring_sum_matches_naive_model(steps in proptest::collection::vec((0_u32..40, 0_u32..3, prop::bool::weighted(0.1)), 1..200), start in 0..u64::MAX / 2) {
            let ring = PaddedRing::default();
            let mut naive: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            let (mut epoch, mut bucket) = (0_u64, 0_u64);
            for (forward, count, next_epoch) in steps {
                bucket += u64::from(forward);
                epoch += u64::from(next_epoch);
                let tag = start + bucket + epoch * TAGS_PER_EPOCH;
                if forward % 2 == 0 {
                    ring.add(tag, count);
                } else if !ring.try_add_exclusive(tag, count) {
                    ring.add_exclusive(tag, count);
                }
                *naive.entry((epoch, bucket)).or_default() += u64::from(count);
                let expected: u64 = naive
                    .iter()
                    .filter(|((of, at), _)| *of == epoch && bucket - at < 16)
                    .map(|(_, count)| count)
                    .sum();
                prop_assert_eq!(ring.sum(tag), expected);
            }
        }
    }
}

#[cfg(test)]
mod time_buckets_tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bucket_is_a_fifteenth_of_the_window() {
        let buckets = TimeBuckets::new(60_000_000_000);
        assert_eq!((buckets.tag(0, 0), buckets.tag(3_999_999_999, 0)), (0, 0));
        assert_eq!((buckets.tag(4_000_000_000, 0), buckets.tag(60_000_000_000, 0)), (1, 15));
        assert_eq!(buckets.tag(4_000_000_000, 3), 1 + 3 * TAGS_PER_EPOCH);
    }

    #[test]
    fn bucket_change_starts_a_new_epoch() {
        for (old, new, times) in [
            (60, 600, [10_000_000, 10_000_000]),
            (600, 60, [10_000_000, 10_000_000]),
            (1, 1_000_000, [7, 7]),
            (60, 60, [10_000_000, 0]),
            (60, 1, [0, 10_000_000]),
        ] {
            let [old, new] = [old, new].map(|seconds| TimeBuckets::new(seconds * 1_000_000_000));
            let [old_now, now] = times.map(|seconds| seconds * 1_000_000_000);
            let after = new.continue_after(old, old_now, now);
            assert_eq!(after.tag(now, 5), old.tag(old_now, 6));
            assert_eq!(TimeBuckets::from_words(after.to_words()), after);
            assert_eq!(old.continue_after(after, now, old_now).tag(old_now, 5), old.tag(old_now, 7));
        }
    }

    proptest! {
        #[test]
        fn bucket_tags_are_monotonic_and_cover_window(span in 1..u64::MAX / 4, now in 0..u64::MAX / 4, later in 0..u64::MAX / 4) {
            let buckets = TimeBuckets::new(span);
            let age = buckets.tag(now + later, 0) - buckets.tag(now, 0);
            prop_assert!(later > span || age <= 16, "{age} buckets in a window");
        }
    }
}
