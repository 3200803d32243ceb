//! Two processes that share a circuit.

fn main() {}
