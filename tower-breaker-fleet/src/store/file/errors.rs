//! The errors of the file store.

use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use crate::store::{StoreError, StoreErrorKind};

/// Returns the error of an operation on a path, such as ``cannot open `/run/app/lock` ``.
pub(super) fn io_error(action: &str, path: &Path, source: io::Error) -> StoreError {
    let path = path.display();
    let (kind, problem) = problem(&source);
    let message = match problem {
        Some(problem) => format!("cannot {action} `{path}`: {problem}"),
        None => format!("cannot {action} `{path}`"),
    };
    StoreError { kind, message, source: Some(source.into()) }
}

/// Returns the kind of an error, and the problem with its solution if an operator must solve it.
fn problem(error: &io::Error) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{Refused, Unreachable};
    // `ErrorKind::FilesystemLoop` is unstable. `O_NOFOLLOW` causes this error at a link.
    if Errno::from_io_error(error) == Some(Errno::LOOP) {
        return (Refused, Some("it is a symbolic link; delete the link"));
    }
    match error.kind() {
        // This is the error of `open_regular`, or the one of a folder in the place of a file.
        ErrorKind::InvalidInput | ErrorKind::IsADirectory => {
            (Refused, Some("it is not a regular file; move it away or delete it"))
        }
        ErrorKind::PermissionDenied => {
            (Refused, Some("permission denied; allow the user of this process to read and write the folder"))
        }
        ErrorKind::ReadOnlyFilesystem => {
            (Refused, Some("the file system is read-only; choose a folder on a writable file system"))
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (Refused, Some("there is no space left; free space, or choose a folder on another file system"))
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            (Refused, Some("a part of the path is no folder; choose another folder"))
        }
        _ => (Unreachable, None),
    }
}

/// Returns the error for a file that an operator must move away or delete.
pub(super) fn invalid(path: &Path, problem: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Invalid,
        message: format!("`{}` {problem}; move it away or delete it", path.display()),
        source: None,
    }
}
