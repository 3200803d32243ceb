//! Files that the processes of one machine share.

mod circuits;
mod clock;
mod content;
mod errors;
mod folder;
mod names;
mod session;
mod sweep;
mod updates;
mod wait;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use session::FileSession;

use super::{Backend, Session, StoreFuture};
use crate::FleetError;

/// A folder that the processes of one machine share. Nothing has to be installed.
///
/// Feature `file`. Unix only: the type does not exist on Windows.
///
/// The folder has a folder for each namespace, and in it:
///
/// | file | content |
/// |---|---|
/// | `NAME.json` | the record of a circuit, and the processes that use it |
/// | `updates` | the names of changed circuits; at most about 256 KiB |
/// | `lock` | nothing: a process locks it with `flock` before it writes |
///
/// File names are valid for each name of a circuit: other characters than `a-z`, `0-9`, `-` and `_`
/// are encoded as `%` and two digits, and long names are shortened. Any file may be deleted at any
/// time. The store then has lost the data, and the processes restore what they know.
///
/// # Guarantees
///
/// | event | effect |
/// |---|---|
/// | a process opens a circuit | the others see it within about 50 ms |
/// | an operator changes a circuit, and one process shares it | the process sees it within about 500 ms |
/// | all processes end, or the machine restarts in order | open circuits and manual overrides stay |
/// | a process is killed while it writes | the previous or the new record is there, never a part; the lock is free |
/// | the power fails | a decision is written to the disk at once, and a manual operation waits for it; a file that a later heartbeat has replaced can be empty, except on ext4 with its default options |
/// | a file is empty or truncated | the circuit has no record; the processes restore it |
/// | a file is foreign, too large, or of another version | an error names the file; each process decides for itself |
/// | a process is stopped (`SIGSTOP`) while it has the lock | requests fail after 200 ms; each process decides for itself until it continues or ends |
/// | the disk is full or read-only, or permission is denied | an error names the path; each process decides for itself |
/// | the clock steps back | open times are not prolonged beyond their length |
/// | the clock steps forward | open times end early, which costs one more probe |
///
/// The agent connects again by itself, with an increasing delay, so each of these errors ends when
/// its cause does.
///
/// # Permissions
///
/// A folder that [`open`](Self::open) creates is only for its user. To share it between users,
/// create it yourself for their group, such as with `install -d -m 2770 -g app /var/lib/app`. Files
/// get the read and write permissions of the folder, whatever the umask is. All users who can write
/// to the folder can open and close circuits. Symbolic links in the folder are refused.
///
/// # Where to put the folder
///
/// - On a local disk, such as `/var/lib/app`, to keep circuits over a restart of the machine.
/// - In memory, such as `/run/app`, if they need not outlive the machine. A heartbeat replaces a
///   file for each circuit. On ext4 this writes to the disk and can take 1 ms or more for each
///   file; in memory it takes a fraction of that. Prefer memory for more than about 50 circuits.
/// - In a volume that the containers of one host share. Each container needs an instance name that
///   no other has, which the host name usually is. Containers that run in virtual machines of their
///   own, and volumes that a driver copies or sends over a network, do not work.
/// - Not on NFS or another network file system: locks may not exclude other machines, metadata is
///   cached for seconds, and a request can block a thread for minutes.
///
/// # When to use another store
///
/// Use Redis, Valkey or PostgreSQL for processes on several machines, or for more than about 50
/// processes. A heartbeat replaces a file for each circuit; one process writes at a time.
///
/// # Examples
///
/// ```no_run
/// use tower_breaker_fleet::{FileStore, Fleet, FleetError, Quorum};
///
/// # fn share(circuit: &tower_breaker::Circuit) -> Result<(), FleetError> {
/// let store = FileStore::open("/var/lib/app/circuits")?;
/// // The first worker that opens the circuit opens it for all workers of this machine.
/// let (fleet, agent) = Fleet::builder(store).quorum(Quorum::at_least(1)).build()?;
/// tokio::spawn(agent);
/// fleet.share(circuit)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileStore {
    folder: PathBuf,
    /// The time in milliseconds since 1970. Tests replace it.
    now: fn() -> u64,
}

impl FileStore {
    /// Opens a folder, and creates it if it is missing, for the user of this process only.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created, or is no folder. Later problems, such as a full disk, are
    /// in [`Fleet::status`](crate::Fleet::status), and each process then decides for itself.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FleetError> {
        let folder = folder.into();
        folder::create_root(&folder)?;
        Ok(Self { folder, now: clock::now_ms })
    }
}

impl Backend for FileStore {
    fn connect<'a>(&'a self, namespace: &'a str) -> StoreFuture<'a, Box<dyn Session>> {
        Box::pin(async move {
            let session = FileSession::connect(self.folder.clone(), namespace, self.now).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}
