//! Runs a program in a process group that ends with its future.
