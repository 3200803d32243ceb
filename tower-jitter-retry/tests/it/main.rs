//! The integration tests, one module per subject.

mod attempts;
mod budget;
mod cancellation;
mod clone_requests;
mod closures;
mod configuration;
mod deadlines;
mod decision;
mod delays;
mod grpc;
mod last_outcome;
mod nested_layers;
mod readiness;
mod reconfigure;
mod requests;
mod retry_scope;
mod retry_while;
mod safety;
mod support;
mod telemetry;
#[cfg(feature = "test-util")]
mod test_util;
#[cfg(feature = "tower-retry")]
mod tower_policy;
mod uploads;
mod yields;
