//! The layers over real clients and servers, the examples, and the statements of the documentation.
//!
//! Tests that need a process of their own are binaries of their own beside this one.

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
