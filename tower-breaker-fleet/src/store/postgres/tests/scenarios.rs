//! The scenarios of all stores.

use std::sync::Arc;

use super::server::{Pooled, Shared, pooled, shared};
use crate::store::postgres::PostgresStore;
use crate::store::scenarios::run_scenarios;

mod listening {
    use super::*;

    async fn store() -> (PostgresStore, Arc<Shared>) {
        let server = shared().await;
        (server.listening(), server)
    }

    run_scenarios!(store);
}

mod polling {
    use super::*;

    async fn store() -> (PostgresStore, Arc<Shared>) {
        let server = shared().await;
        (server.polling(), server)
    }

    run_scenarios!(store);
}

mod pooled_transactions {
    use super::*;

    async fn store() -> (PostgresStore, Arc<Pooled>) {
        let pooler = pooled().await;
        (pooler.polling(), pooler)
    }

    run_scenarios!(store);
}
