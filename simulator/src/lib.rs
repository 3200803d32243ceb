//! Simulates fleets of clients that call a server through the layers of this workspace.
//!
//! The simulation drives the shipped [`Circuit`](tower_breaker::Circuit),
//! [`RetryPolicy`](tower_jitter_retry::RetryPolicy), its [`decision`](tower_jitter_retry::decision)
//! and [`Budget`](tower_jitter_retry::Budget) in virtual time. A run is a function of its
//! [`Setup`](setup::Setup): the same seed gives the same result on every machine.
//!
//! | module | content |
//! |---|---|
//! | [`time`] | units of virtual time |
//! | [`events`] | the queue of events, ordered by time |
//! | [`random`] | streams of random numbers, derived from one seed |
//! | [`reply`] | what a server answers, and its verdict |
//! | [`server`] | the server: queue, shards, outage, failures |
//! | [`client`] | the client processes: guards, circuits, policies |
//! | [`setup`] | the settings of a run |
//! | [`run`] | one run: the loop over the events |
//! | [`report`] | the counts of a run, and what is derived from them |
//! | [`contention`] | updates of one row, which have a loop of their own |
//! | [`cli`] | the command line |
//! | [`scenarios`] | lists of setups, each with a question that they answer |
//! | [`figure`] | figures with one shared look, as SVG |
//! | [`table`] | tables of results, and their CSV files |

pub mod cli;
pub mod client;
pub mod contention;
pub mod events;
pub mod figure;
pub mod random;
pub mod reply;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod server;
pub mod setup;
pub mod table;
pub mod time;
