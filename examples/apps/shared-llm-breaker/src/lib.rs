//! A circuit breaker for calls to an LLM API, shared by workers through Redis.
//!
//! Workers that use the same Redis server and the same name share one circuit. Five consecutive
//! failures of all workers together open it. After 30 s the workers send probes, one at a time, and
//! two successes close it for all. A call decides in memory: it never waits for Redis.
//!
//! ```no_run
//! use shared_llm_breaker::{BreakerSettings, CircuitBreaker, CircuitBreakerError, get_circuit_breaker};
//!
//! # async fn complete(prompt: &str) -> anyhow::Result<String> { Ok(prompt.to_owned()) }
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let redis_url = CircuitBreaker::DEFAULT_REDIS_URL;
//!     let breaker = get_circuit_breaker(redis_url, "claude_api", BreakerSettings::default()).await?;
//!     match breaker.call(complete("Hello")).await {
//!         Ok(reply) => println!("{reply}"),
//!         Err(error) if error.is::<CircuitBreakerError>() => println!("rejected: {error}"),
//!         Err(error) => println!("failed: {error}"),
//!     }
//!     breaker.close().await;
//!     Ok(())
//! }
//! ```

mod breaker;
pub mod cli;
pub mod commands;
pub mod config;
mod demo;
mod error;
mod events;
pub mod llm;
mod output;
mod registry;
mod settings;
mod signals;
mod state;

pub use breaker::CircuitBreaker;
pub use error::{CircuitBreakerError, ResetError, SetupError};
pub use registry::{get_circuit_breaker, reset_all_breakers};
pub use settings::BreakerSettings;
pub use state::CircuitState;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
