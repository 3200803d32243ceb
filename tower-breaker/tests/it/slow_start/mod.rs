//! Slow start: a circuit that its probes have closed does not admit all calls immediately.

mod by_successes;
mod by_time;
