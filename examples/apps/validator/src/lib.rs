//! Runs the checks of a project, and reports the results of all of them.
//!
//! A check that hangs, fails or cannot start does not affect the others: its result says what
//! happened.
//!
//! | module | content |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`validator`] | checks, and commands as checks |
//! | [`timeouts`] | the time limits, by dimension |
//! | [`orchestrator`] | runs the validators |
//! | [`result`] | results and the report |
//! | [`external`] | QuestDB, Prometheus and MCP |
//! | [`resilience`] | circuits and retries of the external calls |
//! | [`error`] | the error of a check |
//!
//! Without the cargo feature `resilience` (on by default), external calls are sent once, and there
//! are no circuits. Time limits do not depend on the feature.

pub mod config;
pub mod error;
pub mod external;
pub mod orchestrator;
pub mod resilience;
pub mod result;
pub mod timeouts;
pub mod validator;
