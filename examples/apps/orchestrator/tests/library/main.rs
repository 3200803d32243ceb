//! Tests of the library.

mod cancellation;
mod common;
mod concurrency;
mod dag;
mod plan;
#[cfg(unix)]
mod process;
mod retry;
mod runner;
