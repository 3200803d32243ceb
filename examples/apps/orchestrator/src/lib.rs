//! Runs the tasks of a plan in dependency order.
