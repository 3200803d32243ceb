//! The service, and what its clones share.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::audit::AuditLog;
use crate::auth::Authorizer;
use crate::builder::AdminBuilder;
use crate::events::Hub;
use crate::rate::Rates;
use crate::source::Sources;

/// A service that shows and controls circuits over HTTP.
///
/// The [crate's documentation](crate) has an example. A clone is another handle to the same service.
/// It holds the circuits that it was given.
#[derive(Clone)]
pub struct Admin {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) sources: Arc<Sources>,
    pub(crate) authorizer: Authorizer,
    pub(crate) audit: AuditLog,
    pub(crate) action_rates: Rates,
    pub(crate) read_rates: Rates,
    /// Held while the store lists its records, so that one list at a time delays the agent.
    pub(crate) fleet_lists: Mutex<()>,
    pub(crate) hub: Arc<Hub>,
}

impl Admin {
    /// Returns a builder without circuits and without users.
    ///
    /// Until a user is added, every request of the API is refused.
    pub fn builder() -> AdminBuilder {
        AdminBuilder::default()
    }

    pub(crate) fn new(sources: Arc<Sources>, authorizer: Authorizer, audit: AuditLog, history: bool) -> Self {
        let hub = Hub::new(Arc::clone(&sources), history);
        if tokio::runtime::Handle::try_current().is_ok() {
            hub.start();
        }
        Self {
            inner: Arc::new(Inner {
                sources,
                authorizer,
                audit,
                action_rates: Rates::of_actions(),
                read_rates: Rates::of_reads(),
                fleet_lists: Mutex::default(),
                hub,
            }),
        }
    }

    /// Ends all event streams, and refuses new ones with the status 503.
    ///
    /// Call it when the server begins a graceful shutdown. Otherwise the shutdown waits until every
    /// page is closed: see [Shutdown](crate#shutdown). All other requests are still answered.
    pub fn close_streams(&self) {
        self.inner.hub.close();
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let circuits: Vec<_> = self.inner.sources.all().into_keys().collect();
        f.debug_struct("Admin")
            .field("circuits", &circuits)
            .field("authorizer", &self.inner.authorizer)
            .finish_non_exhaustive()
    }
}
