//! The program `worker`.

fn main() {}
