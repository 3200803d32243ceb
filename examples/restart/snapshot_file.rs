//! A JSON file with the snapshots of circuits.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tower_breaker::snapshot::CircuitSnapshot;

/// A file that always contains a complete list of snapshots, also if the process is killed or the
/// machine fails while the file is written.
///
/// Each process needs a file of its own.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the snapshots. A file that does not exist contains none: it is the first start.
    pub(crate) fn load(&self) -> io::Result<Vec<CircuitSnapshot>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        Ok(serde_json::from_str(&text)?)
    }

    /// Replaces the snapshots. Two saves must not run at the same time.
    pub(crate) fn save(&self, snapshots: &[CircuitSnapshot]) -> io::Result<()> {
        let text = serde_json::to_string_pretty(snapshots)?;
        let new_path = self.path.with_extension("new");
        let mut new_file = File::create(&new_path)?;
        new_file.write_all(text.as_bytes())?;
        // Before the rename: otherwise, a power failure could leave an empty file under the name.
        new_file.sync_all()?;
        fs::rename(&new_path, &self.path)?;
        sync_folder(&self.path)
    }
}

/// Makes a rename permanent.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Windows does not open folders as files.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
