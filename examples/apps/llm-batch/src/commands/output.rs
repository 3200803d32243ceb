//! The output file.

use std::fs;
use std::io;
use std::path::Path;

use super::CommandError;
use crate::files::{self, FileError};
use crate::input::is_json_array;
use crate::unit::Unit;

/// Checks that the output can be created, so that a wrong path is found before the first request.
pub(super) fn check(path: &Path) -> Result<(), FileError> {
    let result = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // A device or a pipe is opened only once.
        Ok(metadata) if !metadata.is_file() => Ok(()),
        _ => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            tempfile::tempfile_in(folder).map(drop)
        }
    };
    result.map_err(|source| FileError::new("write", path, source))
}

/// Checks that the output does not replace the input.
pub(super) fn check_is_not_input(output: &Path, input: &Path) -> Result<(), CommandError> {
    let is_input = match (output.canonicalize(), input.canonicalize()) {
        (Ok(output), Ok(input)) => output == input,
        _ => false,
    };
    if is_input {
        let output = output.display();
        return Err(CommandError::usage(format!("output `{output}` is the input; give another file")));
    }
    Ok(())
}

/// Writes the results as a JSON array if the path ends in `.json`, else as JSON Lines.
pub(super) fn write(path: &Path, results: &[Unit]) -> Result<(), FileError> {
    files::replace(path, |file| {
        if is_json_array(path) {
            serde_json::to_writer_pretty(&mut *file, results)?;
            return file.write_all(b"\n");
        }
        files::write_json_lines(file, results)
    })
}
