//! Which circuits can be evicted, and which first.

use tower_fault_classify::__internals::sync::{self, Ordering, fence, lock};

use super::counts::CELLS;
use super::{KeyedStore, SharedCore};
use crate::circuit::{Core, StateWord};
use crate::machine::Counts;

/// The information that an eviction would lose. The lowest cost is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EvictionCost {
    /// Nothing, because one of these is true:
    ///
    /// - The circuit is closed with an empty window, no failure since its last success, and no
    ///   cancelled call since its last completed call.
    /// - It has been open for twice its last open duration.
    /// - It has been half-open for as long as its last open duration, and the configured open time.
    /// - It was forced, and the circuit that it would be now is idle.
    Idle,
    /// The circuit is closed. Its window holds this number of calls, all fast and successful.
    Successes(u64),
    /// The circuit is closed, and none of its failed, slow and cancelled calls is recent.
    ///
    /// The number is the larger of two: those calls in its window, and the failures since its last
    /// success. It is at least 1 if calls were cancelled since the last completed call.
    Failures(u64),
}

/// Returns the cost of evicting the circuit now. `None`: the circuit must be kept, or it has more
/// owners than the map's own `holders`: a call or a handle. The caller prevents calls from finding
/// the circuit meanwhile, or checks the cost again.
pub(crate) fn eviction_cost<K>(core: &SharedCore<K>, holders: usize) -> Option<EvictionCost> {
    if sync::Arc::strong_count(core) != holders {
        return None;
    }
    // Each owner released the circuit with Release, and the count was read afterwards: the outcome
    // of its call is visible below.
    fence(Ordering::Acquire);
    core.eviction_cost()
}

impl<K> Core<KeyedStore<K>> {
    /// Returns whether evicting the circuit would lose nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.eviction_cost() == Some(EvictionCost::Idle)
    }

    /// Returns the cost of evicting the circuit. `None`: it must be kept, because one of these is
    /// true:
    ///
    /// - it has been open for less than twice its last open duration;
    /// - it has been half-open for less than its last open duration, or the configured open time;
    /// - it is forced, and its override has not ended by itself, or it would be half-open for less
    ///   than this time;
    /// - it is disabled, or open until it is reset;
    /// - it is in a slow start by time, or in one by successes that has admitted a call within the
    ///   last lease;
    /// - a call failed, was slow or was cancelled in the current tenth of the window or in the
    ///   tenth before.
    fn eviction_cost(&self) -> Option<EvictionCost> {
        let KeyedStore { state_word, newest, lazy, .. } = self.store();
        let now = self.hot_config().now();
        // Acquire: sees everything from before this epoch began.
        let word = StateWord::from_word(state_word.load(Ordering::Acquire));
        let lazy = lazy.get();
        if !word.is_closed() {
            return lazy.filter(|lazy| lock(&lazy.locked).is_idle(now)).map(|_| EvictionCost::Idle);
        }
        if !word.admits_all() && lazy.is_some_and(|lazy| lock(&lazy.locked).is_in_slow_start(now)) {
            return None;
        }
        let bad_calls = |counts: Counts| counts.failures + counts.slow + counts.cancelled;
        // `None`: the window is empty.
        let bucket = newest.current(self.span().buckets.tag(now, word.epoch()));
        let sums_of = |span| bucket.map_or_else(Counts::default, |tag| self.store().sums_of(tag, span));
        let counts = sums_of(CELLS as u32);
        // The calls in the state word are not limited to the window: a key may be called less than
        // once per window.
        match bad_calls(counts).max(word.consecutive_failures()).max(word.has_cancelled().into()) {
            0 if counts.calls == 0 => Some(EvictionCost::Idle),
            0 => Some(EvictionCost::Successes(counts.calls)),
            number => (bad_calls(sums_of(2)) == 0).then_some(EvictionCost::Failures(number)),
        }
    }
}
