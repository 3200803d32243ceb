//! The search for a program.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Returns the file that [`Subprocess::new`](crate::Subprocess::new) would run for `program`, or
/// `None` if there is none.
///
/// A path with a separator is relative to the directory of this process. A name is searched in
/// `PATH`.
pub fn find_program(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = Path::new(program.as_ref());
    if program.components().count() > 1 {
        return is_executable(program).then(|| program.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

#[cfg(unix)]
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
pub(crate) fn is_executable(file: &Path) -> bool {
    file.is_file() || file.with_extension("exe").is_file()
}
