//! A gateway of axum: what its clients and its downstreams see of it.

mod example;
