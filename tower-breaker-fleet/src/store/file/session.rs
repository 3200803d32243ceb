//! A session: runs the rules under the lock of a folder, and watches the log of updates.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::folder::{Folder, Locked, Unsynced};
use super::sweep::sweep;
use super::updates::{Reader, publish};
use crate::record::CircuitRecord;
use crate::rules::CircuitData;
use crate::store::{
    CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, Session, StoreError, StoreErrorKind,
    StoreFuture, SyncRequest, Synced, Update,
};

/// How long a request waits for the lock while its owner writes nothing. It is shorter than the
/// default timeout of the agent, so that the error says what is wrong.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// How long a request waits for the lock while others write. The timeout of the agent is shorter.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(10);
/// The longest time between two attempts to lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// How often a session looks for updates while other processes share circuits.
const WATCH_SHARED: Duration = Duration::from_millis(50);
/// How often a session that is alone looks for manual operations of another process.
const WATCH_ALONE: Duration = Duration::from_millis(500);

/// How often a session deletes the files of circuits that nothing uses.
const SWEEP: Duration = Duration::from_secs(600);

pub(super) struct FileSession {
    folder: Arc<Folder>,
    now: fn() -> u64,
    /// Whether other processes share a circuit, as of the last heartbeat.
    is_shared: bool,
    watch: Watch,
    next_sweep: Instant,
}

/// The updates that the session has read, and the reading.
struct Watch {
    updates: VecDeque<Update>,
    reader: Arc<Mutex<Reader>>,
    /// The reading that runs. It is kept here, so that no update is lost when a future is dropped.
    read: Option<JoinHandle<Result<Vec<Update>, StoreError>>>,
    last_read: Instant,
}

impl Watch {
    /// Returns the next update. Cancellation-safe.
    async fn next(&mut self, period: Duration, now: fn() -> u64) -> Result<Update, StoreError> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(update);
            }
            let read = if let Some(read) = &mut self.read {
                read
            } else {
                sleep_until(self.last_read + period).await;
                self.last_read = Instant::now();
                let reader = Arc::clone(&self.reader);
                // No other thread locks the reader, because one reading runs at a time.
                let read = move || reader.lock().unwrap_or_else(PoisonError::into_inner).read(now());
                self.read.insert(spawn_blocking(read))
            };
            let result = read.await;
            self.read = None;
            self.updates.extend(result.map_err(|_| ended())??);
        }
    }
}

impl FileSession {
    pub(super) async fn connect(
        root: PathBuf,
        namespace: &str,
        now: fn() -> u64,
    ) -> Result<Self, StoreError> {
        let folder = Arc::new(Folder::new(root, namespace));
        let missing = Arc::clone(&folder);
        blocking(move || missing.create()).await?;
        with_lock(&folder, move |locked| sweep(locked, now())).await?;
        let log = Arc::clone(&folder);
        let reader = blocking(move || Reader::at_end(log)).await?;
        let watch = Watch {
            updates: VecDeque::new(),
            reader: Arc::new(Mutex::new(reader)),
            read: None,
            last_read: Instant::now(),
        };
        Ok(Self { folder, now, is_shared: true, watch, next_sweep: Instant::now() + SWEEP })
    }

    /// Applies a rule to the data of a circuit.
    async fn apply<T: Send + 'static>(
        &self,
        circuit: &str,
        rule: impl FnOnce(&mut CircuitData, u64) -> (T, Vec<Update>) + Send + 'static,
    ) -> Result<(T, Option<Unsynced>), StoreError> {
        let (circuit, now) = (circuit.to_owned(), self.now);
        with_lock(&self.folder, move |locked| apply(locked, &circuit, now(), rule)).await
    }

    /// Applies a rule to the data of a circuit, and does not wait for the disk.
    async fn decide<T: Send + 'static>(
        &self,
        circuit: &str,
        rule: impl FnOnce(&mut CircuitData, u64) -> (T, Vec<Update>) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, unsynced) = self.apply(circuit, rule).await?;
        sync_later(unsynced.into_iter());
        Ok(reply)
    }

    /// Replies to a heartbeat.
    async fn send_heartbeat(&mut self, request: SyncRequest) -> Result<Vec<Synced>, StoreError> {
        let now = self.now;
        let is_time_to_sweep = Instant::now() >= self.next_sweep;
        let replies = with_lock(&self.folder, move |locked| {
            if is_time_to_sweep {
                sweep(locked, now())?;
            }
            let circuits = request.circuits.iter();
            let replies = circuits.map(|circuit| {
                apply(locked, &circuit.name, now(), |data, now| data.sync(&request, circuit, now))
            });
            replies.collect::<Result<Vec<_>, _>>()
        });
        let (replies, unsynced): (Vec<_>, Vec<_>) = replies.await?.into_iter().unzip();
        if is_time_to_sweep {
            self.next_sweep = Instant::now() + SWEEP;
        }
        self.is_shared = replies.iter().any(|reply| reply.members > 1);
        sync_later(unsynced.into_iter().flatten());
        Ok(replies)
    }
}

impl Session for FileSession {
    fn sync<'a>(&'a mut self, request: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>> {
        Box::pin(self.send_heartbeat(request.clone()))
    }

    fn lease<'a>(&'a mut self, request: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply> {
        let copy = request.clone();
        Box::pin(self.decide(&request.circuit, move |data, now| data.lease(&copy, now)))
    }

    fn complete<'a>(&'a mut self, probe: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord> {
        let copy = probe.clone();
        Box::pin(self.decide(&probe.circuit, move |data, now| data.complete(&copy, now)))
    }

    fn operate<'a>(&'a mut self, operation: &'a Operation) -> StoreFuture<'a, OperationReply> {
        let copy = operation.clone();
        Box::pin(async move {
            let applied = self.apply(&operation.circuit, move |data, now| data.operate(&copy, now));
            let (reply, unsynced) = applied.await?;
            // An operator relies on the reply: the operation must survive a power cut.
            if let Some(file) = unsynced {
                blocking(move || file.finish()).await?;
            }
            Ok(reply)
        })
    }

    fn list<'a>(&'a mut self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<CircuitRecord>> {
        let (folder, after, now) = (Arc::clone(&self.folder), after.map(str::to_owned), self.now);
        // Without the lock: a file is replaced as a whole.
        Box::pin(blocking(move || list(&folder, after.as_deref(), limit, now())))
    }

    fn update(&mut self) -> StoreFuture<'_, Update> {
        let period = if self.is_shared { WATCH_SHARED } else { WATCH_ALONE };
        Box::pin(self.watch.next(period, self.now))
    }
}

fn list(
    folder: &Folder,
    after: Option<&str>,
    limit: usize,
    now: u64,
) -> Result<Vec<CircuitRecord>, StoreError> {
    let mut records = Vec::new();
    for circuit in folder.circuits::<CircuitData>()? {
        if records.len() == limit {
            break;
        }
        if after.is_none_or(|after| circuit.as_str() > after) {
            let record = folder.read::<CircuitData>(&circuit)?.record(&circuit, now);
            records.extend((record.epoch > 0).then_some(record));
        }
    }
    Ok(records)
}

/// Applies a rule to the data of a circuit, and publishes the updates.
///
/// Returns the file if a decision was written, which must survive a power cut. A heartbeat need
/// not, because the next one repeats it.
fn apply<T>(
    locked: &Locked<'_>,
    circuit: &str,
    now: u64,
    rule: impl FnOnce(&mut CircuitData, u64) -> (T, Vec<Update>),
) -> Result<(T, Option<Unsynced>), StoreError> {
    let before: CircuitData = locked.folder.read(circuit)?;
    let mut data = before.clone();
    let (reply, updates) = rule(&mut data, now);
    if data.is_empty(now) {
        locked.remove(circuit)?;
        publish(locked, &updates, now)?;
        return Ok((reply, None));
    }
    if data == before {
        return Ok((reply, None));
    }
    let written = locked.write(circuit, &data)?;
    publish(locked, &updates, now)?;
    let is_decision = updates.iter().any(|update| matches!(update, Update::Record(_)));
    Ok((reply, is_decision.then_some(written)))
}

/// Waits for the disk in the background. A failure costs what a power cut would take: the processes
/// restore it. So the reply does not wait.
fn sync_later(unsynced: impl Iterator<Item = Unsynced> + Send + 'static) {
    let mut unsynced = unsynced.peekable();
    if unsynced.peek().is_some() {
        spawn_blocking(move || unsynced.for_each(|file| drop(file.finish())));
    }
}

/// Runs `work` under the lock of a folder.
///
/// If the future is dropped, `work` does not begin; `work` that has begun is completed.
async fn with_lock<T: Send + 'static>(
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
    let lock = folder.path().join("lock");
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
async fn blocking<T: Send + 'static>(
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

fn ended() -> StoreError {
    let message = "the runtime has ended, or a panic has ended the request".into();
    StoreError { kind: StoreErrorKind::Unreachable, message, source: None }
}
