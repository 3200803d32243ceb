//! The folder of a namespace: one file for each circuit, a lock, and the log of updates.
//!
//! - Files are replaced, never changed: a new file is written beside them and renamed. So a reader
//!   needs no lock, and a killed process leaves the previous content.
//! - Only the owner of the lock writes. So a file `new` that it finds is from a killed process, and
//!   it may delete it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::content::{self, LARGEST};
use super::errors::{invalid, io_error};
use super::names;
use crate::store::StoreError;

const SUFFIX: &str = ".json";

/// The folder of a namespace. All methods block the thread.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    path: PathBuf,
}

/// The lock of a folder. Dropping it releases the lock.
pub(super) struct Locked<'a> {
    pub(super) folder: &'a Folder,
    /// The permissions of new files.
    mode: u32,
    _lock: File,
}

/// A file that was written, and is not on the disk yet.
#[must_use = "the file is on the disk only after `finish`"]
pub(super) struct Unsynced {
    file: File,
    folder: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf, namespace: &str) -> Self {
        let path = root.join(names::encode(namespace));
        Self { root, path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder if it is missing.
    ///
    /// The root is created for this user only. An existing root decides who shares: each folder and
    /// file in it gets its permissions.
    pub(super) fn create(&self) -> Result<(), StoreError> {
        create_root(&self.root)?;
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {
                let root = fs::metadata(&self.root).map_err(|error| io_error("read", &self.root, error))?;
                let folder = File::open(&self.path);
                let copied = folder.and_then(|folder| set_mode(&folder, root.mode() & 0o7777));
                copied.map_err(|error| io_error("create", &self.path, error))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // A link here could lead to the files of another program.
                let found =
                    fs::symlink_metadata(&self.path).map_err(|error| io_error("read", &self.path, error))?;
                if found.is_dir() { Ok(()) } else { Err(io_error("create", &self.path, error)) }
            }
            Err(error) => Err(io_error("create", &self.path, error)),
        }
    }

    /// Locks the folder, or returns `None` while another process has locked it.
    pub(super) fn try_lock(&self) -> Result<Option<Locked<'_>>, StoreError> {
        let path = self.lock_path();
        let failed = |error| io_error("lock", &path, error);
        let lock = match self.open_lock(&path) {
            // An operator has deleted the folder: the store has lost its data, and continues.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create()?;
                self.open_lock(&path).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        self.lock_file(lock)
    }

    /// Locks the folder with an open lock file, or returns `None` if that is not possible now.
    pub(super) fn lock_file(&self, lock: File) -> Result<Option<Locked<'_>>, StoreError> {
        let path = self.lock_path();
        let failed = |error| io_error("lock", &path, error);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        }
        // The lock on a deleted file does not exclude processes that have created a new one.
        let locked = lock.metadata().map_err(failed)?;
        match fs::symlink_metadata(&path) {
            Ok(current) if (current.dev(), current.ino()) == (locked.dev(), locked.ino()) => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        Ok(Some(Locked { folder: self, mode: self.file_mode()?, _lock: lock }))
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// When a file was last created, renamed or deleted, in seconds and nanoseconds.
    pub(super) fn last_write(&self) -> Result<(i64, i64), StoreError> {
        let metadata = fs::metadata(&self.path).map_err(|error| io_error("read", &self.path, error))?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    }

    fn open_lock(&self, path: &Path) -> std::io::Result<File> {
        match open_options().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        let mode = fs::metadata(&self.path)?.mode() & 0o666;
        match open_options().read(true).write(true).create_new(true).mode(mode).open(path) {
            Ok(file) => set_mode(&file, mode).map(|()| file),
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                open_options().read(true).write(true).open(path)
            }
            Err(error) => Err(error),
        }
    }

    fn file_mode(&self) -> Result<u32, StoreError> {
        let metadata = fs::metadata(&self.path).map_err(|error| io_error("read", &self.path, error))?;
        Ok(metadata.mode() & 0o666)
    }

    /// Returns the data of a circuit; the default if there is no file.
    pub(super) fn read<T: DeserializeOwned + Default>(&self, circuit: &str) -> Result<T, StoreError> {
        let path = self.circuit_path(circuit);
        match read_file(&path)? {
            None => Ok(T::default()),
            Some((name, data)) if name == circuit => Ok(data),
            Some((name, _)) => {
                Err(invalid(&path, &format!("belongs to the circuit `{name}`, not to `{circuit}`")))
            }
        }
    }

    /// Returns the names of all circuits, sorted.
    pub(super) fn circuits<T: DeserializeOwned>(&self) -> Result<Vec<String>, StoreError> {
        let mut circuits = Vec::new();
        for path in self.circuit_paths()? {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let Some(name) = names::decode(stem) {
                circuits.push(name);
            } else if let Some((name, _)) = read_file::<T>(&path)? {
                circuits.push(name);
            }
        }
        circuits.sort_unstable();
        Ok(circuits)
    }

    /// Returns the paths of all files of circuits, in no order.
    pub(super) fn circuit_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |error| io_error("list", &self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX)) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    fn circuit_path(&self, circuit: &str) -> PathBuf {
        self.path.join(names::encode(circuit) + SUFFIX)
    }
}

impl Locked<'_> {
    /// Replaces the file of a circuit.
    pub(super) fn write(&self, circuit: &str, data: &impl Serialize) -> Result<Unsynced, StoreError> {
        let path = self.folder.circuit_path(circuit);
        let content = content::serialize(&path, circuit, data)?;
        let file = self.replace(&path, &content)?;
        Ok(Unsynced { file, folder: self.folder.path.clone() })
    }

    /// Deletes the file of a circuit, if there is one.
    pub(super) fn remove(&self, circuit: &str) -> Result<(), StoreError> {
        remove_file(&self.folder.circuit_path(circuit))
    }

    /// Replaces a file: readers see the old or the new content, also if this process is killed.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<File, StoreError> {
        let new = self.folder.path.join("new");
        remove_file(&new)?;
        let written = self.create_file(&new).and_then(|mut file| {
            file.write_all(content)?;
            fs::rename(&new, path)?;
            Ok(file)
        });
        written.map_err(|error| {
            // The part that was written takes space that others need.
            let _ = fs::remove_file(&new);
            io_error("write", path, error)
        })
    }

    /// Creates a file with the permissions of the folder.
    pub(super) fn create_file(&self, path: &Path) -> std::io::Result<File> {
        let file = open_options().append(true).create_new(true).mode(self.mode).open(path)?;
        set_mode(&file, self.mode)?;
        Ok(file)
    }
}

impl Unsynced {
    /// Waits until the file and its name are on the disk.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        let failed = |error| io_error("write to the disk, in", &self.folder, error);
        self.file.sync_all().map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// Creates the root folder if it is missing, for this user only.
pub(super) fn create_root(root: &Path) -> Result<(), StoreError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(root);
    created.map_err(|error| io_error("create", root, error))
}

/// Sets the permissions of a new file, whatever the umask is. Some file systems have the same
/// permissions for all files, and refuse to set them.
fn set_mode(file: &File, mode: u32) -> std::io::Result<()> {
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Opens only regular files: a link could lead to the files of another program, and opening a pipe
/// would block.
pub(super) fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// Opens a file, and fails if it is no regular file.
pub(super) fn open_regular(options: &OpenOptions, path: &Path) -> std::io::Result<File> {
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(std::io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
}

/// Returns the content of the file of a circuit; `None` if it is missing or has lost its content.
pub(super) fn read_file<T: DeserializeOwned>(path: &Path) -> Result<Option<(String, T)>, StoreError> {
    let failed = |error| io_error("read", path, error);
    let file = match open_regular(open_options().read(true), path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    content::deserialize(path, &bytes)
}

pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("delete", path, error)),
        _ => Ok(()),
    }
}
