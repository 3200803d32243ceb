//! Sends each item of a file to an LLM API.
