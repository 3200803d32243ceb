//! A circuit for each key of a request: its host, its route, a tenant, a model.
//!
//! | item | |
//! |---|---|
//! | [`KeyedBreakerLayer`], [`KeyedBreaker`], [`KeyedResponseFuture`] | the layer, its services and their futures |
//! | [`KeyedConfig`], [`KeyedConfigBuilder`], [`Overflow`] | how many keys are kept, and what happens to a call with one key too many |
//! | [`KeyedCircuits`], [`KeyedCircuit`], [`KeyedPermit`] | handles to the circuits: status, control, permits |
//! | [`ByValue`], [`ByRef`], [`PickCircuit`] | how a layer gets the key of a request |
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
//!
//! fn host(request: &http::Request<()>) -> &str {
//!     request.uri().host().unwrap_or_default()
//! }
//!
//! let service = ServiceBuilder::new()
//!     .layer(KeyedBreakerLayer::by_ref(KeyedConfig::default(), host))
//!     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(http::Response::new(()))));
//! # fn check<R, S: tower::Service<R>>(_: &S) {}
//! # check::<http::Request<()>, _>(&service);
//! ```

mod core;
mod future;
mod key;
mod layer;
mod map;
mod service;
mod table;

pub use self::core::Shared;
pub use crate::config::{KeyedConfig, KeyedConfigBuilder, Overflow};
pub use future::KeyedResponseFuture;
pub use key::{ByRef, ByValue, PickCircuit};
pub use layer::KeyedBreakerLayer;
pub use map::{KeyedCircuit, KeyedCircuits, KeyedPermit};
pub use service::KeyedBreaker;
