//! The scenarios of all stores, and the failures of a server.

use std::future::{Ready, ready};

use test_servers::Redis;

use super::RedisStore;

mod standalone {
    use super::*;
    use crate::store::scenarios::run_scenarios;

    fn store() -> Ready<(RedisStore, Redis)> {
        let server = Redis::start();
        ready((RedisStore::new(&[&server.url()], false).unwrap(), server))
    }

    run_scenarios!(store);
}
