//! The progress of the current request's body.
//!
//! A classifier gets the outcome of a call, but not its request. So an outer layer that tracks the
//! request's body stores the body's progress in a thread-local variable while it polls the call,
//! and while it drops it. Every classifier of the outcome runs within that poll.
//!
//! A response's body that is classified later keeps the tracked source, and sets the progress again
//! when it is classified.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http_body::Body;

use crate::fault::{Fault, Kind, Origin, Retryable};
use crate::table;

/// The progress of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The body is being read, complete, or not tracked.
    Moving,
    /// The body waits for its source.
    Stalled,
    /// The body has returned an error.
    Failed,
}

pub(super) const MOVING: u8 = 0;
pub(super) const STALLED: u8 = 1;
pub(super) const FAILED: u8 = 2;

/// The shared progress of a body. `None`: the body is empty, so there is nothing to wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct UploadSource(Option<Arc<AtomicU8>>);

impl UploadSource {
    const UNTRACKED: Self = Self(None);

    /// Creates the progress of a body. Allocates, unless the body is empty.
    pub(super) fn of(body: &impl Body) -> Self {
        Self((!body.is_end_stream()).then(Arc::default))
    }

    fn progress(&self) -> Progress {
        // Relaxed: the value guards no other memory. A reader that sees an old value misclassifies
        // one call.
        match self.0.as_ref().map(|progress| progress.load(Ordering::Relaxed)) {
            Some(STALLED) => Progress::Stalled,
            Some(FAILED) => Progress::Failed,
            _ => Progress::Moving,
        }
    }

    pub(super) fn note(&self, progress: u8) {
        if let Some(noted) = &self.0
            && noted.load(Ordering::Relaxed) != progress
        {
            noted.store(progress, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static PROGRESS: Cell<Progress> = const { Cell::new(Progress::Moving) };
    static SOURCE: Cell<UploadSource> = const { Cell::new(UploadSource::UNTRACKED) };
}

/// Sets the progress of the current request's body on this thread until the guard is dropped.
///
/// The drop restores the previous progress.
#[derive(Debug)]
#[must_use]
pub struct UploadGuard {
    before: Progress,
}

impl UploadGuard {
    /// Sets whether the body of the request that is about to be polled waits for its source.
    #[inline]
    pub fn enter(waits: bool) -> Self {
        Self::note(if waits { Progress::Stalled } else { Progress::Moving })
    }

    /// Sets the progress to the progress of `source`.
    #[inline]
    pub(crate) fn of(source: &UploadSource) -> Self {
        Self::note(source.progress())
    }

    /// Marks the body of the current request as failed.
    #[cfg(test)]
    pub(crate) fn failed() -> Self {
        Self::note(Progress::Failed)
    }

    fn note(progress: Progress) -> Self {
        Self { before: PROGRESS.replace(progress) }
    }

    /// Returns whether the current request's body waits for its source, or has failed.
    ///
    /// The current request is that of the call that is polled or dropped on this thread.
    #[inline]
    pub fn is_stalled_or_failed() -> bool {
        PROGRESS.get() != Progress::Moving
    }
}

impl Drop for UploadGuard {
    #[inline]
    fn drop(&mut self) {
        PROGRESS.set(self.before);
    }
}

/// Sets the source of the current request's body, and its progress, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct CurrentUpload<'a> {
    source: &'a mut UploadSource,
    _progress: UploadGuard,
}

impl<'a> CurrentUpload<'a> {
    pub(super) fn enter(source: &'a mut UploadSource) -> Self {
        let progress = UploadGuard::of(source);
        swap_source(source);
        Self { source, _progress: progress }
    }
}

impl Drop for CurrentUpload<'_> {
    fn drop(&mut self) {
        swap_source(self.source);
    }
}

/// Swaps a source with the source of this thread.
fn swap_source(source: &mut UploadSource) {
    // A thread that is ending has no thread-local source any more: then `source` stays.
    let _ = SOURCE.try_with(|noted| *source = noted.replace(mem::take(source)));
}

/// Returns the source of the current request's body, for an outcome that is classified later.
pub(crate) fn current_source() -> UploadSource {
    let of = |noted: &Cell<UploadSource>| {
        let source = noted.take();
        noted.set(source.clone());
        source
    };
    SOURCE.try_with(of).unwrap_or_default()
}

/// Returns whether the current request's body has failed. Any error of the call follows from that.
#[inline]
pub(crate) fn upload_failed() -> bool {
    PROGRESS.get() == Progress::Failed
}

/// Returns the fault, or the caller's timeout if the request's body waits for its source.
///
/// It replaces only a timeout of a request that may have been processed.
#[inline]
pub(crate) fn excuse_stalled_timeout(fault: Fault) -> Fault {
    let processed = !matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused);
    if fault.kind() == Kind::Timeout && processed && is_stalled() { table::UPLOAD_STALLED } else { fault }
}

/// Returns the fault, or a neutral disconnect if the request's body waits for its source.
///
/// It replaces only a connection that is lost before the response. Many servers close the
/// connection of a request that takes too long to arrive.
#[inline]
pub(crate) fn excuse_stalled_disconnect(fault: Fault) -> Fault {
    let lost = fault.kind() == Kind::Transient && fault.origin() == Origin::Transport;
    if lost && is_stalled() { table::UPLOAD_DISCONNECTED } else { fault }
}

#[inline]
fn is_stalled() -> bool {
    PROGRESS.get() == Progress::Stalled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_guard_inner_hides_outer_until_dropped() {
        let timeout = table::io::TIMED_OUT;
        assert_eq!(excuse_stalled_timeout(timeout), timeout);
        let outer = UploadGuard::enter(true);
        assert_eq!(excuse_stalled_timeout(timeout), table::UPLOAD_STALLED);
        let inner = UploadGuard::enter(false);
        assert_eq!(excuse_stalled_timeout(timeout), timeout);
        drop(inner);
        assert_eq!(excuse_stalled_timeout(timeout), table::UPLOAD_STALLED);
        assert_eq!(
            excuse_stalled_timeout(table::io::BROKEN),
            table::io::BROKEN,
            "only timeouts are excused here"
        );
        assert_eq!(excuse_stalled_disconnect(table::io::BROKEN), table::UPLOAD_DISCONNECTED);
        for other in [table::io::REFUSED, table::CONNECTION_TASK_GONE, table::UNKNOWN] {
            assert_eq!(excuse_stalled_disconnect(other), other);
        }
        for unprocessed in [Retryable::Unsent, Retryable::Refused] {
            let fault = timeout.with_retryable(unprocessed);
            assert_eq!(excuse_stalled_timeout(fault), fault, "the body was not read");
        }
        drop(outer);
        assert_eq!(excuse_stalled_timeout(timeout), timeout);
        assert_eq!(excuse_stalled_disconnect(table::io::BROKEN), table::io::BROKEN);
    }

    #[test]
    fn upload_guard_panic_restores_progress() {
        let panicked = std::panic::catch_unwind(|| {
            let _guard = UploadGuard::enter(true);
            panic!("expected panic");
        });
        assert!(panicked.is_err() && !UploadGuard::is_stalled_or_failed());
    }
}
