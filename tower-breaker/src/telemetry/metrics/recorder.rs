//! Whether a recorder is installed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether a recorder has been found. It stays `true`, because a recorder is never uninstalled.
static IS_FOUND: AtomicBool = AtomicBool::new(false);

/// Returns whether a recorder has been found. Every call reads this.
#[inline]
pub(crate) fn is_recording() -> bool {
    // Relaxed: a recorder that is found later applies to later calls.
    IS_FOUND.load(Ordering::Relaxed)
}

/// Looks for a recorder, and returns whether there is one. Runs no code of the recorder.
pub(crate) fn find_recorder() -> bool {
    let is_installed = has_recorder();
    if is_installed && !is_recording() {
        IS_FOUND.store(true, Ordering::Relaxed);
    }
    is_installed
}

/// Looks for a recorder, unless one has been found. Runs no code of the recorder, so it may run
/// under a lock.
pub(crate) fn recheck_recorder() {
    if !is_recording() {
        find_recorder();
    }
}

/// Returns whether this thread has a recorder.
fn has_recorder() -> bool {
    possible_placeholder().is_none_or(|address| !is_placeholder(address))
}

/// Returns the address of the current recorder, if the recorder may be the placeholder.
///
/// While no recorder is installed, the crate `metrics` passes a placeholder: a zero-sized static. A
/// recorder for the whole program is boxed, and a box of a zero-sized value has a dangling address
/// that equals the alignment.
fn possible_placeholder() -> Option<usize> {
    metrics::with_recorder(|recorder| {
        let address = std::ptr::from_ref(recorder).addr();
        (size_of_val(recorder) == 0 && address != align_of_val(recorder)).then_some(address)
    })
}

/// Distinguishes the placeholder from a zero-sized recorder that is installed for this thread only.
/// A new thread has no recorder of its own, so it shows the placeholder. One such thread is spawned
/// per program.
fn is_placeholder(address: usize) -> bool {
    static PLACEHOLDER: OnceLock<usize> = OnceLock::new();
    if let Some(placeholder) = PLACEHOLDER.get() {
        return *placeholder == address;
    }
    match thread::Builder::new().spawn(possible_placeholder).map(thread::JoinHandle::join) {
        Ok(Ok(Some(placeholder))) => *PLACEHOLDER.get_or_init(|| placeholder) == address,
        // A recorder is installed for the whole program: the placeholder is no longer in use.
        Ok(Ok(None)) => false,
        // This platform cannot spawn threads.
        Ok(Err(_)) | Err(_) => true,
    }
}
