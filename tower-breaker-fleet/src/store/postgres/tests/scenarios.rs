//! The scenarios of all stores.

use std::sync::Arc;

use super::server::{Shared, shared};
use crate::store::postgres::PostgresStore;
use crate::store::scenarios::run_scenarios;

mod listening {
    use super::*;

    async fn store() -> (PostgresStore, Arc<Shared>) {
        let server = shared().await;
        (server.store(), server)
    }

    run_scenarios!(store);
}

mod polling {
    use super::*;

    async fn store() -> (PostgresStore, Arc<Shared>) {
        let server = shared().await;
        (PostgresStore::open(server.url()).unwrap(), server)
    }

    run_scenarios!(store);
}
