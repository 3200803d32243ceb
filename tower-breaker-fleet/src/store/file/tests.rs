mod clock;
mod disk;
mod folders;
mod hostile;
mod locks;
mod processes;
mod updates;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::folder::Folder;
use super::{FileStore, clock as wall_clock};
use crate::record::CircuitRecord;
use crate::store::scenarios::helpers::{self, member, votes};
use crate::store::{
    Action, Backend, Operation, OperationReply, Session, StoreError, SyncCircuit, SyncRequest, Synced,
};

const SECOND: Duration = Duration::from_secs(1);

/// A temporary folder with a store.
struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in the folder of the namespace.
    fn file(&self, name: &str) -> PathBuf {
        self.root().join("test").join(name)
    }

    fn namespace(&self) -> Arc<Folder> {
        Arc::new(Folder::new(self.root().to_owned(), "test"))
    }

    async fn connect(&self) -> Box<dyn Session> {
        connect(self.root()).await.unwrap()
    }
}

async fn connect(root: &Path) -> Result<Box<dyn Session>, StoreError> {
    connect_at(root, wall_clock::now_ms).await
}

async fn connect_at(root: &Path, now: fn() -> u64) -> Result<Box<dyn Session>, StoreError> {
    FileStore { folder: root.to_owned(), now }.connect("test").await
}

fn heartbeat(instance: &str, circuit: &str) -> SyncRequest {
    SyncRequest {
        instance: instance.to_owned(),
        lifetime: 10 * SECOND,
        grace: 60 * SECOND,
        circuits: vec![SyncCircuit {
            name: circuit.to_owned(),
            open_for: Some(30 * SECOND),
            ..member(votes(1))
        }],
    }
}

async fn sync(session: &mut dyn Session, instance: &str, circuit: &str) -> Result<Synced, StoreError> {
    Ok(session.sync(&heartbeat(instance, circuit)).await?.remove(0))
}

fn operation(circuit: &str, action: Action) -> Operation {
    Operation { circuit: circuit.to_owned(), open_for: Some(30 * SECOND), ..helpers::operation(action) }
}

async fn trip(session: &mut dyn Session, circuit: &str) -> Result<OperationReply, StoreError> {
    session.operate(&operation(circuit, Action::Trip)).await
}

/// The record of a circuit in the list.
async fn record(session: &mut dyn Session, circuit: &str) -> CircuitRecord {
    let records = session.list(None, 1000).await.unwrap();
    records.into_iter().find(|record| record.circuit == circuit).unwrap_or_default()
}

mod scenarios {
    use super::*;

    fn store() -> std::future::Ready<(FileStore, TempDir)> {
        let folder = TempDir::new().unwrap();
        std::future::ready((FileStore::open(folder.path()).unwrap(), folder))
    }

    crate::store::scenarios::run_scenarios!(store);
}
