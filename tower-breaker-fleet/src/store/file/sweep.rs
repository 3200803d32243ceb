//! Deletes the files of circuits that nothing uses.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use super::folder::{Locked, read_file, remove_file};
use crate::rules::CircuitData;
use crate::store::StoreError;

/// A file that was written later is in use, and is not read.
const MIN_AGE: Duration = Duration::from_secs(60);
/// The most files that one call reads, because other processes wait for the lock.
const MOST: usize = 256;

/// Deletes the files of circuits without a record, members and local open times.
///
/// A circuit ends without a message if its processes are killed, so its file would stay.
pub(super) fn sweep(locked: &Locked<'_>, now: u64) -> Result<(), StoreError> {
    let mut read = 0;
    for path in locked.folder.circuit_paths()? {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let age = written.and_then(|written| Duration::from_millis(now).checked_sub(written));
        // A time in the future is no reason to keep a file: the clock was set back.
        if age.is_some_and(|age| age < MIN_AGE) {
            continue;
        }
        // A file that cannot be read is an error only for those who use its circuit.
        let is_unused = match read_file::<CircuitData>(&path) {
            Ok(content) => content.is_none_or(|(_, data)| data.is_empty(now)),
            Err(_) => false,
        };
        if is_unused {
            remove_file(&path)?;
        }
        read += 1;
        if read == MOST {
            break;
        }
    }
    Ok(())
}
