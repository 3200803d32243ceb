//! Tests of the layers with the drivers of databases, against real servers.
//!
//! They start PostgreSQL and Redis. `./test` installs both.
#![cfg(unix)]

mod fleet;
mod full_stack;
mod postgres;
mod redis;
mod rules;
mod worker;
