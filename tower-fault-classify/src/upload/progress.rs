//! How the body of the request that is under way gets on with its source.
//!
//! A classifier gets the outcome of a call, and nothing of its request. An outer layer that tracks
//! the request's body therefore notes its progress on the thread while it polls the call, and while
//! it drops it. Every classifier that judges the outcome runs within that poll. A response's body
//! that is judged later keeps the tracked source, and notes its progress when it is judged.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http_body::Body;

use crate::fault::{Fault, Kind, Origin, Retryable};
use crate::table;

/// How a request's body gets on with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is read as it comes, or complete, or not tracked.
    Moving,
    Stalled,
    Failed,
}

pub(super) const MOVING: u8 = 0;
pub(super) const STALLED: u8 = 1;
pub(super) const FAILED: u8 = 2;

/// How a body gets on with its source. `None`: it is empty, so that there is nothing to wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct UploadSource(Option<Arc<AtomicU8>>);

impl UploadSource {
    const UNTRACKED: Self = Self(None);

    /// Allocates, unless the body is empty.
    pub(super) fn of(body: &impl Body) -> Self {
        Self((!body.is_end_stream()).then(Arc::default))
    }

    fn progress(&self) -> Progress {
        // Relaxed: it guards no other memory, and a reader that sees an old value misjudges one
        // call.
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

/// Notes the progress of a request's body until it is dropped, and then restores the note before.
#[derive(Debug)]
#[must_use]
pub struct UploadGuard {
    before: Progress,
}

impl UploadGuard {
    /// Sets whether the body of the request that is about to be polled waits.
    #[inline]
    pub fn enter(waits: bool) -> Self {
        Self::note(if waits { Progress::Stalled } else { Progress::Moving })
    }

    /// Sets how the body of `source` gets on.
    #[inline]
    pub(crate) fn of(source: &UploadSource) -> Self {
        Self::note(source.progress())
    }

    fn note(progress: Progress) -> Self {
        Self { before: PROGRESS.replace(progress) }
    }

    /// Whether the body of the request waits, or has failed, whose call is polled or dropped on
    /// this thread.
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

/// Notes the source of a request's body, and its progress, until it is dropped.
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

/// Exchanges a source with the one of this thread.
fn swap_source(source: &mut UploadSource) {
    // A thread that ends has none any more, and keeps none.
    let _ = SOURCE.try_with(|noted| *source = noted.replace(mem::take(source)));
}

/// The source of the body of the request that is polled on this thread, for an outcome that is
/// judged later.
pub(crate) fn current_source() -> UploadSource {
    let of = |noted: &Cell<UploadSource>| {
        let source = noted.take();
        noted.set(source.clone());
        source
    };
    SOURCE.try_with(of).unwrap_or_default()
}

/// Whether the request's body has failed, so that any error of its call comes of that.
#[inline]
pub(crate) fn upload_failed() -> bool {
    PROGRESS.get() == Progress::Failed
}

/// The same fault; a timeout of a request that may have been processed becomes one of the caller
/// while the request's body waits.
#[inline]
pub(crate) fn excuse_stalled_timeout(fault: Fault) -> Fault {
    let processed = !matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused);
    if fault.kind() == Kind::Timeout && processed && is_stalled() { table::UPLOAD_STALLED } else { fault }
}

/// The same fault; a connection that is lost before the response is not charged to the server while
/// the request's body waits. Many servers end a request so that takes too long to come.
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
    fn upload_inner_note_hides_outer_until_dropped() {
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
            assert_eq!(excuse_stalled_timeout(fault), fault, "the body was not asked for");
        }
        drop(outer);
        assert_eq!(excuse_stalled_timeout(timeout), timeout);
        assert_eq!(excuse_stalled_disconnect(table::io::BROKEN), table::io::BROKEN);
    }

    #[test]
    fn upload_note_ends_when_poll_panics() {
        let panicked = std::panic::catch_unwind(|| {
            let _note = UploadGuard::enter(true);
            panic!("as it is meant to");
        });
        assert!(panicked.is_err() && !UploadGuard::is_stalled_or_failed());
    }
}
