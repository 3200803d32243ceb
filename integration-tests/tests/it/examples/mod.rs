//! Runs the examples and checks their output.

mod axum_gateway;
mod batch;
mod hyper;
mod llm_worker;
mod quickstart;
mod reqwest;
mod reqwest_middleware;
mod restart;
mod shards;
mod tenants;
mod tonic;
