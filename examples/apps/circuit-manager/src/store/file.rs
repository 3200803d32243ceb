//! The store in a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::{Row, StoreError, upsert_into};

/// The rows in a JSON file, which always contains complete rows: also if the process is killed, or
/// the machine fails, while they are written.
///
/// Each write replaces the whole file.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: Arc<Path>,
    /// The locked file.
    lock: Arc<OnceLock<File>>,
    /// The rows of the file. `None`: the file has not been read.
    rows: Arc<Mutex<Option<BTreeMap<String, Row>>>>,
}

/// The content of the file.
#[derive(Deserialize, Serialize)]
struct Content<Rows> {
    circuit_breaker_state: Rows,
}

impl FileStore {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: path.into(), lock: Arc::default(), rows: Arc::default() }
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let path = Arc::clone(&self.path);
        blocking(&self.path, move || fs::metadata(folder(&path)).map(drop)).await
    }

    /// Locks the file, so that no other process replaces its rows.
    pub(super) async fn lock(&self) -> Result<(), StoreError> {
        if self.lock.get().is_some() {
            return self.check().await;
        }
        let path = Arc::clone(&self.path);
        match blocking(&self.path, move || lock(&path)).await? {
            // Two tasks cannot both get here: the second one has not got the lock.
            Some(file) => {
                self.lock.get_or_init(|| file);
                Ok(())
            }
            None => Err(StoreError::Used { path: self.path.to_path_buf() }),
        }
    }

    pub(super) async fn load(&self) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.rows.lock().await;
        let read = self.read().await?;
        Ok(rows.insert(read).values().cloned().collect())
    }

    pub(super) async fn upsert(&self, new: &[Row]) -> Result<(), StoreError> {
        // The lock is held until the file is replaced, also if this future is dropped meanwhile:
        // two writers at the same time could leave the older rows in the file.
        let mut rows = Arc::clone(&self.rows).lock_owned().await;
        let mut all = match rows.as_ref() {
            Some(rows) => rows.clone(),
            None => self.read().await?,
        };
        upsert_into(&mut all, new);
        let path = Arc::clone(&self.path);
        blocking(&self.path, move || {
            replace(&path, &Content { circuit_breaker_state: all.values().collect::<Vec<_>>() })?;
            *rows = Some(all);
            Ok(())
        })
        .await
    }

    async fn read(&self) -> Result<BTreeMap<String, Row>, StoreError> {
        let path = Arc::clone(&self.path);
        let text = blocking(&self.path, move || match fs::read_to_string(&path) {
            // The first start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some),
        });
        let Some(text) = text.await? else {
            return Ok(BTreeMap::new());
        };
        let content: Content<Vec<Row>> = serde_json::from_str(&text)
            .map_err(|source| StoreError::Damaged { path: self.path.to_path_buf(), source })?;
        let rows = content.circuit_breaker_state.into_iter();
        Ok(rows.map(|row| (row.agent_id.clone(), row)).collect())
    }
}

/// Runs an operation on a thread that may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    operation: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let result = spawn_blocking(operation).await.unwrap_or_else(|error| Err(error.into()));
    result.map_err(|source| StoreError::io(path, source))
}

/// Returns the locked file; `None` if another process has locked it.
///
/// It is a file of its own, because a write replaces the file of the rows. It is never removed:
/// otherwise two processes could each lock a file of this name.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(name)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file. A reader sees the old rows or the new ones.
fn replace<Rows: Serialize>(path: &Path, content: &Content<Rows>) -> io::Result<()> {
    let mut file = BufWriter::new(NamedTempFile::new_in(folder(path))?);
    serde_json::to_writer(&mut file, content)?;
    file.flush()?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    // Before the rename: otherwise, a power failure could leave an empty file under the name.
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(path)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename permanent.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Windows does not open folders as files.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
