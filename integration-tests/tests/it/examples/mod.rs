//! Runs the examples as their users do.

mod axum_gateway;
mod batch;
mod hyper;
mod quickstart;
mod tenants;
mod tonic;
