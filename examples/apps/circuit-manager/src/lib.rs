//! A server that manages the circuits of agents.
