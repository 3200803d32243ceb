//! Blocking work, and waiting for the lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::folder::{Folder, Locked};
use crate::store::{StoreError, StoreErrorKind};

/// How long a request waits for the lock while its owner writes nothing. It is shorter than the
/// default timeout of the agent, so that the error says what is wrong.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// How long a request waits for the lock while others write. The timeout of the agent is shorter.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(10);
/// The longest time between two attempts to lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// Runs `work` under the lock of a folder.
///
/// If the future is dropped, `work` does not begin; `work` that has begun is completed.
pub(super) async fn with_lock<T: Send + 'static>(
    folder: &Arc<Folder>,
    work: impl FnOnce(&Locked<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let start = Instant::now();
    let (mut pause, mut last_progress) = (Duration::from_millis(1), (start, None));
    let mut work = work;
    loop {
        let folder_of_work = Arc::clone(folder);
        let attempt = move || match folder_of_work.try_lock()? {
            Some(locked) => work(&locked).map(Ok),
            None => Ok(Err((work, folder_of_work.last_write()?))),
        };
        let last_write = match blocking(attempt).await? {
            Ok(reply) => return Ok(reply),
            Err((not_begun, last_write)) => {
                work = not_begun;
                Some(last_write)
            }
        };
        let now = Instant::now();
        if last_progress.1 != last_write {
            last_progress = (now, last_write);
        }
        if now - last_progress.0 >= LOCK_WAIT || now - start >= LONGEST_LOCK_WAIT {
            return Err(lock_timeout(folder, now - start));
        }
        // A wait in the kernel could not be cancelled, and the lock of a stopped process stays.
        sleep(pause.mul_f64(fastrand::f64().max(0.1))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn lock_timeout(folder: &Folder, waited: Duration) -> StoreError {
    let lock = folder.lock_path();
    StoreError {
        kind: StoreErrorKind::Unreachable,
        message: format!(
            "the lock `{path}` was not free for {} ms; find the process that holds it with `fuser -v {path}`, \
             and continue or end it if it is stopped",
            waited.as_millis(),
            path = lock.display(),
        ),
        source: None,
    }
}

/// Runs `work` on a thread for blocking work. If the future is dropped before, `work` does not run.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, receiver) = oneshot::channel();
    spawn_blocking(move || {
        // All threads may have been busy for a long time.
        if !reply.is_closed() {
            // An error: the future was dropped meanwhile.
            let _ = reply.send(work());
        }
    });
    receiver.await.unwrap_or_else(|_| Err(ended()))
}

pub(super) fn ended() -> StoreError {
    let message = "the runtime has ended, or a panic has ended the request".into();
    StoreError { kind: StoreErrorKind::Unreachable, message, source: None }
}
