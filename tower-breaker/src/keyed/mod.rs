//! Circuits by a key of the request: their layer and service, the map that keeps them, and the
//! compact storage of one.

mod core;
mod future;
mod key;
mod layer;
mod map;
mod service;
mod table;

pub use self::core::Shared;
pub use future::KeyedResponseFuture;
pub use key::{ByRef, ByValue, PickCircuit};
pub use layer::KeyedBreakerLayer;
pub use map::{KeyedCircuit, KeyedCircuits};
pub use service::KeyedBreaker;
