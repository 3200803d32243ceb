//! The tools that `./test` installs in the target directory.

use std::path::PathBuf;

/// Returns the path of a file of the tools.
///
/// # Panics
///
/// Panics if the file does not exist.
pub(crate) fn tool(path: &str) -> PathBuf {
    // The folder of temporary files is in the target directory.
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("admin-tools").join(path);
    assert!(file.exists(), "{} is missing; ./test installs it", file.display());
    file
}
