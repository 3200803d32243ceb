//! The scripts, and their hashes.

use std::sync::LazyLock;

pub(super) static SYNC: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/sync.lua")));
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/lease.lua")));
pub(super) static COMPLETE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/complete.lua")));
pub(super) static OPERATE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/operate.lua")));
pub(super) static RECORDS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/records.lua")));

/// A script with the common part in front of it.
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(own: &str) -> Self {
        let code = [include_str!("scripts/lib.lua"), own].concat();
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// Returns the hash, by which the server knows the script.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}
