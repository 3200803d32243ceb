//! Manages the circuits of agents: limits, persistence, health, and an HTTP API.
//!
//! | module | content |
//! |---|---|
//! | [`settings`] | the limits of a circuit |
//! | [`manager`] | [`Manager`](manager::Manager): the circuits by agent, manual control, callbacks |
//! | [`stats`] | the statistics of a circuit |
//! | [`guard`] | calls through a circuit: function wrappers with fallbacks, and guards |
//! | [`health`] | probes of the agents, whose results open the circuits and let them recover |

mod agent;
pub mod guard;
pub mod health;
pub mod manager;
pub mod settings;
pub mod stats;
