//! Runs the tasks of a plan in dependency order, and isolates their failures.
//!
//! | module | content |
//! |---|---|
//! | [`plan`] | reads and checks the plan file |
//! | [`prompt`] | inserts the results of dependencies into a prompt |
//! | [`dag`] | the states of the tasks, and which task may start |
//! | [`backend`] | the interface of the backends, and its errors |
//! | [`process`] | backends that run a command for each message |
//! | [`resilience`] | retries around a circuit around a send; the circuits of the backends |
//! | [`runner`] | runs the tasks concurrently |
//! | [`report`] | the events of a run, and the results of its tasks |

pub mod backend;
pub mod dag;
pub mod plan;
pub mod process;
pub mod prompt;
pub mod report;
pub mod resilience;
pub mod runner;
