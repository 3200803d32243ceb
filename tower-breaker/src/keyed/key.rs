//! How a layer obtains the key of a request.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use super::map::{KeyedCircuits, PickedCircuit};
use crate::sealed::Sealed;

/// Selects the circuit of a request by its key.
///
/// Sealed: [`ByValue`] and [`ByRef`] implement it.
pub trait PickCircuit<Req, K>: Sealed {
    /// Returns the circuit of the request's key.
    #[doc(hidden)]
    fn pick(&self, request: &Req, circuits: &KeyedCircuits<K>) -> PickedCircuit<K>;
}

/// Selects the circuit by a key that a closure returns.
///
/// Set by [`KeyedBreakerLayer::new`](crate::keyed::KeyedBreakerLayer::new).
#[derive(Clone, Copy)]
pub struct ByValue<F>(pub(super) F);

impl<F> Sealed for ByValue<F> {}

impl<F, Req, K> PickCircuit<Req, K> for ByValue<F>
where
    F: Fn(&Req) -> K,
    K: Eq + Hash,
{
    #[inline]
    fn pick(&self, request: &Req, circuits: &KeyedCircuits<K>) -> PickedCircuit<K> {
        circuits.find_or_insert((self.0)(request))
    }
}

impl<F> fmt::Debug for ByValue<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByValue")
    }
}

/// Selects the circuit by a part of the request, which is cloned only if its key is new.
///
/// Set by [`KeyedBreakerLayer::by_ref`](crate::keyed::KeyedBreakerLayer::by_ref).
pub struct ByRef<F, Q: ?Sized> {
    key: F,
    part: PhantomData<fn() -> Box<Q>>,
}

impl<F, Q: ?Sized> ByRef<F, Q> {
    pub(super) const fn new(key: F) -> Self {
        Self { key, part: PhantomData }
    }
}

impl<F, Q: ?Sized> Sealed for ByRef<F, Q> {}

impl<F, Q, Req, K> PickCircuit<Req, K> for ByRef<F, Q>
where
    F: for<'a> Fn(&'a Req) -> &'a Q,
    Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    K: Borrow<Q> + Eq + Hash,
{
    #[inline]
    fn pick(&self, request: &Req, circuits: &KeyedCircuits<K>) -> PickedCircuit<K> {
        circuits.find_or_insert_ref((self.key)(request))
    }
}

impl<F: Clone, Q: ?Sized> Clone for ByRef<F, Q> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone())
    }
}

impl<F, Q: ?Sized> fmt::Debug for ByRef<F, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRef")
    }
}
