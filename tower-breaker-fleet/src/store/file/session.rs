//! A session: runs the rules under the lock of a folder, and watches the log of updates.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::circuits::{apply, list};
use super::folder::{Folder, Locked, Unsynced};
use super::sweep::sweep;
use super::updates::{Reader, create};
use super::wait::{blocking, ended, with_lock};
use crate::record::CircuitRecord;
use crate::rules::CircuitData;
use crate::store::{
    CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, Session, StoreError, StoreFuture,
    SyncRequest, Synced, Update,
};

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
        let prepare = move |locked: &Locked<'_>| {
            sweep(locked, now())?;
            create(locked)
        };
        with_lock(&folder, prepare).await?;
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

/// Waits for the disk in the background. A failure costs what a power cut would take: the processes
/// restore it. So the reply does not wait.
fn sync_later(unsynced: impl Iterator<Item = Unsynced> + Send + 'static) {
    let mut unsynced = unsynced.peekable();
    if unsynced.peek().is_some() {
        spawn_blocking(move || unsynced.for_each(|file| drop(file.finish())));
    }
}
