//! The program `circuit-manager`.

fn main() {}
