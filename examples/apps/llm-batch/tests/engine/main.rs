//! The engine over a scripted client, on tokio's paused clock.

mod circuit;
mod concurrency;
mod fake;
mod replies;
mod stops;
mod waits;
