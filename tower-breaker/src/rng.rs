//! The only place where a random number is drawn.

/// A number drawn evenly from 0 to 1, from the thread's own generator.
pub(crate) fn draw() -> f64 {
    fastrand::f64()
}
