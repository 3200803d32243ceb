//! The store in memory, for tests and demos.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Row, StoreError, upsert_into};

/// A store that exists as long as its handles. It can fail like a real one.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<String, Row>,
    statements: Vec<usize>,
    outage: Option<Outage>,
}

/// How a [`MemoryStore`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It returns errors.
    Refuses,
    /// It does not answer.
    Hangs,
}

impl MemoryStore {
    /// Creates a store without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the store fails. `None`: it works.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.inner().outage = outage;
    }

    /// Returns the number of rows of each statement so far.
    pub fn statements(&self) -> Vec<usize> {
        self.inner().statements.clone()
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let outage = self.inner().outage;
        match outage {
            None => Ok(()),
            Some(Outage::Refuses) => Err(StoreError::Outage),
            Some(Outage::Hangs) => pending().await,
        }
    }

    pub(super) async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.check().await?;
        Ok(self.inner().rows.values().cloned().collect())
    }

    pub(super) async fn upsert(&self, rows: &[Row]) -> Result<(), StoreError> {
        self.check().await?;
        let mut inner = self.inner();
        inner.statements.push(rows.len());
        upsert_into(&mut inner.rows, rows);
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
