//! The content of the file of a circuit.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::errors::invalid;
use crate::store::{StoreError, StoreErrorKind};

/// The largest file of a circuit, in bytes. It has space for more than 5,000 processes.
pub(super) const LARGEST: u64 = 1 << 20;

const FORMAT: &str = "tower-breaker-fleet";
const VERSION: u32 = 1;
/// What each file begins with. A file that begins otherwise is not from this store.
const BEGIN: &[u8] = br#"{"format":"tower-breaker-fleet","#;

/// The order of the fields is part of the format.
#[derive(Serialize)]
struct Content<'a, T> {
    format: &'static str,
    version: u32,
    circuit: &'a str,
    data: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Data<T> {
    circuit: String,
    data: T,
}

/// Returns the content of the file of a circuit.
pub(super) fn serialize(path: &Path, circuit: &str, data: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let content = Content { format: FORMAT, version: VERSION, circuit, data };
    let bytes = serde_json::to_vec(&content).map_err(|source| StoreError {
        kind: StoreErrorKind::Invalid,
        message: format!("cannot serialize the circuit `{circuit}`"),
        source: Some(source.into()),
    })?;
    if bytes.len() as u64 > LARGEST {
        return Err(StoreError {
            kind: StoreErrorKind::Refused,
            message: format!(
                "cannot write `{}`: {} bytes are more than {LARGEST}; distribute the processes over several namespaces",
                path.display(),
                bytes.len(),
            ),
            source: None,
        });
    }
    Ok(bytes)
}

/// Returns the name and the data of a circuit, or `None` if the file has lost its content.
///
/// A power cut can leave a file empty, truncated, or filled with zero bytes. The store then has
/// lost the data, and the processes restore it. A file that begins otherwise may be valuable for
/// its owner: it is an error.
pub(super) fn deserialize<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
) -> Result<Option<(String, T)>, StoreError> {
    if bytes.len() as u64 > LARGEST {
        return Err(invalid(path, &format!("has more than {LARGEST} bytes")));
    }
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    if BEGIN.starts_with(bytes) {
        return Ok(None);
    }
    if !bytes.starts_with(BEGIN) {
        return Err(invalid(path, "is not a file of this store"));
    }
    // The version first: another one may have other data.
    let version = serde_json::from_slice::<Version>(bytes).map(|content| content.version);
    match version {
        Ok(VERSION) => {}
        Ok(version) => return Err(other_version(path, version)),
        Err(error) => return damaged(path, &error),
    }
    match serde_json::from_slice::<Data<T>>(bytes) {
        Ok(content) => Ok(Some((content.circuit, content.data))),
        Err(error) => damaged(path, &error),
    }
}

/// The result for a file of this store that cannot be parsed.
fn damaged<T>(path: &Path, error: &serde_json::Error) -> Result<Option<T>, StoreError> {
    match error.classify() {
        Category::Eof | Category::Syntax | Category::Io => Ok(None),
        Category::Data => Err(invalid(path, &format!("has an invalid value ({error})"))),
    }
}

fn other_version(path: &Path, version: u32) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Refused,
        message: format!(
            "`{}` has version {version} of the format, and this process supports version {VERSION}; \
             run one version of `tower-breaker-fleet`, or use another folder",
            path.display(),
        ),
        source: None,
    }
}
