//! Sends each item of a file to an LLM API.

pub mod config;
pub mod errors;
pub mod llm;
