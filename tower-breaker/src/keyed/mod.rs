//! Where circuits by a key meet tower.

mod future;
mod key;
mod layer;
mod service;

pub use future::KeyedResponseFuture;
pub use key::{ByRef, ByValue, PickCircuit};
pub use layer::KeyedBreakerLayer;
pub use service::KeyedBreaker;
