//! Tests of the layers with real clients and servers, of the examples, and of the documentation.
//!
//! Tests that need their own process are separate test targets.

mod classification;
mod documentation;
mod examples;
mod full_stack;
mod gateway;
mod hyper_util;
mod layer_order;
mod pure_code;
mod reqwest;
mod response_bodies;
mod retries;
mod tonic;
