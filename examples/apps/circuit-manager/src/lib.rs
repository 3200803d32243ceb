//! Manages the circuits of agents: limits, persistence, health, and an HTTP API.
//!
//! | module | content |
//! |---|---|
//! | [`settings`] | the limits of a circuit |
//! | [`manager`] | [`Manager`](manager::Manager): the circuits by agent, manual control, callbacks |
//! | [`stats`] | the statistics of a circuit |
//! | [`store`] | the states of the circuits in PostgreSQL or in a file, over restarts |
//! | [`guard`] | calls through a circuit: function wrappers with fallbacks, and guards |
//! | [`health`] | probes of the agents, whose results open the circuits and let them recover |
//! | [`config`] | the configuration file |
//! | [`agents`] | the agents that the server calls: real ones over HTTP, and simulated ones |
//! | [`server`], [`api`], [`openapi`] | the HTTP server, its routes, and their description |
//! | [`auth`], [`audit`] | the users and their tokens; every attempt to change a circuit |
//! | [`events`] | the live events, over a WebSocket or as server-sent events |

mod agent;
pub mod agents;
pub mod api;
pub mod audit;
pub mod auth;
pub mod config;
pub mod events;
pub mod guard;
pub mod health;
pub mod manager;
pub mod openapi;
pub mod server;
pub mod settings;
pub mod stats;
pub mod store;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
