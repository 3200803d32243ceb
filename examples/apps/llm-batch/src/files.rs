//! Writes files that are never seen half-written, and names them in errors.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file or folder cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// What the program attempted, such as `write`.
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// Returns the path of the file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`", self.action, self.path.display())?;
        match next_step(self.source.kind()) {
            Some(step) => write!(f, "; {step}"),
            None => Ok(()),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

fn next_step(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free space on its file system"),
        io::ErrorKind::PermissionDenied => Some("change its permissions, or choose another path"),
        io::ErrorKind::ReadOnlyFilesystem => Some("choose a path on a writable file system"),
        io::ErrorKind::IsADirectory => Some("choose the path of a file"),
        io::ErrorKind::AlreadyExists => Some("choose the path of a folder"),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some("create its folder"),
        _ => None,
    }
}

/// Replaces the content of a file in one step: the path names the old content or the new one.
///
/// The content is written to a temporary file in the same folder, which is then renamed. A process
/// that is killed may leave the temporary file. The next replacement of the same file removes it.
///
/// A device or a pipe, such as `/dev/stdout`, is written directly.
///
/// # Errors
///
/// The error names `path`. A regular file then has its old content.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), FileError> {
    // The target of a symbolic link is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let result = match fs::metadata(&target) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if !metadata.is_file() => write_device(&target, write),
        Ok(metadata) => write_and_rename(&target, metadata.permissions().mode(), write),
        Err(_) => write_and_rename(&target, 0o666, write),
    };
    result.map_err(|source| FileError::new("write", path, source))
}

fn write_device(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut device = BufWriter::new(OpenOptions::new().write(true).open(path)?);
    write(&mut device)?;
    device.flush()
}

fn write_and_rename(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = temporary_path(path);
    remove_if_exists(&temporary)?;
    let written = write_new(&temporary, mode, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to report. The next replacement removes the file.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Returns the path of the temporary file of a file.
fn temporary_path(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".agents.tmp");
    path.into()
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, mode: u32, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    // Without this, the new name may refer to an empty file after a power failure.
    writer.into_inner()?.sync_all()
}

/// Writes values as JSON, one on each line.
///
/// # Errors
///
/// Returns the error of `writer`.
pub fn write_json_lines<'a, T: serde::Serialize + 'a>(
    writer: &mut dyn Write,
    values: impl IntoIterator<Item = &'a T>,
) -> io::Result<()> {
    for value in values {
        serde_json::to_writer(&mut *writer, value)?;
        writer.write_all(b"\n")?;
    }
    Ok(())
}
