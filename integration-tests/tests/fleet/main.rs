//! Fleets on real stores whose servers, networks and processes fail.
//!
//! Each process of a fleet is a circuit with its own agent, connections and instance name. Most
//! tests have all of them in one process; those about killed processes start child processes.
//!
//! The tests are small. `./campaign fleet` runs the same cases with 60 processes.
#![cfg(unix)]

mod bad_processes;
mod campaign;
mod children;
mod clocks;
mod flush;
mod logs;
mod outages;
mod processes;
mod promotion;
mod reconnects;
mod refusals;
mod restarts;
mod servers;
mod twins;
mod versions;
