//! Tests of the library, against real programs and servers on loopback.

#[cfg(feature = "resilience")]
mod circuits;
#[cfg(unix)]
mod commands;
mod config;
mod degradation;
mod external;
#[cfg(feature = "resilience")]
mod outages;
mod report;
#[cfg(feature = "resilience")]
mod retries;
mod support;
mod timeouts;
