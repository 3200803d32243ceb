//! How a layer obtains the key of a request.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use tower_fault_classify::request::RequestExt;

use super::lease::Recent;
use super::map::{KeyedCircuits, PickedCircuit};
use crate::sealed::Sealed;

/// Selects the circuit of a request by its key.
///
/// Sealed: [`ByValue`], [`ByRef`] and [`ExtensionFirst`] implement it.
pub trait PickCircuit<Req, K>: Sealed {
    /// Returns the circuit of the request's key. `recent` belongs to the service.
    #[doc(hidden)]
    fn pick(
        &self,
        request: &mut Req,
        circuits: &KeyedCircuits<K>,
        recent: &mut Recent<K>,
    ) -> PickedCircuit<K>;
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
    fn pick(
        &self,
        request: &mut Req,
        circuits: &KeyedCircuits<K>,
        recent: &mut Recent<K>,
    ) -> PickedCircuit<K> {
        circuits.pick((self.0)(request), recent)
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
    fn pick(
        &self,
        request: &mut Req,
        circuits: &KeyedCircuits<K>,
        recent: &mut Recent<K>,
    ) -> PickedCircuit<K> {
        circuits.pick_ref((self.key)(request), recent)
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

/// Selects the circuit by an extension of the request, and otherwise by `F`.
///
/// Set by [`KeyedBreakerLayer::key_from_extension`](crate::keyed::KeyedBreakerLayer::key_from_extension).
#[derive(Clone, Copy, Debug)]
pub struct ExtensionFirst<F>(pub(super) F);

impl<F> Sealed for ExtensionFirst<F> {}

impl<F, Req, K> PickCircuit<Req, K> for ExtensionFirst<F>
where
    F: PickCircuit<Req, K>,
    Req: RequestExt,
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn pick(
        &self,
        request: &mut Req,
        circuits: &KeyedCircuits<K>,
        recent: &mut Recent<K>,
    ) -> PickedCircuit<K> {
        match request.extension() {
            Some(key) => circuits.pick(key, recent),
            None => self.0.pick(request, circuits, recent),
        }
    }
}
