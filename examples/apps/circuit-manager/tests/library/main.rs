//! Tests of the library: circuits, manager, guards and health.

mod guard;
mod health;
mod machine;
mod manager;
mod store;
mod support;
